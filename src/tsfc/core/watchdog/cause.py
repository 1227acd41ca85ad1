"""Why peers are on relay, as far as this node can tell without root.

Each sign was measured on v1.78.3 and v1.102.3 with one fault at a time. A fault at the
other side and a stuck NAT entry at this one look the same from a node with one peer.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from ipaddress import ip_address, ip_network

from tsfc.core.tailscale.status import Status
from tsfc.core.tailscale.whois import NO_NET_INFO, NetInfo

RELAY_SERVER = "relay server"
"Part of each health message about DERP (`health/warnings.go` of v1.78.3 and v1.102.3)."

_PRIVATE = tuple(
    ip_network(network)
    for network in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)
"Networks whose addresses no STUN server reports (RFC 1918, 3927, 4193, 4291, 6598)."


class Cause(StrEnum):
    """The likely cause of a relay; the value of the label `cause`."""

    CONTROL_OUTAGE = "control_outage"
    "This node cannot reach the control server, so it learns no new addresses of peers."
    RELAY_OUTAGE = "relay_outage"
    "This node cannot reach a DERP server, without which no new path is found."
    UDP_BLOCKED = "udp_blocked"
    "UDP from this node's port does not reach the Internet."
    HARD_NAT = "hard_nat"
    "This node is behind a NAT with a mapping for each destination."
    FAR_SIDE = "far_side"
    "Other peers are direct, so it is the peer's side or the way to it."
    UNKNOWN = "unknown"


def node_cause(
    status: Status, *, direct: int, relayed: int, net: NetInfo = NO_NET_INFO
) -> Cause | None:
    """What this node itself shows; None if it looks well.

    `direct` and `relayed` are the numbers of peers that are direct and on relay.
    """
    if status.self_.online is False:
        return Cause.CONTROL_OUTAGE
    if has_relay_outage(status):
        return Cause.RELAY_OUTAGE
    public = _public_endpoints(status)
    has_no_public = bool(status.self_.addrs) and not public
    if net.working_udp is False or (has_no_public and relayed and not direct):
        return Cause.UDP_BLOCKED
    ports = Counter(address for address, _ in public)
    if net.mapping_varies_by_dest_ip or any(number > 1 for number in ports.values()):
        return Cause.HARD_NAT
    return None


def peer_cause(node: Cause | None, *, direct: int) -> Cause:
    """The likely cause for one peer on relay."""
    if node is not None:
        return node
    return Cause.FAR_SIDE if direct else Cause.UNKNOWN


def has_relay_outage(status: Status) -> bool:
    """Whether tailscaled reports that it cannot reach a DERP server."""
    return any(RELAY_SERVER in message.casefold() for message in status.health or ())


def _public_endpoints(status: Status) -> set[tuple[str, int]]:
    """The node's public IPv4 and IPv6 addresses with their ports."""
    endpoints: set[tuple[str, int]] = set()
    for text in status.self_.addrs or ():
        host, _, port = text.rpartition(":")
        try:
            address = ip_address(host.strip("[]"))
        except ValueError:
            continue
        if port.isdecimal() and not any(address in network for network in _PRIVATE):
            endpoints.add((str(address), int(port)))
    return endpoints
