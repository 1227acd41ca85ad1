"""The last day of every peer: what it shows, and that it never grows."""

from __future__ import annotations

import random

import pytest
from returns.result import Failure, Success

from support.statuses import PATHS, encoded, peer
from tsfc.core.agent import history as histories
from tsfc.core.agent.history import (
    DAY_SECONDS,
    GONE_LIMIT,
    SEGMENTS_LIMIT,
    History,
    order,
    record_look,
    record_run,
)
from tsfc.core.clock import Boot, Instant
from tsfc.core.evaluation.timeline import FAULT, GAP, SEEN, UNSEEN, Lane
from tsfc.core.faults import Down
from tsfc.core.tailscale.status import Status, decode
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.track import Reason, Verdict

T = 1_800_000_000
Spans = list[tuple[int, str, str | None]]


def _at(seconds: int, *, set_by: int = 0) -> Instant:
    return Instant(T + seconds + set_by, Boot("b", 1000 + seconds, 1000 + seconds))


def _status(**paths: str) -> Status:
    return decode(encoded(*(peer(name, path) for name, path in paths.items()))).unwrap()


def _look(history: History, seconds: int, *, set_by: int = 0, **paths: str) -> None:
    record_look(history, Success(_status(**paths)), _at(seconds, set_by=set_by))


def _run(history: History, seconds: int, state: State | None = None, **reasons: Reason) -> None:
    verdicts = tuple(Verdict(name, reason) for name, reason in reasons.items())
    record_run(history, Run(_at(seconds), state or State(), verdicts=verdicts))


def _spans(lane: Lane) -> Spans:
    """The segments of a lane: start since T, path, and reason."""
    return [(start - T, *value) for start, value in zip(lane.starts, lane.values, strict=True)]


def test_a_lane_shows_the_path_of_each_look() -> None:
    history = History()
    for seconds, path in ((0, "direct"), (30, "direct"), (60, "derp"), (90, "direct")):
        _look(history, seconds, nas=path)
    assert _spans(history.timeline.peers["nas"]) == [
        (0, "direct", None),
        (60, "derp", None),
        (90, "direct", None),
    ]
    assert _spans(history.timeline.node) == [(0, SEEN, "")]


def test_a_verdict_holds_until_the_path_changes_or_the_next_run() -> None:
    history = History()
    _look(history, 0, nas="derp")
    _run(history, 0, nas=Reason.DETECTED)
    _look(history, 30, nas="derp")
    _look(history, 60, nas="derp")
    _run(history, 60, nas=Reason.WAITING)
    _look(history, 90, nas="direct")
    _look(history, 120, nas="direct")
    _run(history, 121)
    assert _spans(history.timeline.peers["nas"]) == [
        (0, "derp", "detected"),
        (60, "derp", "waiting"),
        (90, "direct", None),
    ]


def test_what_could_not_be_seen_is_not_shown() -> None:
    history = History()
    _look(history, 0, nas="direct")
    record_look(history, Failure(Down("tailscaled is down")), _at(30))
    stopped = decode(encoded(peer("nas"), BackendState="Stopped")).unwrap()
    record_look(history, Success(stopped), _at(60))
    record_run(history, Run(_at(60), State()))
    _run(history, 61)
    _look(history, 90, nas="direct")
    _look(history, 500, nas="direct")
    assert _spans(history.timeline.peers["nas"]) == [
        (0, "direct", None),
        (30, UNSEEN, None),
        (90, "direct", None),
        (180, UNSEEN, None),
        (500, "direct", None),
    ]
    assert _spans(history.timeline.node) == [
        (0, SEEN, ""),
        (30, FAULT, "tailscaled is down"),
        (60, FAULT, "tailscaled is Stopped, not Running"),
        (61, SEEN, ""),
        (180, GAP, ""),
        (500, SEEN, ""),
    ]


def test_looks_that_are_meant_to_be_far_apart_have_no_gap() -> None:
    history = History(longest_seconds=900)
    for seconds in (0, 300, 1200, 2101):
        _look(history, seconds, nas="direct")
    assert _spans(history.timeline.node) == [(0, SEEN, ""), (2100, GAP, ""), (2101, SEEN, "")]


def test_the_history_moves_with_a_clock_that_is_set() -> None:
    history = History()
    _look(history, 0, nas="direct")
    _run(history, 0)
    _look(history, 30, nas="derp")
    _look(history, 60, set_by=-3600, nas="direct")
    assert _spans(history.timeline.peers["nas"]) == [
        (-3600, "direct", None),
        (-3570, "derp", None),
        (-3540, "direct", None),
    ]
    assert history.timeline.counters == [(T - 3600, 0, 0, 0, 0)]


