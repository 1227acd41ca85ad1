"""What the LocalAPI's `whois` says about this node's own network.

`GET /localapi/v0/whois?addr=IP:1` for an own Tailscale IP returns the node with the
network report that the control server has of it (`tailcfg.NetInfo`, v1.78.3 and
v1.102.3). It needs no root. It is stale while the control server cannot be reached, and
a server need not send it, so it is evidence but never a condition.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct, field
from returns.result import Failure, Result, Success

from tsfc.core.text import one_line


class NetInfo(Struct, frozen=True, kw_only=True):
    """The result of tailscaled's last netcheck."""

    working_udp: bool | None = field(default=None, name="WorkingUDP")
    "Whether UDP works; None if unknown."
    mapping_varies_by_dest_ip: bool | None = field(default=None, name="MappingVariesByDestIP")
    "Whether the NAT has a mapping for each destination; None if unknown."


NO_NET_INFO = NetInfo()
"Nothing is known."


class _Hostinfo(Struct, frozen=True):
    net_info: NetInfo | None = field(default=None, name="NetInfo")


class _Node(Struct, frozen=True):
    hostinfo: _Hostinfo | None = field(default=None, name="Hostinfo")


class _WhoIs(Struct, frozen=True):
    node: _Node | None = field(default=None, name="Node")


_DECODER = msgspec.json.Decoder(_WhoIs)


def decode(raw: bytes) -> Result[NetInfo, str]:
    """Read the response. `NO_NET_INFO` if it has no report."""
    try:
        node = _DECODER.decode(raw).node
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"reading the response of whois: {one_line(str(error), 80)}")
    if node is None or node.hostinfo is None or node.hostinfo.net_info is None:
        return Success(NO_NET_INFO)
    return Success(node.hostinfo.net_info)
