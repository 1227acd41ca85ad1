"""What became of an attempt: an experiment with an outcome.

Each peer that was on relay when a remedy was applied is a trial of it: the peer became
direct in time, or stayed on relay, or could not be observed. The attempt's own result
is that of the peer that caused it.

A late look tells only that a peer stayed on relay: a peer that is direct then may owe
that to something else. Runs can be further apart than an experiment is long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy
from tsfc.core.watchdog.sight import Sight

LATE_SECONDS = 300
"A look later than this after `judge_at` is late, in seconds."


class Trial(Struct, frozen=True):
    """The outcome of a remedy for one peer."""

    peer: str
    "StableNodeID, or the name where that is unknown."
    remedy: Remedy
    has_helped: bool


class Judgement(Struct, frozen=True):
    """The attempts after a look at the peers, and what is new."""

    attempts: tuple[Attempt, ...]
    results: tuple[Attempt, ...] = ()
    "The attempts whose result this look determined."
    trials: tuple[Trial, ...] = ()


def cause_key(attempt: Attempt) -> str:
    """The peer that caused an attempt, as a key of `Trial.peer`."""
    return attempt.peer_id or attempt.peer


class Seen(Struct, frozen=True):
    """What a look at the peers told, each by its StableNodeID and by its name."""

    at: int
    sights: Mapping[str, Sight] = {}
    relay_since: Mapping[str, int] = {}
    "When the relay of each peer on relay began; it was watched without a break since."
    direct_peers: int = 0
    "Number of peers that are direct."

    def sight(self, peer: str, attempt: Attempt) -> Sight:
        """What the look tells about the effect of an attempt on a peer."""
        sight = self.sights.get(peer, Sight.UNKNOWN)
        if self.at <= attempt.judge_at + LATE_SECONDS:
            return sight
        has_stayed = sight is Sight.RELAY and self.relay_since[peer] <= attempt.at
        return Sight.RELAY if has_stayed else Sight.UNKNOWN


def judge(attempts: tuple[Attempt, ...], seen: Seen) -> Judgement:
    """Judge each attempt whose outcome is open.

    A peer that is direct was helped. One that is on relay at `judge_at` was not.
    """
    judged: list[Attempt] = []
    results: list[Attempt] = []
    trials: list[Trial] = []
    for attempt in attempts:
        if not is_open(attempt):
            judged.append(attempt)
            continue
        after, of_attempt = _judge(attempt, seen)
        judged.append(after)
        trials += of_attempt
        if after.result is not attempt.result:
            results.append(after)
    return Judgement(tuple(judged), tuple(results), tuple(trials))


def is_open(attempt: Attempt) -> bool:
    """Whether the outcome of an attempt is still to come for some peer."""
    return attempt.result is AttemptResult.PENDING or bool(attempt.subjects)


def peers_of(attempts: Iterable[Attempt]) -> frozenset[str]:
    """The peers that caused an open attempt, and its subjects.

    No others are judged. Empty if no attempt is open.
    """
    return frozenset(
        peer
        for attempt in attempts
        if is_open(attempt)
        for peer in (cause_key(attempt), *attempt.subjects)
    )


def _judge(attempt: Attempt, seen: Seen) -> tuple[Attempt, list[Trial]]:
    """An open attempt after a look, and the outcomes for its subjects."""
    is_over = seen.at >= attempt.judge_at
    sights = {peer: seen.sight(peer, attempt) for peer in attempt.subjects}
    direct = sorted(peer for peer, sight in sights.items() if sight is Sight.DIRECT)
    trials = [Trial(peer, attempt.remedy, has_helped=True) for peer in direct]
    if is_over:
        trials += [
            Trial(peer, attempt.remedy, has_helped=False)
            for peer, sight in sights.items()
            if sight is Sight.RELAY
        ]
    subjects = () if is_over else tuple(peer for peer in attempt.subjects if peer not in direct)
    result = attempt.result
    if result is AttemptResult.PENDING:
        result = _result(attempt, seen, is_over=is_over)
    if result is attempt.result and subjects == attempt.subjects:
        return attempt, trials
    return replace(attempt, result=result, subjects=subjects), trials


def _result(attempt: Attempt, seen: Seen, *, is_over: bool) -> AttemptResult:
    sight = seen.sight(cause_key(attempt), attempt)
    if sight is Sight.DIRECT:
        return AttemptResult.HELPED
    if not is_over:
        return AttemptResult.PENDING
    if sight is Sight.UNKNOWN:
        return AttemptResult.UNCONFIRMED
    is_worse = seen.direct_peers < attempt.direct_peers
    return AttemptResult.WORSE if is_worse else AttemptResult.NO_EFFECT
