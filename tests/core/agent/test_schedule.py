"""When the jobs of the agent run."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsfc.core.agent.schedule import all_due, begin, plan

USUAL = {"exporter": 30.0, "native-metrics": 15.0, "keepalive": 10.0, "watchdog": 60.0}
NOBODY: frozenset[str] = frozenset()


def _runs(seconds: float) -> dict[str, list[float]]:
    """The times of all runs of an agent that wakes up exactly when it wants to."""
    schedule, now = begin(USUAL, 0.0), 0.0
    found: dict[str, list[float]] = {job: [] for job in USUAL}
    while now < seconds:
        next_ = plan(schedule, now, NOBODY)
        for job in next_.due:
            found[job].append(now)
        schedule, now = next_.schedule, next_.wake
    return found


def test_each_job_runs_at_its_interval_from_the_start() -> None:
    assert _runs(3600) == {
        job: [interval * number for number in range(int(3600 / interval))]
        for job, interval in USUAL.items()
    }


def test_without_jobs_there_is_nothing_to_wake_up_for() -> None:
    assert plan((), 5.0, NOBODY).wake == inf


def test_a_job_that_still_runs_is_skipped_and_comes_at_its_next_time() -> None:
    schedule = begin({"keepalive": 10.0, "exporter": 30.0}, 0.0)
    next_ = plan(schedule, 0.0, frozenset({"keepalive"}))
    assert next_.due == ("exporter",)
    assert next_.skipped == ("keepalive",)
    assert plan(next_.schedule, 10.0, NOBODY).due == ("keepalive",)


def test_missed_runs_are_not_made_up_for() -> None:
    schedule = plan(begin(USUAL, 0.0), 0.0, NOBODY).schedule
    after = plan(schedule, 3601.0, NOBODY)
    assert sorted(after.due) == sorted(USUAL)
    assert after.wake == 3610.0
    assert plan(after.schedule, 3602.0, NOBODY).due == ()


def test_everything_is_due_after_a_jump_and_at_its_usual_times_after_it() -> None:
    schedule = plan(begin(USUAL, 0.0), 0.0, NOBODY).schedule
    jumped = plan(all_due(schedule, 3.0), 3.0, NOBODY)
    assert sorted(jumped.due) == sorted(USUAL)
    assert jumped.wake == 13.0
    assert all_due(begin(USUAL, 0.0), 3.0) == begin(USUAL, 0.0)


@given(
    intervals=st.dictionaries(
        st.sampled_from(["a", "b", "c"]), st.floats(1, 1e6), min_size=1, max_size=3
    ),
    start=st.floats(0, 1e9),
    waits=st.lists(st.floats(0, 1e7), max_size=20),
)
def test_the_next_wake_up_is_always_later(
    intervals: dict[str, float], start: float, waits: list[float]
) -> None:
    schedule, now = begin(intervals, start), start
    for wait in waits:
        next_ = plan(schedule, now, NOBODY)
        assert now < next_.wake <= now + max(intervals.values()) * 1.001
        assert plan(next_.schedule, now, NOBODY).due == ()
        schedule, now = next_.schedule, now + wait


@pytest.mark.parametrize("job", USUAL)
def test_jobs_whose_intervals_divide_each_other_meet(job: str) -> None:
    times = _runs(3600)
    assert set(times["watchdog"]) <= set(times[job])
