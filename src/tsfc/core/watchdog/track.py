"""What one look at the peers changes, under every policy alike.

It detects relays and recoveries, and determines whether earlier attempts helped. What
is done about a peer that stays on relay is the policy's business.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.tailscale.peers import Peer, Unwatched, is_watched, unwatched
from tsfc.core.tailscale.status import PeerStatus
from tsfc.core.watchdog import experiment
from tsfc.core.watchdog.cause import Cause
from tsfc.core.watchdog.experiment import Judgement, Seen
from tsfc.core.watchdog.remedy import Remedy
from tsfc.core.watchdog.sight import Sight
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
    NEVER_DIRECT = "never_direct"
    "Only under `GuardedPolicy`, as are PATIENT, CONFIRMING and UNKNOWN."
    PATIENT = "patient"
    "Earlier remedies did not help, so that the next one is not worth it yet."
    COOLDOWN = "cooldown"
    HELD = "held"
    CONFIRMING = "confirming"
    "A remedy is due, if the node looks well for some more time."
    RESTART = "restart"
    RECOVERED = "recovered"
    RESTORED = "restored"
    "Direct again because of a restart; the line is that of RECOVERED."
    UNKNOWN = "unknown"
    "The look is no evidence of a path."


ONLY_GUARDED = frozenset({Reason.NEVER_DIRECT, Reason.PATIENT, Reason.CONFIRMING, Reason.UNKNOWN})
"Reasons that only `GuardedPolicy` has."

DIRECT = frozenset({Reason.DIRECT, Reason.RECOVERED, Reason.RESTORED})
"Reasons of peers that have a direct address now."


class Outlook(Struct, frozen=True):
    """What the next remedy for a peer on relay promises."""

    remedy: Remedy
    probability: float
    "Estimated probability that it helps, from its record; between 0 and 1."
    worth_at: int
    "Seconds on relay above which it is worth it."
    is_way_back: bool = False
    "It only takes tailscaled back from a port on which fewer peers are direct."


class Verdict(Struct, frozen=True):
    """The decision about one watched peer."""

    peer: str
    reason: Reason
    relay_seconds: int = 0
    "Whole seconds on relay, rounded down; 0 for a direct peer."
    is_excluded: bool = False
    "The policy excludes the peer: it never causes a remedy."
    outlook: Outlook | None = None
    "What the next remedy promises; only under `GuardedPolicy`, for an eligible peer."
    is_dead: bool = False
    "It is direct, and its data plane is dead (`dataplane`)."
    cause: Cause | None = None
    "Why it is on relay; only under `GuardedPolicy`, for a peer over the threshold."


class Look(Struct, frozen=True):
    """The peers of one status."""

    peers: tuple[Peer, ...]
    own_ips: tuple[str, ...]
    excluded: frozenset[str]
    "Names of the peers that the policy excludes."
    sight: Callable[[PeerStatus], Sight]
    "What the policy takes as evidence of a path."

    def is_offline(self, peer: Peer) -> bool:
        """Whether the peer would be watched if it were online."""
        return unwatched(peer.status, self.own_ips) is Unwatched.OFFLINE


class Tracked(Struct, frozen=True):
    """What a look at the peers changed."""

    state: State
    verdicts: list[Verdict]
    "On each watched peer, in the order of the names."
    judgement: Judgement


def track(state: State, look: Look, *, now: Instant, is_cooling: bool) -> Tracked:
    """The state after a look at the peers, and a verdict on each watched peer.

    The verdicts are in the order of the names. A peer that stays on relay is WAITING,
    for the policy to decide. `is_cooling` says whether the cooldown of the last attempt
    holds: until it ends, a peer that recovers is credited to that attempt, unless its
    command changed nothing.

    A peer that is not watched anymore (offline, gone, expired) is forgotten, so that it
    does not return with its old start. So is one without evidence of a path.
    """
    last = state.attempts[-1] if is_cooling and state.attempts else None
    cured_since = None if last is None or last.is_harmless else last.at
    by_id = {relay.id: relay for relay in state.relays.values() if relay.id}
    verdicts: list[Verdict] = []
    relays: dict[str, Relay] = {}
    detections, recoveries = state.detections, state.recoveries
    for peer in look.peers:
        if not is_watched(peer.status, look.own_ips):
            continue
        name, id_, is_excluded = peer.name, peer.status.id, peer.name in look.excluded
        relay = by_id.get(id_)
        if relay is None and name in state.relays:
            relay = _nameless(state.relays[name], id_)
        sight = look.sight(peer.status)
        if sight is Sight.DIRECT:
            if relay is None:
                reason = Reason.DIRECT
            elif cured_since is not None and relay.since <= cured_since:
                reason = Reason.RESTORED
            else:
                reason = Reason.RECOVERED
                recoveries = plus_one(recoveries)
            verdicts.append(Verdict(name, reason, 0, is_excluded))
        elif sight is Sight.UNKNOWN:
            verdicts.append(Verdict(name, Reason.UNKNOWN, 0, is_excluded))
        elif relay is None:
            detections = plus_one(detections)
            relays[name] = Relay(now.unix, id_)
            verdicts.append(Verdict(name, Reason.DETECTED, 0, is_excluded))
        else:
            relays[name] = relay if relay.id == id_ else Relay(relay.since, id_)
            seconds = now.unix - relay.since
            verdicts.append(Verdict(name, Reason.WAITING, seconds, is_excluded))
    judgement = _judged(state, look, verdicts, now)
    after = replace(
        state,
        relays=relays,
        attempts=judgement.attempts,
        detections=detections,
        recoveries=recoveries,
    )
    return Tracked(after, verdicts, judgement)


def _nameless(relay: Relay, id_: str) -> Relay | None:
    """The relay of a peer's name, if it is of a peer whose StableNodeID is unknown."""
    return relay if not (relay.id and id_) else None


def _judged(state: State, look: Look, verdicts: list[Verdict], now: Instant) -> Judgement:
    """The attempts, judged by the verdicts on the peers."""
    wanted = experiment.peers_of(state.attempts)
    if not wanted:
        return Judgement(state.attempts)
    keys = keys_by_name(look)
    sights: dict[str, Sight] = {}
    relay_since: dict[str, int] = {}
    for verdict in verdicts:
        for key in (verdict.peer, keys[verdict.peer]):
            if key in wanted:
                sights[key] = sight_of(verdict)
                relay_since[key] = now.unix - verdict.relay_seconds
    direct_peers = sum(verdict.reason in DIRECT for verdict in verdicts)
    seen = Seen(now.unix, sights, relay_since, direct_peers)
    return experiment.judge(state.attempts, seen)


def sight_of(verdict: Verdict) -> Sight:
    """What the look at a peer told that led to a verdict."""
    if verdict.reason in DIRECT:
        return Sight.DIRECT
    return Sight.UNKNOWN if verdict.reason is Reason.UNKNOWN else Sight.RELAY


def keys_by_name(look: Look) -> dict[str, str]:
    """The key of each peer in what is remembered: its StableNodeID, else its name."""
    return {peer.name: peer.status.id or peer.name for peer in look.peers}
