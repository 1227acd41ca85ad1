"""Statistics of many runs of the watchdog.

An episode of a peer lasts from the run that detected a relay to the run that saw its
end (direct again, offline, gone), or to the last run. The watchdog counts in the same
way: an episode includes runs that could not observe peers, but no time in which relay
was not watched (`watch.break_before`). It ends before such a break.
"""

from __future__ import annotations

from collections import deque
from statistics import median

from msgspec import Struct, field

from tsfc.core.clock import step_between
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.state import Relay, State
from tsfc.core.watchdog.track import DIRECT, Reason
from tsfc.core.watchdog.watch import BLIND_SECONDS

GAP_FACTOR = 3
"An interval longer than this many usual intervals is a gap."
_USUAL_OF = 9
"The usual interval is the median of this many preceding intervals."


class PeerStatistics(Struct):
    """Statistics of one peer."""

    relay_seconds: int = 0
    episodes: int = 0
    longest_seconds: int = 0
    "Seconds of the longest episode."
    restarts_caused: int = 0


class Statistics(Struct):
    """Statistics of all runs so far. Updated in place, as there can be millions."""

    observations: int = 0
    faults: int = 0
    "Runs without verdicts: no usable status, or a state other than `Running`."
    gaps: int = 0
    cooldowns: int = 0
    "COOLDOWN lines: one per peer and run."
    direct_seconds: int = 0
    "Peer-seconds from each run that saw a peer direct to the next run."
    peers: dict[str, PeerStatistics] = field(default_factory=dict[str, PeerStatistics])
    "By name, without episodes in progress: see `peers_at_end`."
    first: int | None = None
    "Unix time of the first run."
    last: int | None = None
    "Unix time of the last run."
    first_restart: int | None = None
    "Unix time of the first restart."
    state: State = State()
    "The watchdog's state after the last run."
    intervals: deque[int] = field(default_factory=lambda: deque(maxlen=_USUAL_OF))
    "Seconds between the latest runs."
    direct_peers: int = 0
    "Number of direct peers in the last run."
    is_gap: bool = False
    "True if there was a gap before the last run."


def update(statistics: Statistics, run: Run) -> None:
    """Count one run."""
    # Steps of the wall clock are no time that passed.
    before = statistics.state
    elapsed = 0
    if before.last_run is not None:
        elapsed = run.now.unix - before.last_run.unix - step_between(before.last_run, run.now)

    # Observations, gaps and the time since the run before.
    statistics.observations += 1
    statistics.first = run.now.unix if statistics.first is None else statistics.first
    statistics.is_gap = _is_gap(statistics.intervals, elapsed)
    statistics.gaps += statistics.is_gap
    if elapsed > 0:
        statistics.intervals.append(elapsed)
        if not run.is_after_break:
            statistics.direct_seconds += elapsed * statistics.direct_peers

    # What the watchdog decided.
    if run.verdicts is None:
        statistics.faults += 1
        statistics.direct_peers = 0
    else:
        _count_verdicts(statistics, run, before, max(0, elapsed))
    if run.attempt is not None:
        statistics.peers[run.attempt.peer].restarts_caused += 1
        if statistics.first_restart is None:
            statistics.first_restart = run.now.unix
    statistics.last = run.now.unix
    statistics.state = run.state


def peers_at_end(statistics: Statistics) -> dict[str, PeerStatistics]:
    """Return the statistics of each peer, sorted by name.

    Episodes in progress are included up to the last run.
    """
    peers = {
        name: PeerStatistics(
            peer.relay_seconds, peer.episodes, peer.longest_seconds, peer.restarts_caused
        )
        for name, peer in sorted(statistics.peers.items())
    }
    state = statistics.state
    seen = state.last_success.unix if state.last_success is not None else 0
    last = statistics.last or 0
    if state.blind_since is not None and last - state.blind_since > BLIND_SECONDS:
        last = seen
    for name, relay in state.relays.items():
        _end_episode(peers.setdefault(name, PeerStatistics()), last - relay.since)
    return peers


def _count_verdicts(statistics: Statistics, run: Run, before: State, elapsed: int) -> None:
    # Episodes that ended in this run, or before a break. A new name ends none.
    if before.relays and (run.is_after_break or before.relays.keys() != run.state.relays.keys()):
        end = (statistics.last or 0) + elapsed
        if run.is_after_break and before.last_success is not None:
            end = before.last_success.unix
        goes_on = set(map(_identity, run.state.relays.items()))
        for item in before.relays.items():
            if run.is_after_break or _identity(item) not in goes_on:
                name, relay = item
                _end_episode(statistics.peers.setdefault(name, PeerStatistics()), end - relay.since)

    direct = 0
    peers = statistics.peers
    for verdict in run.verdicts or ():
        reason = verdict.reason
        if verdict.peer not in peers:
            peers[verdict.peer] = PeerStatistics()
        if reason in DIRECT:
            direct += 1
        elif reason is Reason.DETECTED:
            peers[verdict.peer].episodes += 1
        elif reason is Reason.COOLDOWN:
            statistics.cooldowns += 1
    statistics.direct_peers = direct


def _identity(item: tuple[str, Relay]) -> str:
    name, relay = item
    return relay.id or name


def _end_episode(peer: PeerStatistics, seconds: int) -> None:
    peer.relay_seconds += seconds
    peer.longest_seconds = max(peer.longest_seconds, seconds)


def _is_gap(intervals: deque[int], elapsed: int) -> bool:
    return len(intervals) > 1 and elapsed > GAP_FACTOR * median(intervals)
