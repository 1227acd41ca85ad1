"""Statistics count as the watchdog does: from run to run."""

from __future__ import annotations

from typing import Any

import pytest

from core.evaluation.evaluated import POLICY, counted
from support.captures import START, fault, seen
from support.statuses import peer
from tsfc.core.evaluation.statistics import PeerStatistics, Statistics, peers_at_end


def _stuck(*times: int) -> list[dict[str, Any]]:
    return [seen(START + at, peer("nas", "derp")) for at in times]


def test_statistics_without_runs_are_zero() -> None:
    assert peers_at_end(Statistics()) == {}


def test_restarts_detections_and_cooldowns_of_a_stuck_peer_are_counted() -> None:
    """Threshold 100 s, cooldown 150 s: restarts at 120 s and at 300 s."""
    statistics = counted(_stuck(*range(0, 361, 60)))
    state = statistics.state
    assert (state.restarts, state.detections, state.recoveries) == (2, 1, 0)
    assert statistics.cooldowns == 3
    assert statistics.first_restart == START + 120
    assert (statistics.first, statistics.last) == (START, START + 360)
    assert peers_at_end(statistics) == {"nas": PeerStatistics(360, 1, 360, 2)}


@pytest.mark.parametrize(
    "last",
    [
        pytest.param([peer("nas")], id="direct-again"),
        pytest.param([peer("nas", "offline")], id="offline"),
        pytest.param([], id="gone"),
    ],
)
def test_an_episode_ends_with_the_run_that_sees_its_end(last: list[dict[str, Any]]) -> None:
    observations = [*_stuck(0, 60), seen(START + 90, *last), *_stuck(200, 210)]
    assert peers_at_end(counted(observations))["nas"] == PeerStatistics(100, 2, 90, 0)


def test_an_episode_includes_faults() -> None:
    observations = [*_stuck(0), fault(START + 60), seen(START + 120, peer("nas"))]
    statistics = counted(observations)
    assert statistics.faults == 1
    assert peers_at_end(statistics)["nas"].relay_seconds == 120


def test_an_episode_in_progress_does_not_include_a_time_without_peers() -> None:
    """The watchdog saw no peers for more than 300 s, so it knows no relay in that time."""
    faults = [fault(START + at) for at in range(60, 481, 60)]
    assert peers_at_end(counted([*_stuck(0, 30), *faults]))["nas"].relay_seconds == 30


def test_direct_seconds_end_at_a_fault() -> None:
    observations = [
        seen(START, peer("nas"), peer("rpi3")),
        seen(START + 60, peer("nas"), peer("rpi3", "derp")),
        fault(START + 100),
        seen(START + 500, peer("nas")),
    ]
    assert counted(observations).direct_seconds == 2 * 60 + 40


@pytest.mark.parametrize(
    ("intervals", "gaps"),
    [
        pytest.param([60, 60, 60, 180], 0, id="three-times-the-usual"),
        pytest.param([60, 60, 60, 181], 1, id="more"),
        pytest.param([60, 600], 0, id="too-early-to-know-the-usual"),
        pytest.param([60, 60, 600, 60, 600], 2, id="a-gap-does-not-change-the-usual"),
        pytest.param([60] * 9 + [600] * 7, 5, id="the-usual-follows-the-last-nine"),
    ],
)
def test_a_gap_is_an_interval_far_longer_than_the_usual(intervals: list[int], gaps: int) -> None:
    times = [sum(intervals[:number]) for number in range(len(intervals) + 1)]
    statistics = counted(_stuck(*times))
    assert (statistics.gaps, statistics.observations) == (gaps, len(times))


@pytest.mark.parametrize("step", [10**7, -(10**5)])
def test_a_step_of_the_wall_clock_is_not_counted_as_time(step: int) -> None:
    observations = [
        seen(START + at + (step if at else 0), peer("nas", "derp"))
        | {"boot": {"id": "b", "seconds": 100 + at}}
        for at in (0, 60)
    ]
    statistics = counted(observations)
    assert peers_at_end(statistics)["nas"].relay_seconds == 60
    assert statistics.state.restarts == 0


def test_a_clock_that_goes_back_subtracts_nothing() -> None:
    observations = [seen(START, peer("nas")), seen(START - 500, peer("nas"))]
    assert counted(observations).direct_seconds == 0


def test_an_episode_that_ends_after_the_clock_goes_back_is_not_negative() -> None:
    observations = [seen(START, peer("nas", "derp")), seen(START - 500, peer("nas"))]
    assert peers_at_end(counted(observations))["nas"] == PeerStatistics(0, 1, 0, 0)


@pytest.mark.parametrize("step", [10**7, -(10**5)])
def test_a_step_of_the_wall_clock_adds_no_direct_time(step: int) -> None:
    observations = [
        seen(START + at + (step if at else 0), peer("nas"))
        | {"boot": {"id": "b", "seconds": 100 + at}}
        for at in (0, 60)
    ]
    assert counted(observations).direct_seconds == 60


def test_an_excluded_peer_causes_no_restart_but_is_counted() -> None:
    policy = type(POLICY)(100, 150, frozenset({"nas"}))
    statistics = counted(_stuck(0, 60, 120, 180), policy)
    assert peers_at_end(statistics) == {"nas": PeerStatistics(180, 1, 180, 0)}
    assert statistics.first_restart is None
