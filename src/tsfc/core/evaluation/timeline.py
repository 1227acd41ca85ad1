"""Timeline of a page: paths and verdicts of peers, gaps, faults and counters.

A report has one of all runs, the agent one of the last day (`core.agent.history`). A
lane keeps only changes. If there are too many, each interval of `resolution` seconds
keeps the worst of them, so that a browser can open a month of hundreds of peers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from statistics import median

from msgspec import Struct, field
from returns.result import Failure, Result

from tsfc.core.evaluation.statistics import Statistics
from tsfc.core.faults import Fault
from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.peers import named, own_name
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.track import Reason

UNSEEN = "unseen"
"Path of a peer that is not in the status, or if no status could be read."
PATHS = (UNSEEN, Path.DIRECT, Path.IDLE, Path.OFFLINE, Path.PEER_RELAY, Path.DERP, Path.NONE)
"By severity, least first. Merging keeps the more severe."
REASONS = (
    None,
    Reason.DIRECT,
    Reason.UNKNOWN,
    Reason.WAITING,
    Reason.EXCLUDED,
    Reason.NEVER_DIRECT,
    Reason.PATIENT,
    Reason.COOLDOWN,
    Reason.CONFIRMING,
    Reason.HELD,
    Reason.DETECTED,
    Reason.RESTORED,
    Reason.RECOVERED,
    Reason.RESTART,
)
"By importance, least first. None if the peer is not watched."
SEEN, GAP, FAULT = "seen", "gap", "fault"
OBSERVATION_STATUSES = (SEEN, GAP, FAULT)
"By severity: observed; no observation for much longer than usual; no verdicts."

TEXTS_LIMIT = 16
"Maximum number of fault texts, with the empty one. The last stands for all others."
OTHER_FAULTS = "other faults"

SEGMENTS_LIMIT = 150_000
"Maximum number of segments of all lanes: about 1 MB of a page."
POINTS_LIMIT = 3_000
"Maximum number of points of the counters: more than the pixels of a screen."
COARSE_SECONDS = 60
"First resolution if changes have to be merged. It doubles from there."
COARSEST_SECONDS = 2**30

Value = tuple[str, str | None]
"Path and reason of a peer, or observation status and fault text of the node."
Worse = Callable[[Value, Value], Value]
"Merges two values into the worse."

_PEER_VALUES: dict[Value, Value] = {pair: pair for pair in product(PATHS, REASONS)}
"One tuple per value, which all lanes share: there can be 150,000 segments."
UNSEEN_PEER: Value = _PEER_VALUES[UNSEEN, None]
SEEN_NODE: Value = (SEEN, "")
GAP_NODE: Value = (GAP, "")
_PATH_RANK: dict[str, int] = {path: rank for rank, path in enumerate(PATHS)}
_REASON_RANK: dict[str | None, int] = {reason: rank for rank, reason in enumerate(REASONS)}


class Lane(Struct):
    """Values over time. Each holds from its start to the next start."""

    starts: list[int] = field(default_factory=list[int])
    "Unix times, ascending."
    values: list[Value] = field(default_factory=list[Value])


class Timeline(Struct):
    """All lanes and counters. Updated in place: there can be millions of runs."""

    node: Lane = field(default_factory=Lane)
    peers: dict[str, Lane] = field(default_factory=dict[str, Lane])
    texts: list[str] = field(default_factory=lambda: [""])
    "Fault texts on the node's lane, in the order of their first occurrence."
    counters: list[tuple[int, int, int, int, int]] = field(
        default_factory=list[tuple[int, int, int, int, int]]
    )
    "Unix time; total restarts, detections, recoveries and cooldowns."
    resolution: int = 1
    "Seconds. Shorter changes are merged into the worst."
    counter_resolution: int = 1
    segments: int = 0
    "Number of segments of all lanes."
    last: int | None = None
    "Unix time of the last run."
    node_name: str = ""
    "Name of the node in the last status that has one."


def record(
    timeline: Timeline,
    run: Run,
    observed: Result[Status, Fault],
    lines: tuple[str, ...],
    statistics: Statistics,
) -> None:
    """Add one run. `statistics` must have counted it already."""
    now = run.now.unix
    if statistics.is_gap and timeline.last is not None:
        hide_peers(timeline, timeline.last + int(median(statistics.intervals)), GAP_NODE)
    if run.verdicts is None or isinstance(observed, Failure):
        # The last line says why, but for that of a restart that it leads to.
        why = [line for line in lines if not line.startswith(Reason.RESTART.upper())]
        hide_peers(timeline, now, fault(timeline, why[-1] if why else ""))
    else:
        reasons = {verdict.peer: verdict.reason for verdict in run.verdicts}
        values: dict[str, Value] = {
            peer.name: (classify(peer.status), reasons.get(peer.name))
            for peer in named(observed.unwrap())
        }
        show_peers(timeline, now, values)
        timeline.node_name = own_name(observed.unwrap()) or timeline.node_name
    timeline.last = now
    state = statistics.state
    totals = (state.restarts, state.detections, state.recoveries, statistics.cooldowns)
    record_counters(timeline, now, totals)
    if timeline.segments > SEGMENTS_LIMIT:
        _coarsen(timeline)


def worse(one: Value, other: Value) -> Value:
    """Merge two values of a peer: the worse path, and the more important reason."""
    path = max(one[0], other[0], key=_PATH_RANK.__getitem__)
    reason = max(one[1], other[1], key=_REASON_RANK.__getitem__)
    return _PEER_VALUES[path, reason]


def worse_of_node(timeline: Timeline) -> Worse:
    """Return what merges two values of the node's lane: the more severe one stays."""

    def rank(value: Value) -> tuple[int, int]:
        return OBSERVATION_STATUSES.index(value[0]), timeline.texts.index(value[1] or "")

    return lambda one, other: max(one, other, key=rank)


