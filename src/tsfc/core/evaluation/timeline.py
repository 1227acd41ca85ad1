"""Timeline of a report: paths and verdicts of peers, gaps, faults and counters.

A lane keeps only changes. If there are too many, each interval of `resolution` seconds
keeps the worst of them, so that a browser can open a month of hundreds of peers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from statistics import median

from msgspec import Struct, field
from returns.result import Failure, Result

from tsfc.core.evaluation.statistics import Statistics
from tsfc.core.faults import Fault
from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.peers import named
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
_UNSEEN: Value = _PEER_VALUES[UNSEEN, None]
_SEEN: Value = (SEEN, "")
_GAP: Value = (GAP, "")
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
        _hide_peers(timeline, timeline.last + int(median(statistics.intervals)), _GAP)
    if run.verdicts is None or isinstance(observed, Failure):
        # The last line says why, but for that of a restart that it leads to.
        why = [line for line in lines if not line.startswith(Reason.RESTART.upper())]
        text = _known_text(timeline, why[-1] if why else "")
        _hide_peers(timeline, now, (FAULT, text))
    else:
        _append(timeline, timeline.node, now, _SEEN, _worse_of_node(timeline))
        _show_peers(timeline, run, observed.unwrap())
    timeline.last = now
    _record_counters(timeline, now, statistics)
    if timeline.segments > SEGMENTS_LIMIT:
        _coarsen(timeline)


def worse(one: Value, other: Value) -> Value:
    """Merge two values of a peer: the worse path, and the more important reason."""
    path = max(one[0], other[0], key=_PATH_RANK.__getitem__)
    reason = max(one[1], other[1], key=_REASON_RANK.__getitem__)
    return _PEER_VALUES[path, reason]


def _worse_of_node(timeline: Timeline) -> Worse:
    def rank(value: Value) -> tuple[int, int]:
        return OBSERVATION_STATUSES.index(value[0]), timeline.texts.index(value[1] or "")

    return lambda one, other: max(one, other, key=rank)


def _show_peers(timeline: Timeline, run: Run, status: Status) -> None:
    now = run.now.unix
    reasons = {verdict.peer: verdict.reason for verdict in run.verdicts or ()}
    lanes = timeline.peers
    peers = named(status)
    for peer in peers:
        name = peer.name
        lane = lanes.get(name)
        if lane is None:
            lane = lanes[name] = Lane()
        value = (classify(peer.status), reasons.get(name))
        if not lane.values or lane.values[-1] != value:
            _append(timeline, lane, now, _PEER_VALUES[value], worse)

    # Peers that have left the status.
    if len(peers) < len(lanes):
        present = {peer.name for peer in peers}
        for name, lane in lanes.items():
            if name not in present:
                _append(timeline, lane, now, _UNSEEN, worse)


def _hide_peers(timeline: Timeline, at: int, node: Value) -> None:
    """Hide all peers from a time on. `node` is the value of the node's lane."""
    _append(timeline, timeline.node, at, node, _worse_of_node(timeline))
    for lane in timeline.peers.values():
        _append(timeline, lane, at, _UNSEEN, worse)


def _append(timeline: Timeline, lane: Lane, at: int, value: Value, worse: Worse) -> None:
    if lane.values and lane.values[-1] == value:
        return
    if lane.starts and at - lane.starts[-1] < timeline.resolution:
        lane.values[-1] = worse(lane.values[-1], value)
        return
    lane.starts.append(at)
    lane.values.append(value)
    timeline.segments += 1


def _coarsen(timeline: Timeline) -> None:
    """Merge short segments until at most half of the limit is used."""
    while timeline.segments > SEGMENTS_LIMIT // 2 and timeline.resolution < COARSEST_SECONDS:
        timeline.resolution = max(COARSE_SECONDS, 2 * timeline.resolution)
        timeline.segments = 0
        end = timeline.last or 0
        timeline.node = _merged(timeline, timeline.node, end, _worse_of_node(timeline))
        timeline.peers = {
            name: _merged(timeline, lane, end, worse) for name, lane in timeline.peers.items()
        }


def _merged(timeline: Timeline, lane: Lane, end: int, worse: Worse) -> Lane:
    merged = Lane()
    for start, until, value in zip(lane.starts, [*lane.starts[1:], end], lane.values, strict=True):
        _append(timeline, merged, start, value, worse)
        # A value that outlasts the segment it was merged into gets one of its own.
        again = merged.starts[-1] + timeline.resolution
        if again < until:
            _append(timeline, merged, max(start, again), value, worse)
    return merged


def _known_text(timeline: Timeline, text: str) -> str:
    """Return a fault's text, or `OTHER_FAULTS` if there are too many different ones."""
    if text in timeline.texts:
        return text
    if len(timeline.texts) < TEXTS_LIMIT:
        timeline.texts.append(text if len(timeline.texts) < TEXTS_LIMIT - 1 else OTHER_FAULTS)
    return timeline.texts[-1]


def _record_counters(timeline: Timeline, now: int, statistics: Statistics) -> None:
    state, points = statistics.state, timeline.counters
    totals = (state.restarts, state.detections, state.recoveries, statistics.cooldowns)
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
