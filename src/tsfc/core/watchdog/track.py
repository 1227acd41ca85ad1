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
from tsfc.core.tailscale.peers import Peer, Unwatched, is_watched, unwatched
from tsfc.core.watchdog.remedy import Attempt, AttemptResult
from tsfc.core.watchdog.state import Relay, State, plus_one


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
    HELD = "held"
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
    is_excluded: bool = False
    "The policy excludes the peer: it never causes a remedy."


class Look(Struct, frozen=True):
    """The peers of one status."""

    peers: tuple[Peer, ...]
    own_ips: tuple[str, ...]
    excluded: frozenset[str]
    "Names of the peers that the policy excludes."

    def is_offline(self, peer: Peer) -> bool:
        """Whether the peer would be watched if it were online."""
        return unwatched(peer.status, self.own_ips) is Unwatched.OFFLINE


def track(
    state: State, look: Look, *, now: Instant, is_cooling: bool
) -> tuple[State, list[Verdict]]:
    """The state after a look at the peers, and a verdict on each watched peer.

    The verdicts are in the order of the names. A peer that stays on relay is WAITING,
    for the policy to decide. `is_cooling` says whether the cooldown of the last attempt
    holds: until it ends, a peer that recovers is credited to that attempt.

    A peer that is not watched anymore (offline, gone, expired) is forgotten, so that it
    does not return with its old start.
    """
    cured_since = state.attempts[-1].at if is_cooling and state.attempts else None
    by_id = {relay.id: relay for relay in state.relays.values() if relay.id}
    verdicts: list[Verdict] = []
    relays: dict[str, Relay] = {}
    detections, recoveries = state.detections, state.recoveries
    for peer in look.peers:
        if not is_watched(peer.status, look.own_ips):
            continue
        name, id_, is_excluded = peer.name, peer.status.id, peer.name in look.excluded
        relay = by_id.get(id_) or _nameless(state, name, id_) if state.relays else None
        if has_direct_address(peer.status):
            if relay is None:
                reason = Reason.DIRECT
            elif cured_since is not None and relay.since <= cured_since:
                reason = Reason.RESTORED
            else:
                reason = Reason.RECOVERED
                recoveries = plus_one(recoveries)
            verdicts.append(Verdict(name, reason, 0, is_excluded))
        elif relay is None:
            detections = plus_one(detections)
            relays[name] = Relay(now.unix, id_)
            verdicts.append(Verdict(name, Reason.DETECTED, 0, is_excluded))
        else:
            relays[name] = relay if relay.id == id_ else Relay(relay.since, id_)
            seconds = now.unix - relay.since
            verdicts.append(Verdict(name, Reason.WAITING, seconds, is_excluded))
    return replace(
        state,
        relays=relays,
        attempts=_judged(state.attempts, look, verdicts, now),
        detections=detections,
        recoveries=recoveries,
    ), verdicts


def _nameless(state: State, name: str, id_: str) -> Relay | None:
    """The relay of that name, if it is of a peer whose StableNodeID is unknown."""
    relay = state.relays.get(name)
    return relay if relay is not None and not (relay.id and id_) else None


def _judged(
    attempts: tuple[Attempt, ...], look: Look, verdicts: list[Verdict], now: Instant
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
    names = {peer.status.id: peer.name for peer in look.peers}

    def judged(attempt: Attempt) -> Attempt:
        name = names.get(attempt.peer_id, "") if attempt.peer_id else attempt.peer
        return replace(attempt, result=results.get(name, AttemptResult.UNKNOWN))

    return tuple(judged(attempt) if attempt in due else attempt for attempt in attempts)
