"""The last day of every peer, as the agent saw it.

It is a timeline as in a report, but old segments are forgotten. A lane with too many
changes loses short ones: first the old ones, so that the last hour stays exact.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping

from msgspec import Struct, field
from returns.result import Failure, Result

from tsfc.core.agent.paths import LONGEST_SECONDS
from tsfc.core.clock import Instant, step_between
from tsfc.core.evaluation.timeline import (
    GAP_NODE,
    UNSEEN,
    UNSEEN_PEER,
    Lane,
    Timeline,
    Value,
    Worse,
    append,
    fault,
    hide_peers,
    merged,
    record_counters,
    show_peers,
    worse,
    worse_of_node,
)
from tsfc.core.faults import Fault
from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.peers import named
from tsfc.core.tailscale.status import Status, is_running
from tsfc.core.text import PATH_LIMIT, one_line, printable
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.track import Reason

DAY_SECONDS = 86_400
"Age in seconds at which everything is forgotten."
SEGMENTS_LIMIT = 300
"Maximum number of segments of a lane."
FINEST_SHARE = 64
"""A lane with too many segments loses those shorter than this share of their age.

That is a minute after one hour. If that is not enough, the share grows.
"""
GONE_LIMIT = 100
"Maximum number of peers that have left the status and are still shown."


_BAD = frozenset({Path.DERP, Path.NONE})


class History(Struct):
    """The last day. Updated in place: most looks change nothing."""

    longest_seconds: int = LONGEST_SECONDS
    "Seconds for which a look holds. If the next one comes later, there is a gap."
    timeline: Timeline = field(default_factory=Timeline)
    "Its counters count from the first run of the watchdog that the agent saw."
    reasons: Mapping[str, Reason] = {}
    "The watchdog's verdict on each peer, for as long as its path stays the same."
    state: State | None = None
    "The watchdog's state after its last run."
    at: Instant | None = None
    "The last look; None before the first one."


def record_look(history: History, observed: Result[Status, Fault], now: Instant) -> None:
    """Add a look at all peers, or the reason why there is none."""
    timeline = history.timeline
    at = _begun(history, now)
    if isinstance(observed, Failure):
        why = printable(observed.failure().detail, 2 * PATH_LIMIT)
        hide_peers(timeline, at, fault(timeline, why))
    elif not is_running(status := observed.unwrap()):
        state = one_line(status.backend_state, 40)
        hide_peers(timeline, at, fault(timeline, f"tailscaled is {state}, not Running"))
    else:
        paths = {peer.name: classify(peer.status) for peer in named(status)}
        history.reasons = {
            name: reason
            for name, reason in history.reasons.items()
            if name in paths and _path(timeline, name) == paths[name]
        }
        show_peers(
            timeline, at, {name: (path, history.reasons.get(name)) for name, path in paths.items()}
        )
        _forget_gone(timeline)
    history.at = now
    _forget_old(timeline, at - DAY_SECONDS)
    _thin_out(timeline, at)


def record_run(history: History, run: Run) -> None:
    """Add what the watchdog decided and did. It does not look by itself."""
    timeline = history.timeline
    if run.verdicts is not None:
        at = max(run.now.unix, timeline.last or 0)
        timeline.last = at
        history.reasons = {verdict.peer: verdict.reason for verdict in run.verdicts}
        values: dict[str, Value] = {
            name: (lane.values[-1][0], history.reasons.get(name))
            for name, lane in timeline.peers.items()
            if lane.values[-1][0] != UNSEEN
        }
        show_peers(timeline, at, values)
        _count(history, run, at)
    history.state = run.state


def order(history: History) -> list[str]:
    """Return the names of all peers; those that were on relay come first."""
    lanes = history.timeline.peers
    was_relayed = {
        name: any(path in _BAD for path, _ in lane.values) for name, lane in lanes.items()
    }
    return sorted(lanes, key=lambda name: (not was_relayed[name], name))


def _begun(history: History, now: Instant) -> int:
    """Prepare for a look; return its Unix time, which is never before the last one.

    If the clock was set, the history moves with it. A long time without looks is a gap.
    """
    timeline = history.timeline
    if history.at is None or timeline.last is None:
        timeline.last = now.unix
        return now.unix
    step = step_between(history.at, now)
    if step:
        _move(timeline, step)
    at = max(now.unix, timeline.last)
    if at - timeline.last > history.longest_seconds:
        hide_peers(timeline, timeline.last + history.longest_seconds, GAP_NODE)
    timeline.last = at
    return at


def _move(timeline: Timeline, seconds: int) -> None:
    for lane in _lanes(timeline):
        lane.starts = [start + seconds for start in lane.starts]
    timeline.counters = [(point[0] + seconds, *point[1:]) for point in timeline.counters]
    timeline.last = (timeline.last or 0) + seconds


def _count(history: History, run: Run, at: int) -> None:
    """Add the growth of the counters since the run before, if the state was kept."""
    before = history.state or run.state
    points = history.timeline.counters
    _, restarts, detections, recoveries, cooldowns = points[-1] if points else (at, 0, 0, 0, 0)
    reasons = history.reasons.values()
    totals = (
        restarts + max(0, run.state.restarts - before.restarts),
        detections + max(0, run.state.detections - before.detections),
        recoveries + max(0, run.state.recoveries - before.recoveries),
        cooldowns + sum(reason is Reason.COOLDOWN for reason in reasons),
    )
    record_counters(history.timeline, at, totals)


def _path(timeline: Timeline, name: str) -> str | None:
    lane = timeline.peers.get(name)
    return None if lane is None else lane.values[-1][0]


def _lanes(timeline: Timeline) -> tuple[Lane, ...]:
    return (timeline.node, *timeline.peers.values())


def _forget_old(timeline: Timeline, since: int) -> None:
    """Forget what ended before `since`. What began earlier begins then."""
    for lane in _lanes(timeline):
        _cut(lane, since)
    for name in [name for name, lane in timeline.peers.items() if lane.values == [UNSEEN_PEER]]:
        del timeline.peers[name]
    # One older point stays: the growth since then is what counts.
    points = timeline.counters
    del points[: max(0, bisect_right(points, since, key=lambda point: point[0]) - 1)]
    if len(timeline.texts) > 1:
        used = {value[1] for value in timeline.node.values}
        timeline.texts = [text for text in timeline.texts if not text or text in used]


def _cut(lane: Lane, since: int) -> None:
    if not lane.starts or lane.starts[0] >= since:
        return
    first = bisect_right(lane.starts, since) - 1
    del lane.starts[:first], lane.values[:first]
    lane.starts[0] = since


def _forget_gone(timeline: Timeline) -> None:
    """Forget peers that have left the status, if there are many; first the earliest."""
    gone = [name for name, lane in timeline.peers.items() if lane.values[-1] == UNSEEN_PEER]
    if len(gone) > GONE_LIMIT:
        gone.sort(key=lambda name: timeline.peers[name].starts[-1])
        for name in gone[:-GONE_LIMIT]:
            del timeline.peers[name]


def _thin_out(timeline: Timeline, now: int) -> None:
    """Merge short segments of each lane that has too many."""
    timeline.node = _thinned(timeline.node, now, worse_of_node(timeline))
    for name, lane in timeline.peers.items():
        timeline.peers[name] = _thinned(lane, now, worse)


def _thinned(lane: Lane, now: int, worse: Worse) -> Lane:
    """Return a lane of at most `SEGMENTS_LIMIT` segments. Its last one stays."""
    if len(lane.starts) <= SEGMENTS_LIMIT:
        return lane
    last = lane.starts[-1]
    earlier = Lane(lane.starts[:-1], lane.values[:-1])
    share, thinned = FINEST_SHARE, earlier
    # Half of the limit, so that there is room until the next time.
    while len(thinned.starts) > SEGMENTS_LIMIT // 2:
        thinned = merged(earlier, last, worse, _by_age(now, share))
        share //= 2
    append(thinned, last, lane.values[-1], worse, 0)
    return thinned


def _by_age(now: int, share: int) -> Callable[[int], int]:
    """Return the shortest length in seconds of a segment that begins at a time."""
    return lambda start: (now - start) // share
