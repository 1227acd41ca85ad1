"""The path of a peer: how packets travel to it now.

Source: `printPS` in `cmd/tailscale/cli/status.go` and `populatePeerStatus` in
`wgengine/magicsock/endpoint.go` of Tailscale v1.102.3.

    | online | active | CurAddr | PeerRelay | Relay | path       |
    |--------|--------|---------|-----------|-------|------------|
    | no     |        |         |           |       | offline    |
    | yes    | no     |         |           |       | idle       |
    | yes    | yes    | set     |           |       | direct     |
    | yes    | yes    | empty   | set       |       | peer_relay |
    | yes    | yes    | empty   | empty     | set   | derp       |
    | yes    | yes    | empty   | empty     | empty | none       |

`Relay` is the home DERP region of the peer, not the relay in use, so it decides last.
The peer of the last row has no home region: no path leads to it, and `tailscale status`
prints none either.

The control server decides whether a peer is online, but packets may travel to an
offline peer, too: `active_path` tells how.
"""

from __future__ import annotations

from enum import StrEnum

from tsfc.core.tailscale.status import PeerStatus


class Path(StrEnum):
    """Path of packets to a peer; the value of the label `path`."""

    DIRECT = "direct"
    PEER_RELAY = "peer_relay"
    DERP = "derp"
    IDLE = "idle"
    "No packet was sent for 45 s, so no path is in use. Neither a fault nor a relay."
    OFFLINE = "offline"
    NONE = "none"
    "Packets were sent in the last 45 s, but no path leads to the peer: a fault."


def classify(peer: PeerStatus) -> Path:
    """Return the path of a peer, by the table above."""
    if not peer.online:
        return Path.OFFLINE
    return active_path(peer) or Path.IDLE


def active_path(peer: PeerStatus) -> Path | None:
    """Return the path of the packets sent to a peer, whether or not it is online.

    None if no packet was sent in the last 45 s.
    """
    if not peer.active:
        return None
    if peer.cur_addr:
        return Path.DIRECT
    if peer.peer_relay:
        return Path.PEER_RELAY
    return Path.DERP if peer.relay else Path.NONE


def has_direct_address(peer: PeerStatus) -> bool:
    """Whether the peer has a direct address.

    This is what `tailscale_peer_direct` and the watchdog call direct. It is coarser
    than `classify`: an idle peer has no direct address.
    """
    return peer.cur_addr != ""
