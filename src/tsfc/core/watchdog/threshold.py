"""The decision under `ThresholdPolicy`.

The peer that is on relay for longer than the threshold causes a restart, and the
cooldown follows. Of several such peers the one that is on relay the longest is the
cause (ties: the first by name); the others wait for the whole cooldown, which that
restart begins.
"""

from __future__ import annotations

from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.watchdog.decision import Decision, Due
from tsfc.core.watchdog.lines import line
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.remedy import Attempt, Remedy
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.track import DIRECT, Reason, Verdict
from tsfc.core.watchdog.watch import Hold


def decide(
    verdicts: list[Verdict],
    state: State,
    cooldown: int,
    hold: Hold | None,
    *,
    now: Instant,
    policy: ThresholdPolicy,
) -> Decision:
    """Decide about each peer that `track` left WAITING, in the state that it left.

    `cooldown` is the number of seconds for which the cooldown still holds. With a
    `hold`, nothing is restarted.
    """
    if not state.relays:
        return Decision(tuple(verdicts), _lines(verdicts, cooldown, hold, policy), hold=hold)
    decided = [
        replace(verdict, reason=_overdue(verdict, cooldown, hold))
        if verdict.reason is Reason.WAITING and verdict.relay_seconds > policy.max_relay_seconds
        else verdict
        for verdict in verdicts
    ]
    cause = max(
        (verdict for verdict in decided if verdict.reason is Reason.RESTART),
        key=lambda verdict: verdict.relay_seconds,
        default=None,
    )
    if cause is None:
        due = None if hold is not None else _due(decided, cooldown, now, policy)
        lines = _lines(decided, cooldown, hold, policy)
        return Decision(tuple(decided), lines, due=due, hold=hold)

    # All other peers over the threshold wait for the cooldown that begins now.
    decided = [
        replace(verdict, reason=Reason.COOLDOWN)
        if verdict.reason is Reason.RESTART and verdict is not cause
        else verdict
        for verdict in decided
    ]
    return Decision(
        tuple(decided),
        _lines(decided, policy.cooldown_seconds, hold, policy),
        Attempt(
            Remedy.RESTART,
            cause.peer,
            now.unix,
            now.unix + policy.cooldown_seconds,
            peer_id=state.relays[cause.peer].id,
        ),
        Due(now.unix, Remedy.RESTART, cause.peer),
    )


def _lines(
    verdicts: list[Verdict], cooldown_seconds: int, hold: Hold | None, policy: ThresholdPolicy
) -> tuple[str, ...]:
    return tuple(
        [
            text
            for verdict in verdicts
            if verdict.reason is not Reason.DIRECT  # nearly all of them, so not worth a call
            and (
                text := line(
                    verdict,
                    cooldown_seconds=cooldown_seconds,
                    hold=hold,
                    threshold_seconds=policy.max_relay_seconds,
                )
            )
            is not None
        ]
    )


def _overdue(verdict: Verdict, cooldown: int, hold: Hold | None) -> Reason:
    """The reason of a peer that is on relay for longer than the threshold."""
    if verdict.is_excluded:
        return Reason.EXCLUDED
    if cooldown > 0:
        return Reason.COOLDOWN
    return Reason.HELD if hold is not None else Reason.RESTART


def _due(
    verdicts: list[Verdict], cooldown: int, now: Instant, policy: ThresholdPolicy
) -> Due | None:
    candidates = [
        (-verdict.relay_seconds, verdict.peer)
        for verdict in verdicts
        if verdict.reason not in DIRECT and not verdict.is_excluded
    ]
    if not candidates:
        return None
    longest, peer = min(candidates)
    at = max(longest + policy.max_relay_seconds + 1, cooldown)
    return Due(now.unix + at, Remedy.RESTART, peer)
