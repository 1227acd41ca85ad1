"""The likely cause of a relay, from what a node sees without root."""

from __future__ import annotations

from typing import Any

import pytest

from support.statuses import decoded
from tsfc.core.tailscale.whois import NO_NET_INFO, NetInfo
from tsfc.core.watchdog.cause import Cause, node_cause, peer_cause

PUBLIC = "192.0.2.1:41641"
OTHER_PORT = "192.0.2.1:1024"
LOCAL = ["192.168.1.7:41641", "10.0.0.7:41641", "[fd7a::1]:41641", "nonsense", ""]
NO_RELAY = "Tailscale could not connect to the 'Frankfurt' relay server."


@pytest.mark.parametrize(
    ("own", "health", "net", "expected"),
    [
        pytest.param({"Addrs": [PUBLIC, *LOCAL]}, [], NO_NET_INFO, None, id="well"),
        pytest.param({}, [], NO_NET_INFO, None, id="no-endpoints-are-known"),
        pytest.param(
            {"Online": False, "Addrs": LOCAL},
            [NO_RELAY],
            NO_NET_INFO,
            Cause.CONTROL_OUTAGE,
            id="control",
        ),
        pytest.param({"Addrs": LOCAL}, [NO_RELAY], NO_NET_INFO, Cause.RELAY_OUTAGE, id="relay"),
        pytest.param({"Addrs": LOCAL}, [], NO_NET_INFO, Cause.UDP_BLOCKED, id="no-public-address"),
        pytest.param(
            {"Addrs": [PUBLIC]}, [], NetInfo(working_udp=False), Cause.UDP_BLOCKED, id="no-udp"
        ),
        pytest.param({"Addrs": [PUBLIC]}, [], NetInfo(working_udp=True), None, id="udp"),
        pytest.param(
            {"Addrs": [PUBLIC, OTHER_PORT]}, [], NO_NET_INFO, Cause.HARD_NAT, id="two-ports"
        ),
        pytest.param(
            {"Addrs": [PUBLIC, "192.0.2.2:41641"]}, [], NO_NET_INFO, None, id="two-addresses"
        ),
        pytest.param(
            {"Addrs": [PUBLIC]},
            [],
            NetInfo(mapping_varies_by_dest_ip=True),
            Cause.HARD_NAT,
            id="varies",
        ),
        pytest.param({"Addrs": ["[2001:db8::1]:41641"]}, [], NO_NET_INFO, None, id="ipv6"),
    ],
)
def test_a_node_shows_what_is_wrong_with_it(
    own: dict[str, Any], health: list[str], net: NetInfo, expected: Cause | None
) -> None:
    status = decoded(Self=own, Health=health)
    assert node_cause(status, direct=0, relayed=1, net=net) is expected


@pytest.mark.parametrize(("direct", "relayed"), [(1, 1), (0, 0)])
def test_blocked_udp_needs_every_peer_on_relay(direct: int, relayed: int) -> None:
    status = decoded(Self={"Addrs": LOCAL})
    assert node_cause(status, direct=direct, relayed=relayed) is None


def test_a_peer_among_direct_ones_has_its_fault_at_the_other_side() -> None:
    assert peer_cause(None, direct=1) is Cause.FAR_SIDE
    assert peer_cause(None, direct=0) is Cause.UNKNOWN
    assert peer_cause(Cause.HARD_NAT, direct=1) is Cause.HARD_NAT