def test_time_never_goes_back_without_a_boot_clock() -> None:
    history = History()
    for unix, path in ((100, "direct"), (90, "derp"), (80, "direct")):
        record_look(history, Success(_status(nas=path)), Instant(T + unix))
    assert _spans(history.timeline.peers["nas"]) == [(100, "derp", None)]


def test_after_a_day_all_is_forgotten() -> None:
    history = History()
    _look(history, 0, nas="direct", pi="direct")
    record_look(history, Failure(Down("gone")), _at(30))
    assert history.timeline.texts == ["", "gone"]
    for hour in range(1, 26):
        _look(history, 3600 * hour, nas="direct")
    assert list(history.timeline.peers) == ["nas"]
    assert history.timeline.peers["nas"].starts[0] == T + 25 * 3600 - DAY_SECONDS
    assert history.timeline.texts == [""]


def test_counters_count_from_the_first_run() -> None:
    history = History()
    _look(history, 0, nas="derp")
    _run(history, 0, State(restarts=5, detections=7), nas=Reason.WAITING)
    _run(history, 60, State(restarts=6, detections=9), nas=Reason.COOLDOWN)
    _run(history, 120, State(), nas=Reason.COOLDOWN)
    assert history.timeline.counters == [
        (T, 0, 0, 0, 0),
        (T + 60, 1, 2, 0, 1),
        (T + 120, 1, 2, 0, 2),
    ]
    for hour in range(1, 27):
        _look(history, 3600 * hour, nas="derp")
    assert history.timeline.counters == [(T + 120, 1, 2, 0, 2)]


def test_peers_that_were_on_relay_come_first() -> None:
    history = History()
    _look(history, 0, a="direct", b="offline", c="derp", d="peer_relay")
    _look(history, 30, a="direct", b="derp", c="direct", d="direct")
    assert order(history) == ["b", "c", "a", "d"]


def test_a_flapping_peer_stays_bounded_and_exact_for_the_last_minutes() -> None:
    chance = random.Random("flapping")  # noqa: S311 - no secret
    history = History()
    seen: list[tuple[int, str]] = []
    for seconds in range(0, 2 * DAY_SECONDS, 15):
        path = chance.choice(["direct", "derp", "offline"])
        seen.append((seconds, path))
        _look(history, seconds, nas=path, pi="direct")
        assert len(history.timeline.peers["nas"].starts) <= SEGMENTS_LIMIT
    lane, last = history.timeline.peers["nas"], seen[-1][0]
    assert lane.starts == sorted(set(lane.starts))
    assert lane.starts[0] == T + last - DAY_SECONDS
    assert _spans(history.timeline.peers["pi"]) == [(last - DAY_SECONDS, "direct", None)]
    spans = _spans(lane)
    for at, path in seen[-16:]:
        assert [value for start, value, _ in spans if start <= at][-1] == path


def test_a_peer_that_flaps_each_second_stays_bounded() -> None:
    """It has more changes in a minute than merging by a small share of the age removes."""
    history = History()
    for seconds in range(2000):
        _look(history, seconds, nas="derp" if seconds % 2 else "direct")
        assert len(history.timeline.peers["nas"].starts) <= SEGMENTS_LIMIT


def test_flapping_of_the_node_stays_bounded() -> None:
    history = History()
    for number in range(2000):
        if number % 2:
            record_look(history, Failure(Down(f"fault {number}")), _at(30 * number))
        else:
            _look(history, 30 * number, nas="direct")
    assert len(history.timeline.node.starts) <= SEGMENTS_LIMIT
    assert len(history.timeline.texts) <= 16


def test_peers_that_come_and_go_stay_bounded() -> None:
    history = History()
    for number in range(3 * GONE_LIMIT):
        status = _status(**{f"peer-{number}": "direct"})
        record_look(history, Success(status), _at(30 * number))
    assert len(history.timeline.peers) == GONE_LIMIT + 1
    assert "peer-0" not in history.timeline.peers


@pytest.mark.parametrize("path", PATHS)
def test_each_path_is_shown(path: str) -> None:
    history = History()
    _look(history, 0, nas=path)
    assert len(history.timeline.peers) == 1


def test_a_run_before_the_first_look_is_kept() -> None:
    history = History()
    _run(history, 0, State(restarts=1), nas=Reason.DIRECT)
    assert history.timeline.peers == {}
    assert histories.order(history) == []
