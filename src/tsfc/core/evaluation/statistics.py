"""What is counted over many runs of the watchdog.

A peer's episode on relay lasts from the run that detected it to the first that saw its end (direct again, offline, gone), or
to the last run of all. That is how the watchdog itself counts, so runs that could see nothing are part of an episode.
"""

from __future__ import annotations

from collections import deque
from statistics import median

from msgspec import Struct, field

from tsfc.core.clock import step_between
from tsfc.core.evaluation.run import Run
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import DIRECT, Reason

GAP_FACTOR = 3
"A gap is an interval between observations that is more than so many times the usual one."
_USUAL_OF = 9
"The usual interval is the median of so many before."


class PeerTally(Struct):
    """What is counted of one peer."""

    relay_seconds: int = 0
    episodes: int = 0
    longest_seconds: int = 0
    restarts_caused: int = 0


class Tally(Struct):
    """What is counted; it is counted up in place, for there may be millions of runs."""

    observations: int = 0
    faults: int = 0
    "Observations in which no peer could be judged: nobody answered, the answer was unusable, or tailscaled was not `Running`."
    gaps: int = 0
    cooldowns: int = 0
    "COOLDOWN lines: a peer, a run."
    direct_seconds: int = 0
    "Peer-seconds: from each run that saw a peer direct to the next run."
    peers: dict[str, PeerTally] = field(default_factory=dict[str, PeerTally])
    first: int | None = None
    last: int | None = None
    "Unix time of the first and of the last run."
    first_restart: int | None = None
    state: State = State()
    "After the last run."
    intervals: deque[int] = field(default_factory=lambda: deque(maxlen=_USUAL_OF))
    direct_peers: int = 0
    "In the last run."
    is_gap: bool = False
    "There was a gap before the last run."


def count(tally: Tally, run: Run) -> None:
    """Counts one run."""
    before = tally.state
    elapsed = 0
    if before.last_run is not None:
        elapsed = run.now.unix - before.last_run.unix - step_between(before.last_run, run.now)
    tally.observations += 1
    tally.first = run.now.unix if tally.first is None else tally.first
    tally.is_gap = _is_gap(tally.intervals, elapsed)
    tally.gaps += tally.is_gap
    if elapsed > 0:
        tally.intervals.append(elapsed)
        tally.direct_seconds += elapsed * tally.direct_peers
    if run.verdicts is None:
        tally.faults += 1
        tally.direct_peers = 0
    else:
        _count_verdicts(tally, run, before, max(0, elapsed))
    if run.restart is not None:
        tally.peers[run.restart.peer].restarts_caused += 1
        tally.first_restart = run.now.unix if tally.first_restart is None else tally.first_restart
    tally.last = run.now.unix
    tally.state = run.state


def peers_at_end(tally: Tally) -> dict[str, PeerTally]:
    """Returns what was counted by peer, in the order of the names, the episodes that still last counted to the last run."""
    counted = {
        name: PeerTally(
            peer.relay_seconds, peer.episodes, peer.longest_seconds, peer.restarts_caused
        )
        for name, peer in sorted(tally.peers.items())
    }
    for name, since in tally.state.relay_since.items():
        _end(counted.setdefault(name, PeerTally()), (tally.last or 0) - since)
    return counted


def _count_verdicts(tally: Tally, run: Run, before: State, elapsed: int) -> None:
    verdicts = run.verdicts or ()
    for name in before.relay_since.keys() - run.state.relay_since.keys():
        _end(tally.peers[name], (tally.last or 0) - before.relay_since[name] + elapsed)
    direct = 0
    peers = tally.peers
    for verdict in verdicts:
        reason = verdict.reason
        if verdict.peer not in peers:
            peers[verdict.peer] = PeerTally()
        if reason in DIRECT:
            direct += 1
        elif reason is Reason.DETECTED:
            peers[verdict.peer].episodes += 1
        elif reason is Reason.COOLDOWN:
            tally.cooldowns += 1
    tally.direct_peers = direct


def _end(peer: PeerTally, seconds: int) -> None:
    peer.relay_seconds += seconds
    peer.longest_seconds = max(peer.longest_seconds, seconds)


def _is_gap(intervals: deque[int], elapsed: int) -> bool:
    return len(intervals) > 1 and elapsed > GAP_FACTOR * median(intervals)
