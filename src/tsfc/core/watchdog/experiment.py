"""What became of an attempt: an experiment with an outcome.

Each peer that was on relay when a remedy was applied is a trial of it: the peer became
direct in time, or stayed on relay, or could not be observed. The attempt's own result
is that of the peer that caused it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy
from tsfc.core.watchdog.sight import Sight

LATE_SECONDS = 300
"A result that cannot be observed within this time after `judge_at` stays unknown."


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


def cause(attempt: Attempt) -> str:
    """The peer that caused an attempt, as a key of `Trial.peer`."""
    return attempt.peer_id or attempt.peer


def judge(
    attempts: tuple[Attempt, ...], sights: Mapping[str, Sight], direct_peers: int, now: Instant
) -> Judgement:
    """Judge each attempt whose outcome is open.

    A peer that is direct was helped. One that is on relay at `judge_at` was not.
    `sights` has the peers that were looked at, by StableNodeID and by name;
    `direct_peers` is the number of those that are direct.
    """
    judged: list[Attempt] = []
    results: list[Attempt] = []
    trials: list[Trial] = []
    for attempt in attempts:
        after, of_attempt = _judge(attempt, sights, direct_peers, now)
        judged.append(after)
        trials += of_attempt
        if after.result is not attempt.result:
            results.append(after)
    return Judgement(tuple(judged), tuple(results), tuple(trials))


def is_open(attempt: Attempt) -> bool:
    """Whether the outcome of an attempt is still to come for some peer."""
    return attempt.result is AttemptResult.PENDING or bool(attempt.subjects)


def _judge(
    attempt: Attempt, sights: Mapping[str, Sight], direct_peers: int, now: Instant
) -> tuple[Attempt, list[Trial]]:
    if not is_open(attempt):
        return attempt, []
    is_late = now.unix > attempt.judge_at + LATE_SECONDS
    is_over = now.unix >= attempt.judge_at
    direct = {peer for peer in attempt.subjects if sights.get(peer) is Sight.DIRECT}
    trials = [Trial(peer, attempt.remedy, has_helped=True) for peer in sorted(direct)]
    if is_late:
        trials = []
    elif is_over:
        trials += [
            Trial(peer, attempt.remedy, has_helped=False)
            for peer in attempt.subjects
            if sights.get(peer) is Sight.RELAY
        ]
    subjects = () if is_over else tuple(peer for peer in attempt.subjects if peer not in direct)
    result = attempt.result
    if result is AttemptResult.PENDING:
        result = _result(attempt, sights, direct_peers, is_over=is_over, is_late=is_late)
    if result is attempt.result and subjects == attempt.subjects:
        return attempt, trials
    return replace(attempt, result=result, subjects=subjects), trials


def _result(
    attempt: Attempt,
    sights: Mapping[str, Sight],
    direct_peers: int,
    *,
    is_over: bool,
    is_late: bool,
) -> AttemptResult:
    seen = sights.get(cause(attempt), Sight.UNKNOWN)
    if is_late:
        return AttemptResult.UNCONFIRMED
    if seen is Sight.DIRECT:
        return AttemptResult.HELPED
    if not is_over:
        return AttemptResult.PENDING
    if seen is Sight.UNKNOWN:
        return AttemptResult.UNCONFIRMED
    return AttemptResult.WORSE if direct_peers < attempt.direct_peers else AttemptResult.NO_EFFECT