def show_peers(timeline: Timeline, at: int, values: Mapping[str, Value]) -> None:
    """Add what was observed: the value of each peer by its name. Others are unseen."""
    _append(timeline, timeline.node, at, SEEN_NODE, worse_of_node(timeline))
    lanes = timeline.peers
    for name, value in values.items():
        lane = lanes.get(name)
        if lane is None:
            lane = lanes[name] = Lane()
        if not lane.values or lane.values[-1] != value:
            _append(timeline, lane, at, _PEER_VALUES[value], worse)

    # Peers that have left the status.
    if len(values) < len(lanes):
        for name, lane in lanes.items():
            if name not in values:
                _append(timeline, lane, at, UNSEEN_PEER, worse)


def hide_peers(timeline: Timeline, at: int, node: Value) -> None:
    """Hide all peers from a time on. `node` is the value of the node's lane."""
    _append(timeline, timeline.node, at, node, worse_of_node(timeline))
    for lane in timeline.peers.values():
        _append(timeline, lane, at, UNSEEN_PEER, worse)


def _append(timeline: Timeline, lane: Lane, at: int, value: Value, worse: Worse) -> None:
    timeline.segments += append(lane, at, value, worse, timeline.resolution)


def append(lane: Lane, at: int, value: Value, worse: Worse, resolution: int) -> bool:
    """Add a value from a time on; return whether the lane has one more segment.

    If the last segment is shorter than `resolution` seconds, it gets the worse value.
    """
    if lane.values and lane.values[-1] == value:
        return False
    if lane.starts and at - lane.starts[-1] < resolution:
        lane.values[-1] = worse(lane.values[-1], value)
        return False
    lane.starts.append(at)
    lane.values.append(value)
    return True


def _coarsen(timeline: Timeline) -> None:
    """Merge short segments until at most half of the limit is used."""
    while timeline.segments > SEGMENTS_LIMIT // 2 and timeline.resolution < COARSEST_SECONDS:
        timeline.resolution = max(COARSE_SECONDS, 2 * timeline.resolution)
        end = timeline.last or 0
        timeline.node = merged(
            timeline.node, end, worse_of_node(timeline), lambda _: timeline.resolution
        )
        timeline.peers = {
            name: merged(lane, end, worse, lambda _: timeline.resolution)
            for name, lane in timeline.peers.items()
        }
        lanes = (timeline.node, *timeline.peers.values())
        timeline.segments = sum(len(lane.starts) for lane in lanes)


def merged(lane: Lane, end: int, worse: Worse, resolution: Callable[[int], int]) -> Lane:
    """Return a lane that ends at `end` with short segments merged into the worst.

    `resolution` is the shortest length in seconds of a segment, by its start.
    """
    result = Lane()
    for start, until, value in zip(lane.starts, [*lane.starts[1:], end], lane.values, strict=True):
        shortest = resolution(result.starts[-1]) if result.starts else 0
        append(result, start, value, worse, shortest)
        # A value that outlasts the segment it was merged into gets one of its own.
        again = result.starts[-1] + resolution(result.starts[-1])
        if again < until:
            append(result, max(start, again), value, worse, 0)
    return result


def fault(timeline: Timeline, text: str) -> Value:
    """Return the value of the node at a fault.

    There are at most `TEXTS_LIMIT` texts; the others are `OTHER_FAULTS`.
    """
    if text not in timeline.texts:
        is_last = len(timeline.texts) >= TEXTS_LIMIT - 1
        text = OTHER_FAULTS if is_last else text
        if text not in timeline.texts:
            timeline.texts.append(text)
    return FAULT, text


def record_counters(timeline: Timeline, now: int, totals: tuple[int, int, int, int]) -> None:
    """Add the totals of restarts, detections, recoveries and cooldowns."""
    points = timeline.counters
    if points and points[-1][1:] == totals:
        return
    _append_point(points, (now, *totals), timeline.counter_resolution)

    # Too many points: keep the last one of each interval.
    if len(points) > POINTS_LIMIT:
        timeline.counter_resolution = max(COARSE_SECONDS, 2 * timeline.counter_resolution)
        timeline.counters = []
        for point in points:
            _append_point(timeline.counters, point, timeline.counter_resolution)


def _append_point(
    points: list[tuple[int, int, int, int, int]],
    point: tuple[int, int, int, int, int],
    resolution: int,
) -> None:
    if points and point[0] - points[-1][0] < resolution:
        points[-1] = (points[-1][0], *point[1:])
    else:
        points.append(point)
