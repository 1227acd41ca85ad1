"""How packets travel to a peer: one function, one table.

Source: `printPS` in `cmd/tailscale/cli/status.go` and `populatePeerStatus` in `wgengine/magicsock/endpoint.go` of
Tailscale v1.102.3.

    | online | active | CurAddr | PeerRelay | Relay | path       |
    |--------|--------|---------|-----------|-------|------------|
    | no     |        |         |           |       | offline    |
    | yes    | no     |         |           |       | idle       |
    | yes    | yes    | set     |           |       | direct     |
    | yes    | yes    | empty   | set       |       | peer_relay |
    | yes    | yes    | empty   | empty     | set   | derp       |
    | yes    | yes    | empty   | empty     | empty | idle       |

`Relay` names the peer's home, not what is in use, so it decides last. In the last row there is nothing that a packet
could take (a peer without a home region), and `tailscale status` names no path either.
"""

from __future__ import annotations

from enum import StrEnum

from tsfc.core.tailscale.status import PeerStatus


class Path(StrEnum):
    """Where packets to a peer go now; the value of the label `path`."""

    DIRECT = "direct"
    PEER_RELAY = "peer_relay"
    DERP = "derp"
    IDLE = "idle"
    "Nothing was sent to it for 45 s, so there is no path to speak of; not a fault, and not a relay."
    OFFLINE = "offline"


def classify(peer: PeerStatus) -> Path:
    """Returns the peer's path by the table above."""
    if not peer.online:
        return Path.OFFLINE
    if not peer.active:
        return Path.IDLE
    if peer.cur_addr:
        return Path.DIRECT
    if peer.peer_relay:
        return Path.PEER_RELAY
    if peer.relay:
        return Path.DERP
    return Path.IDLE


def has_direct_address(peer: PeerStatus) -> bool:
    """Reports whether the peer has a direct address: the documented meaning of `tailscale_peer_direct` and of the watchdog's "direct".

    It is coarser than `classify`: an idle peer has none.
    """
    return peer.cur_addr != ""
