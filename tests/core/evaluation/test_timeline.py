"""The timeline shows what was observed; if it has to merge, the worst of it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from core.evaluation.evaluated import runs
from support.captures import START, fault, hectic, seen
from support.statuses import PATHS as SEEN_PATHS
from support.statuses import peer
from tsfc.core.evaluation import timeline
from tsfc.core.evaluation.statistics import Statistics, update
from tsfc.core.evaluation.timeline import (
    FAULT,
    GAP,
    PATHS,
    REASONS,
    SEEN,
    UNSEEN,
    Lane,
    Timeline,
    Value,
    record,
    worse,
)
from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.peers import named
from tsfc.core.watchdog.track import Reason

PathsOverTime = list[tuple[int, dict[str, str]]]
"Unix time of each run, and the path of each peer that it observed."


def _recorded(observations: Iterable[dict[str, Any]]) -> tuple[Timeline, Statistics, PathsOverTime]:
    """Run the watchdog; return the timeline, the statistics, and the observed paths."""
    drawn, statistics = Timeline(), Statistics()
    observed_paths: PathsOverTime = []
    for run, observed, lines in runs(observations):
        update(statistics, run)
        record(drawn, run, observed, lines, statistics)
        peers = () if run.verdicts is None else named(observed.unwrap())
        observed_paths.append((run.now.unix, {peer.name: classify(peer.status) for peer in peers}))
    return drawn, statistics, observed_paths


def _path(lane: Lane, unix: int) -> str:
    segments = zip(lane.starts, lane.values, strict=True)
    return [value for start, value in segments if start <= unix][-1][0]


def test_the_node_has_the_name_that_a_status_has_last() -> None:
    """A fault, and a status of a tailscaled that does not know its name, do not take it."""
    names = ("alpha", "bravo", "")
    captured = [
        seen(START + 60 * number, peer("nas"), Self={"DNSName": name and f"{name}.x.ts.net."})
        for number, name in enumerate(names)
    ]
    drawn, _, _ = _recorded([*captured, fault(START + 300)])
    assert drawn.node_name == "bravo"


def _rising(seed: int, length: int) -> list[dict[str, Any]]:
    """Return a hectic capture whose clock never stands still or goes back."""
    capture = hectic(seed, length)
    for number, observation in enumerate(capture):
        observation["captured_at"] = START + 61 * number
    return capture


@pytest.mark.parametrize("seed", range(5))
def test_each_lane_shows_the_path_that_was_observed_at_each_time(seed: int) -> None:
    drawn, _, observed_paths = _recorded(_rising(seed, 300))
    assert drawn.resolution == 1
    for unix, paths in observed_paths:
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
    assert drawn.peers["nas"] == Lane([START], [(Path.DIRECT, Reason.DIRECT)])


def test_a_lane_has_the_verdicts_of_its_peer() -> None:
    paths = ["direct", *["derp"] * 4, "direct"]
    drawn, _, _ = _recorded(
        seen(START + 60 * number, peer("nas", path)) for number, path in enumerate(paths)
    )
    assert [reason for _, reason in drawn.peers["nas"].values] == [
        Reason.DIRECT,
        Reason.DETECTED,
        Reason.WAITING,
        Reason.RESTART,
        Reason.COOLDOWN,
        Reason.RESTORED,
    ]


def test_the_lane_of_the_node_shows_gaps_and_faults_with_their_texts() -> None:
    times = [0, 60, 120, 180, 1180, 1240]
    capture = [seen(START + at, peer("nas")) for at in times]
    capture[2] = fault(START + 120, "asking tailscaled: Connection refused")
    drawn, statistics, _ = _recorded(capture)
    refused = "tsfc watchdog: asking tailscaled: Connection refused"
    assert list(zip(drawn.node.starts, drawn.node.values, strict=True)) == [
        (START, (SEEN, "")),
        (START + 120, (FAULT, refused)),
        (START + 180, (SEEN, "")),
        (START + 240, (GAP, "")),
        (START + 1180, (SEEN, "")),
    ]
    nas = drawn.peers["nas"]
    assert [start - START for start in nas.starts] == [0, 120, 180, 240, 1180]
    assert [path for path, _ in nas.values] == ["direct", UNSEEN, "direct", UNSEEN, "direct"]
    assert (statistics.gaps, statistics.faults) == (1, 1)


def test_too_many_different_faults_share_one_text() -> None:
    drawn, _, _ = _recorded(fault(START + 60 * number, f"fault {number}") for number in range(100))
    assert len(drawn.texts) == timeline.TEXTS_LIMIT
    assert drawn.texts[-2:] == [
        f"tsfc watchdog: fault {timeline.TEXTS_LIMIT - 3}",
        timeline.OTHER_FAULTS,
    ]
    assert {status for status, _ in drawn.node.values} == {FAULT}
    assert {text for _, text in drawn.node.values} == set(drawn.texts[1:])


def test_the_starts_of_a_lane_ascend_even_if_the_clock_goes_back() -> None:
    drawn, _, _ = _recorded(hectic(3, 300))
    for lane in (drawn.node, *drawn.peers.values()):
        assert lane.starts == sorted(set(lane.starts))


def test_merged_segments_show_the_worst_path_within_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timeline, "SEGMENTS_LIMIT", 600)
    chance = random.Random("worst")  # noqa: S311 - no secret
    names = [f"peer-{number}" for number in range(20)]
    capture = [
        seen(
            START + 10 * number,
            *(peer(name, chance.choice([*["direct"] * 6, *SEEN_PATHS])) for name in names),
        )
        for number in range(800)
    ]
    drawn, _, observed_paths = _recorded(capture)
    assert drawn.resolution >= timeline.COARSE_SECONDS
    assert (
        drawn.segments
        == len(drawn.node.starts) + sum(len(lane.starts) for lane in drawn.peers.values())
        <= 600
    )
    for name, lane in drawn.peers.items():
        spans = zip(
            lane.starts, [*lane.starts[1:], observed_paths[-1][0] + 1], lane.values, strict=True
        )
        for start, stop, (path, _) in spans:
            within = {
                paths[name]
                for unix, paths in observed_paths
                if start <= unix < stop and name in paths
            }
            assert path == max(within, key=PATHS.index)


def test_a_short_relay_does_not_hide_the_long_direct_path_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay of ten seconds is shown as long as the resolution, and not longer."""
    paths = {3: "derp"}
    capture = [
        seen(START + 10 * number, peer("nas", paths.get(number, "direct")))
        for number in range(1000)
    ]
    drawn, _, _ = _recorded(capture)
    monkeypatch.setattr(timeline, "SEGMENTS_LIMIT", 8)
    timeline._coarsen(drawn)
    lane = drawn.peers["nas"]
    assert _path(lane, START + 30) == "derp"
    assert _path(lane, START + 30 + 2 * drawn.resolution) == "direct"


