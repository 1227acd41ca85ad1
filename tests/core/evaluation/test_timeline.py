"""What a report draws is what was seen; where there is too much of it, it is the worst of what was seen."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec import Raw, json

from support.captures import START, fault, hectic, seen
from support.statuses import PATHS as SEEN_PATHS
from support.statuses import peer
from tsfc.core.evaluation import timeline
from tsfc.core.evaluation.observation import Observation, instant, status_of
from tsfc.core.evaluation.statistics import Statistics, update
from tsfc.core.evaluation.timeline import (
    PATHS,
    REASONS,
    SHIFT,
    SIGHTS,
    UNSEEN,
    Lane,
    Timeline,
    record,
)
from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.peers import named
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.track import Reason
from tsfc.offline.host import OfflineHost

POLICY = ThresholdPolicy(max_relay_seconds=100, cooldown_seconds=150)
Seen = list[tuple[int, dict[str, str]]]


def _recorded(observations: Iterable[dict[str, Any]]) -> tuple[Timeline, Statistics, Seen]:
    """Returns the timeline, the statistics, and the path of each peer in each run that saw any."""
    drawn, statistics, host = Timeline(), Statistics(), OfflineHost()
    saw: Seen = []
    for made in observations:
        observation = Observation(
            made["captured_at"],
            None,
            Raw(json.encode(made["status"])) if "status" in made else Raw(),
            made.get("fault"),
        )
        observed = status_of(observation)
        run, lines = host.run(observed, now=instant(observation), policy=POLICY)
        update(statistics, run)
        record(drawn, run, observed, lines, statistics)
        peers = () if run.verdicts is None else named(observed.unwrap())
        saw.append((run.now.unix, {peer.name: classify(peer.status) for peer in peers}))
    return drawn, statistics, saw


def _at(lane: Lane, unix: int) -> int:
    return [value for start, value in zip(lane.starts, lane.values, strict=True) if start <= unix][
        -1
    ]


def _path(lane: Lane, unix: int) -> str:
    return PATHS[_at(lane, unix) // SHIFT]


def _rising(seed: int, length: int) -> list[dict[str, Any]]:
    """Returns a hectic capture whose clock rises, by a whole second at least."""
    capture = hectic(seed, length)
    for number, observation in enumerate(capture):
        observation["captured_at"] = START + 61 * number
    return capture


@pytest.mark.parametrize("seed", range(5))
def test_each_moment_of_each_lane_is_what_was_seen_then(seed: int) -> None:
    drawn, _, saw = _recorded(_rising(seed, 300))
    assert drawn.resolution == 1
    for unix, paths in saw:
        assert {
            name: _path(lane, unix)
            for name, lane in drawn.peers.items()
            if lane.starts[0] <= unix and _path(lane, unix) != UNSEEN
        } == paths


def test_only_changes_are_kept() -> None:
    drawn, _, _ = _recorded(
        seen(START + 60 * number, peer("nas"), peer("rpi3")) for number in range(100)
    )
    assert drawn.segments == 3  # two peers and the node
    assert drawn.peers["nas"] == Lane(
        [START], [PATHS.index(Path.DIRECT) * SHIFT + REASONS.index(Reason.DIRECT)]
    )


def test_a_lane_has_the_verdicts_of_its_peer() -> None:
    paths = ["direct", *["derp"] * 4, "direct"]
    drawn, _, _ = _recorded(
        seen(START + 60 * number, peer("nas", path)) for number, path in enumerate(paths)
    )
    reasons = [REASONS[value % SHIFT] for value in drawn.peers["nas"].values]
    assert reasons == [
        Reason.DIRECT,
        Reason.DETECTED,
        Reason.WAITING,
        Reason.RESTART,
        Reason.COOLDOWN,
        Reason.RESTORED,
    ]


def test_the_node_s_lane_has_faults_with_their_text_and_gaps() -> None:
    times = [0, 60, 120, 180, 1180, 1240]
    capture = [seen(START + at, peer("nas")) for at in times]
    capture[2] = fault(START + 120, "asking tailscaled: Connection refused")
    drawn, statistics, _ = _recorded(capture)
    node = list(
        zip(
            drawn.node.starts,
            [(SIGHTS[value // SHIFT], drawn.texts[value % SHIFT]) for value in drawn.node.values],
            strict=True,
        )
    )
    refused = "tsfc watchdog: asking tailscaled: Connection refused"
    assert node == [
        (START, ("seen", "")),
        (START + 120, ("fault", refused)),
        (START + 180, ("seen", "")),
        (START + 240, ("gap", "")),
        (START + 1180, ("seen", "")),
    ]
    assert [(start - START, PATHS[value // SHIFT]) for start, value in zip(drawn.peers["nas"].starts, drawn.peers["nas"].values, strict=True)] == [
        (0, "direct"), (120, "unseen"), (180, "direct"), (240, "unseen"), (1180, "direct"),
    ]  # fmt: skip
    assert (statistics.gaps, statistics.faults) == (1, 1)


def test_faults_of_too_many_kinds_are_told_apart_no_more() -> None:
    drawn, _, _ = _recorded(fault(START + 60 * number, f"fault {number}") for number in range(100))
    assert len(drawn.texts) == timeline.TEXTS
    assert drawn.texts[-2:] == [f"tsfc watchdog: fault {timeline.TEXTS - 3}", timeline.OTHER_FAULTS]
    assert all(value // SHIFT == SIGHTS.index("fault") for value in drawn.node.values)


def test_a_clock_that_runs_backwards_leaves_lanes_that_rise() -> None:
    drawn, _, _ = _recorded(hectic(3, 300))
    for lane in (drawn.node, *drawn.peers.values()):
        assert lane.starts == sorted(set(lane.starts))


def test_where_there_are_too_many_changes_each_span_shows_the_worst_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeline, "SEGMENTS", 600)
    chance = random.Random("worst")  # noqa: S311 - no secret
    names = [f"peer-{number}" for number in range(20)]
    capture = [
        seen(
            START + 10 * number,
            *(peer(name, chance.choice([*["direct"] * 6, *SEEN_PATHS])) for name in names),
        )
        for number in range(800)
    ]
    drawn, _, saw = _recorded(capture)
    assert drawn.resolution >= timeline.COARSE_SECONDS
    assert (
        drawn.segments
        == len(drawn.node.starts) + sum(len(lane.starts) for lane in drawn.peers.values())
        <= 600
    )
    for name, lane in drawn.peers.items():
        spans = zip(lane.starts, [*lane.starts[1:], saw[-1][0] + 1], lane.values, strict=True)
        for start, stop, value in spans:
            within = {paths[name] for unix, paths in saw if start <= unix < stop and name in paths}
            assert PATHS[value // SHIFT] == max(within, key=PATHS.index)


def test_what_is_long_survives_what_is_short_when_they_are_merged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A blink of relay is shown as long as the resolution, and not as long as the direct path behind it."""
    blink = {3: "derp"}
    capture = [
        seen(START + 10 * number, peer("nas", blink.get(number, "direct")))
        for number in range(1000)
    ]
    drawn, _, _ = _recorded(capture)
    monkeypatch.setattr(timeline, "SEGMENTS", 8)
    timeline._coarsen(drawn)
    lane = drawn.peers["nas"]
    assert _path(lane, START + 30) == "derp"
    assert _path(lane, START + 30 + 2 * drawn.resolution) == "direct"


def test_the_counters_end_at_what_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "POINTS", 20)
    drawn, statistics, _ = _recorded(
        seen(START + 60 * number, peer("nas", "derp"), peer("rpi3", "derp"))
        for number in range(500)
    )
    assert len(drawn.counters) <= 20
    assert [point[0] for point in drawn.counters] == sorted({point[0] for point in drawn.counters})
    assert drawn.counters[-1][1:] == (
        statistics.state.restarts,
        statistics.state.detections,
        statistics.state.recoveries,
        statistics.cooldowns,
    )
    assert statistics.state.restarts > 20 < statistics.cooldowns
