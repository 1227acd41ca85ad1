"""Which peers a user means by a name."""

from __future__ import annotations

import pytest

from support.statuses import decoded, peer
from tsfc.core.tailscale.naming import Matches, find, find_node, match
from tsfc.core.tailscale.peers import Peer, named
from tsfc.core.tailscale.status import PeerStatus, Status

PEERS: tuple[Peer, ...] = named(
    decoded(
        peer("rpi3", ID="nA", TailscaleIPs=["100.64.0.3", "fd7a::3"]),
        peer("nas", ID="nB", HostName="DiskStation"),
        peer("shared", ID="nC", DNSName="shared.tail2.ts.net."),
        peer("cam", ID="nD"),
        peer("cam", ID="nE", DNSName="cam.tail1.ts.net."),
        peer("liar", ID="nF", HostName="rpi3"),
    )
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("rpi3", ["rpi3"], id="label"),
        pytest.param("RPi3", ["rpi3"], id="any case"),
        pytest.param("rpi3.tail1.ts.net", ["rpi3"], id="FQDN"),
        pytest.param("rpi3.tail1.ts.net.", ["rpi3"], id="FQDN with a dot"),
        pytest.param("100.64.0.3", ["rpi3"], id="IPv4"),
        pytest.param("FD7A::3", ["rpi3"], id="IPv6"),
        pytest.param("nA", ["rpi3"], id="StableNodeID"),
        pytest.param("diskstation", ["nas"], id="host name"),
        pytest.param("shared.tail2.ts.net", ["shared.tail2.ts.net"], id="foreign FQDN"),
        pytest.param("shared", ["shared.tail2.ts.net"], id="host name of a foreign peer"),
        pytest.param("cam", ["cam#nD", "cam#nE"], id="shared name"),
        pytest.param("cam#nD", ["cam#nD"], id="one of a shared name"),
        pytest.param("cam#nX", [], id="another of a shared name"),
        pytest.param("rpi3#nA", ["rpi3"], id="a name that was shared once"),
        pytest.param("rpi3#nB", [], id="the ID of another peer"),
        pytest.param("rpi33", [], id="longer"),
        pytest.param("rpi", [], id="shorter"),
        pytest.param("", [], id="empty"),
    ],
)
def test_a_peer_is_found_by_all_its_names(name: str, expected: list[str]) -> None:
    """A host name counts last: `liar` does not get the name of another peer."""
    assert [peer.name for peer in find(PEERS, name)] == expected


def test_names_that_no_peer_has_are_returned() -> None:
    own = PeerStatus(host_name="here", dns_name="me.tail1.ts.net.")
    names = {"rpi3", "typo", "cam", "another", "here", "me"}
    assert match(PEERS, own, names) == Matches(
        frozenset({"rpi3", "cam#nD", "cam#nE"}), ("another", "typo")
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("nas", ["nas"], id="label"),
        pytest.param(f"nodekey:{0:064x}", ["nas"], id="node key"),
        pytest.param(f"nodekey:{9:064x}", [], id="unknown node key"),
        *(
            pytest.param(name, ["self"], id=f"this node: {name}")
            for name in ("self", "SELF.tail1.ts.net.", "100.64.0.1", "nselfCNTRL")
        ),
        pytest.param("box", ["liar", "self"], id="a host name that a peer and this node have"),
        pytest.param("", [], id="empty"),
    ],
)
def test_a_node_is_found_by_all_its_names(name: str, expected: list[str]) -> None:
    """A host name of a peer does not take the name of this node."""
    status = decoded(
        peer("nas"),
        peer("rpi3", HostName="self"),
        peer("liar", HostName="box"),
        Self={
            "ID": "nselfCNTRL",
            "HostName": "box",
            "DNSName": "self.tail1.ts.net.",
            "TailscaleIPs": ["100.64.0.1"],
        },
    )
    assert [found.name for found in find_node(status, name)] == expected


def test_a_status_without_anything_has_no_node_of_any_name() -> None:
    assert find_node(Status(), "nas") == find_node(Status(), "") == ()