def test_the_last_point_of_the_counters_has_the_totals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "POINTS_LIMIT", 20)
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


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param(
            (Path.DERP, Reason.DETECTED),
            (Path.DIRECT, Reason.RECOVERED),
            (Path.DERP, Reason.RECOVERED),
            id="path-and-reason-are-merged-separately",
        ),
        pytest.param((UNSEEN, None), (Path.OFFLINE, None), (Path.OFFLINE, None), id="not-watched"),
    ],
)
def test_merging_keeps_the_worse_path_and_the_more_important_reason(
    one: Value, other: Value, expected: Value
) -> None:
    assert worse(one, other) == worse(other, one) == expected


def test_merging_keeps_the_worst_status_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = [seen(START + 10 * number, peer("nas")) for number in range(20)]
    capture[3] = fault(START + 30, "a fault")
    drawn, _, _ = _recorded(capture)
    monkeypatch.setattr(timeline, "SEGMENTS_LIMIT", 8)
    timeline._coarsen(drawn)
    assert drawn.node == Lane([START, START + 60], [(FAULT, "tsfc watchdog: a fault"), (SEEN, "")])


def test_every_path_and_reason_has_a_rank() -> None:
    assert set(PATHS) == {UNSEEN, *Path}
    assert set(REASONS) == {None, *Reason}
