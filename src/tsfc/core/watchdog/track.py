"""What one look at the peers changes, under every policy alike.

It detects relays and recoveries, and determines whether earlier attempts helped. What
is done about a peer that stays on relay is the policy's business.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.tailscale.paths import has_direct_address
from tsfc.core.tailscale.peers import is_watched, named
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.remedy import Attempt, AttemptResult
from tsfc.core.watchdog.state import State


class Reason(StrEnum):
    """Why a peer is treated as it is.

    The reason is the peer's row in the table of `step`, its log line, and the label
    `reason` of a metric.
    """

    DIRECT = "direct"
    DETECTED = "detected"
    WAITING = "waiting"
    EXCLUDED = "excluded"
    COOLDOWN = "cooldown"
    RESTART = "restart"
    RECOVERED = "recovered"
    RESTORED = "restored"
    "Direct again because of a restart; the line is that of RECOVERED."


DIRECT = frozenset({Reason.DIRECT, Reason.RECOVERED, Reason.RESTORED})
"Reasons of peers that have a direct address now."


class Verdict(Struct, frozen=True):
    """The decision about one watched peer."""

    peer: str
    reason: Reason
    relay_seconds: int = 0
    "Whole seconds on relay, rounded down; 0 for a direct peer."


def track(
    state: State, status: Status, *, now: Instant, is_cooling: bool
) -> tuple[State, list[Verdict]]:
    """The state after a look at the peers, and a verdict on each watched peer.

    The verdicts are in the order of the names. A peer that stays on relay is WAITING,
    for the policy to decide. `is_cooling` says whether the cooldown of the last attempt
    holds: until it ends, a peer that recovers is credited to that attempt.

    A peer that is not watched anymore (offline, gone, expired) is forgotten, so that it
    does not return with its old start.
    """
    since = state.relay_since
    cured_since = state.attempts[-1].at if is_cooling and state.attempts else None
    verdicts: list[Verdict] = []
    relay_since: dict[str, int] = {}
    detections, recoveries = state.detections, state.recoveries
    for peer in named(status):
        if not is_watched(peer.status):
            continue
        name, began = peer.name, since.get(peer.name)
        if has_direct_address(peer.status):
            if began is None:
                reason = Reason.DIRECT
            elif cured_since is not None and began <= cured_since:
                reason = Reason.RESTORED
            else:
                reason = Reason.RECOVERED
                recoveries += 1
            verdicts.append(Verdict(name, reason))
        elif began is None:
            detections += 1
            relay_since[name] = now.unix
            verdicts.append(Verdict(name, Reason.DETECTED))
        else:
            relay_since[name] = began
            verdicts.append(Verdict(name, Reason.WAITING, now.unix - began))
    return replace(
        state,
        relay_since=relay_since,
        attempts=_judged(state.attempts, verdicts, now),
        detections=detections,
        recoveries=recoveries,
        last_success=now.unix,
    ), verdicts


def _judged(
    attempts: tuple[Attempt, ...], verdicts: list[Verdict], now: Instant
) -> tuple[Attempt, ...]:
    """The attempts, with the result of each whose time has come."""
    due = [
        attempt
        for attempt in attempts
        if attempt.result is AttemptResult.PENDING and now.unix >= attempt.judge_at
    ]
    if not due:
        return attempts
    results = {
        verdict.peer: AttemptResult.HELPED if verdict.reason in DIRECT else AttemptResult.FUTILE
        for verdict in verdicts
    }
    return tuple(
        replace(attempt, result=results.get(attempt.peer, AttemptResult.UNKNOWN))
        if attempt in due
        else attempt
        for attempt in attempts
    )
