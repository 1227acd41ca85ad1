"""A peer and the path to it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from tsfc.core.tailscale.status import PeerStatus
from tsfc.core.watchdog.state import State
from tsfc.offline.simulation.agenda import NEVER
from tsfc.offline.simulation.faults import Fault, StuckFault
from tsfc.offline.simulation.scenario import Nat, Peer

ACTIVE_SECONDS = 45.0
"Time after the last packet to a peer while it is `Active` (`sessionActiveTimeout`)."
KNOWN_SECONDS = 0.1
"From the first ping to direct, without a NAT or with its mapping intact: measured."
REKEY_SECONDS = 120
"Time from one handshake to the next (`RekeyAfterTime` of WireGuard)."
_EASY = frozenset({Nat.EASY, Nat.CGNAT})


class Link(Struct):
    """State of a peer and of the path to it. Times are seconds of the simulation.

    The path is direct from `direct_from` to `direct_until`, while the peer is active.
    So a link changes when an event changes it, not with the passing of time.
    """

    peer: Peer
    name: str
    number: int
    "Position in the scenario; the addresses follow from it."
    key: str
    ip: str
    fields: dict[str, Any]
    "Its fields in the status. Each status replaces those that change."
    seen: tuple[object, ...] = ()
    "All that `status` depends on, at the last look."
    status: PeerStatus = PeerStatus()
    "The peer in the last status that was asked for without its JSON."
    address_number: int = 0
    "Number of changes of its public address."
    is_online: bool = True
    is_online_in_map: bool = True
    "The coordination server's last word on `is_online`."
    last_seen: float = 0.0
    "When it went offline."
    last_sent: float = -NEVER
    "Last packet to it, without rounds of keepalive while it is warm."
    is_warm: bool = False
    "Rounds of keepalive keep it active."
    busy_since: float | None = None
    "Beginning of traffic that was not counted yet; None without traffic."
    direct_from: float = NEVER
    direct_until: float = NEVER
    linger: float = 0.0
    "Seconds that a direct address stays in the status after the peer became idle."
    mapping_until: float = -NEVER
    "When the NATs forget the flow, if nothing more is sent."
    obstacles: int = 0
    "Number of events that now block UDP to it."
    faults: list[Fault] = []
    dead_data: int = 0
    "Number of events that now drop WireGuard's packets."
    rx: int = 0
    tx: int = 0
    last_handshake: float = -NEVER
    far_state: State = State()
    "State of the watchdog at the other end."


def ip_of(number: int) -> str:
    """Return the Tailscale IP of a peer."""
    return f"100.{64 + number // 62500}.{number // 250 % 250}.{number % 250 + 2}"


def endpoint(link: Link) -> str:
    """Return the public address and port of a peer."""
    return f"203.0.113.{link.number % 250 + 1}:{41641 + link.address_number}"


def hole_punch_seconds(ours: Nat, theirs: Nat) -> float | None:
    """Return the seconds from the first ping of a burst of three to a direct path.

    None if hole punching fails. Medians of measurements.
    """
    if Nat.NOUDP in {ours, theirs}:
        return None
    if theirs is Nat.PUBLIC:
        return KNOWN_SECONDS
    if ours is Nat.PUBLIC:
        return 6.1 if theirs is Nat.HARD else 9.1
    return 9.0 if ours in _EASY and theirs in _EASY else None


def is_active(sent: float, now: float) -> bool:
    """Whether a peer with a packet last sent at `sent` is `Active`."""
    return now - sent < ACTIVE_SECONDS


def is_path_valid(link: Link, now: float) -> bool:
    """Whether a direct path was found and is not lost, active or not."""
    return link.direct_from <= now < link.direct_until


def is_direct(link: Link, sent: float, now: float) -> bool:
    """Whether the status shows a direct address."""
    return link.direct_from <= now < link.direct_until and now < sent + ACTIVE_SECONDS + link.linger


def can_be_direct(link: Link, ours: Nat) -> bool:
    """Whether nothing prevents a direct path, once it is found."""
    return (
        link.is_online
        and not link.obstacles
        and all(fault.is_cured for fault in link.faults)
        and hole_punch_seconds(ours, link.peer.nat) is not None
    )


def forget_path(link: Link) -> None:
    """Remove the direct path, and one that is being found."""
    link.direct_from = link.direct_until = NEVER


def is_answering(link: Link) -> bool:
    """Whether data that is sent to the peer is answered."""
    return link.is_online and not link.dead_data


def count_traffic(link: Link, now: float) -> None:
    """Count the bytes and handshakes of the traffic until now.

    Call it before a change of what it depends on. tailscaled sends no data to a peer
    that is offline.
    """
    traffic = link.peer.traffic
    if link.busy_since is None or traffic is None:
        return
    seconds = now - link.busy_since
    link.busy_since = now
    if link.is_online:
        link.tx += int(seconds * traffic.sent)
    if not is_answering(link):
        return
    link.rx += int(seconds * traffic.received)
    if now - link.last_handshake > REKEY_SECONDS:
        link.last_handshake = now - now % REKEY_SECONDS


def cure_far_faults(link: Link) -> None:
    """Restart the peer's tailscaled: that cures some faults at its end."""
    for fault in link.faults:
        if (
            isinstance(fault, StuckFault)
            and fault.event.side == "far"
            and fault.event.restart != "nothing"
        ):
            fault.is_cured = True
