"""Data of the report: each peer's path and verdict over time, faults, and counters.

Only changes are kept. If there are too many, the resolution becomes coarser and the
most severe value of each interval is kept. So a browser can open a month of hundreds of
peers.
"""

from __future__ import annotations

from collections.abc import Callable
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
"Path of a peer that could not be observed, or is not in the status."
PATHS = (UNSEEN, Path.DIRECT, Path.IDLE, Path.OFFLINE, Path.PEER_RELAY, Path.DERP)
"By severity, least severe first."
REASONS = (
    None,
    Reason.DIRECT,
    Reason.WAITING,
    Reason.EXCLUDED,
    Reason.COOLDOWN,
    Reason.DETECTED,
    Reason.RESTORED,
    Reason.RECOVERED,
    Reason.RESTART,
)
"By severity, least severe first; None for a peer that is not watched."
SIGHTS = ("seen", "gap", "fault")
"What the node itself showed: an observation, a gap between observations, or a fault."

SHIFT = 16
"""Factor of the number of a path, or of an observation status, in the value of a lane.
The number of the reason, or of the fault's text, is added."""
TEXTS = 16
"Maximum number of texts of faults. The last one stands for all others."
OTHER_FAULTS = "other faults"

SEGMENTS = 150_000
"Maximum number of segments in all lanes. They make about 1 MB of HTML."
POINTS = 3_000
"Maximum number of points of the counters: more than a screen has pixels."
COARSE_SECONDS = 60
"First coarse resolution, in seconds; it doubles from there."
COARSEST_SECONDS = 2**30

_PATH_NUMBERS = {path: number * SHIFT for number, path in enumerate(PATHS)}
_REASON_NUMBERS = {reason: number for number, reason in enumerate(REASONS)}
_GAP = 1 * SHIFT
_FAULT = 2 * SHIFT


class Lane(Struct):
    """Values over time. Each value holds until the start of the next."""

    starts: list[int] = field(default_factory=list[int])
    "Unix time, ascending."
    values: list[int] = field(default_factory=list[int])


class Timeline(Struct):
    """All data to draw, updated in place: there may be millions of runs."""

    node: Lane = field(default_factory=Lane)
    peers: dict[str, Lane] = field(default_factory=dict[str, Lane])
    texts: list[str] = field(default_factory=lambda: [""])
    "Texts of faults. A value of the node's lane has the number of its text."
    counters: list[tuple[int, int, int, int, int]] = field(
        default_factory=list[tuple[int, int, int, int, int]]
    )
    "Unix time, and the numbers of restarts, detections, recoveries and cooldowns."
    resolution: int = 1
    "Seconds. The most severe value within this interval is kept."
    counter_resolution: int = 1
    segments: int = 0
    last: int | None = None
    "Unix time of the last run."


def record(
    timeline: Timeline,
    run: Run,
    observed: Result[Status, Fault],
    lines: tuple[str, ...],
    statistics: Statistics,
) -> None:
    """Add one run, after `statistics` has counted it."""
    now = run.now.unix
    if statistics.is_gap and timeline.last is not None:
        _hide(timeline, timeline.last + int(median(statistics.intervals)), _GAP)
    if run.verdicts is None or isinstance(observed, Failure):
        _hide(timeline, now, _FAULT + _text_number(timeline, lines[-1] if lines else ""))
    else:
        _append(timeline, timeline.node, now, 0, max)
        _show(timeline, run, observed.unwrap())
    timeline.last = now
    _count(timeline, now, statistics)
    if timeline.segments > SEGMENTS:
        _coarsen(timeline)


def worse(one: int, other: int) -> int:
    """Return the more severe path with the more severe reason."""
    return max(one // SHIFT, other // SHIFT) * SHIFT + max(one % SHIFT, other % SHIFT)


def _show(timeline: Timeline, run: Run, status: Status) -> None:
    now = run.now.unix
    reasons = {verdict.peer: _REASON_NUMBERS[verdict.reason] for verdict in run.verdicts or ()}
    lanes = timeline.peers
    peers = named(status)
    for peer in peers:
        name = peer.name
        lane = lanes.get(name)
        if lane is None:
            lane = lanes[name] = Lane()
        value = _PATH_NUMBERS[classify(peer.status)] + reasons.get(name, 0)
        if not lane.values or lane.values[-1] != value:
            _append(timeline, lane, now, value, worse)
    if len(peers) < len(lanes):
        there = {peer.name for peer in peers}
        for name, lane in lanes.items():
            if name not in there:
                _append(timeline, lane, now, 0, worse)


def _hide(timeline: Timeline, at: int, node: int) -> None:
    """Record that no peer is observed from then on.

    `node` is the value of the node's lane.
    """
    _append(timeline, timeline.node, at, node, max)
    for lane in timeline.peers.values():
        _append(timeline, lane, at, 0, worse)


def _append(
    timeline: Timeline, lane: Lane, at: int, value: int, worst: Callable[[int, int], int]
) -> None:
    if lane.values and lane.values[-1] == value:
        return
    if lane.starts and at - lane.starts[-1] < timeline.resolution:
        lane.values[-1] = worst(lane.values[-1], value)
        return
    lane.starts.append(at)
    lane.values.append(value)
    timeline.segments += 1


def _coarsen(timeline: Timeline) -> None:
    """Merge short segments until half of the limit is free."""
    while timeline.segments > SEGMENTS // 2 and timeline.resolution < COARSEST_SECONDS:
        timeline.resolution = max(COARSE_SECONDS, 2 * timeline.resolution)
        timeline.segments = 0
        end = timeline.last or 0
        timeline.node = _merged(timeline, timeline.node, end, max)
        timeline.peers = {
            name: _merged(timeline, lane, end, worse) for name, lane in timeline.peers.items()
        }


def _merged(timeline: Timeline, lane: Lane, end: int, worst: Callable[[int, int], int]) -> Lane:
    merged = Lane()
    for start, until, value in zip(lane.starts, [*lane.starts[1:], end], lane.values, strict=True):
        _append(timeline, merged, start, value, worst)
        again = merged.starts[-1] + timeline.resolution
        if again < until:  # it outlasts what it was merged into
            _append(timeline, merged, max(start, again), value, worst)
    return merged


def _text_number(timeline: Timeline, text: str) -> int:
    if text in timeline.texts:
        return timeline.texts.index(text)
    if len(timeline.texts) < TEXTS:
        timeline.texts.append(text if len(timeline.texts) < TEXTS - 1 else OTHER_FAULTS)
    return len(timeline.texts) - 1


def _count(timeline: Timeline, now: int, statistics: Statistics) -> None:
    state, points = statistics.state, timeline.counters
    point = (now, state.restarts, state.detections, state.recoveries, statistics.cooldowns)
    if points and points[-1][1:] == point[1:]:
        return
    if points and now - points[-1][0] < timeline.counter_resolution:
        points[-1] = (points[-1][0], *point[1:])
        return
    points.append(point)
    if len(points) > POINTS:
        timeline.counter_resolution = max(COARSE_SECONDS, 2 * timeline.counter_resolution)
        thinned = [points[0]]
        for later in points[1:]:
            if later[0] - thinned[-1][0] < timeline.counter_resolution:
                thinned[-1] = (thinned[-1][0], *later[1:])
            else:
                thinned.append(later)
        timeline.counters = thinned
