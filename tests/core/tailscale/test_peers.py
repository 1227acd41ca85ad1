from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import NAMES_FROM_HELL, hostile_statuses
from support.statuses import SUFFIX, decoded, peer
from tsfc.core.tailscale.peers import (
    Hidden,
    Peer,
    address,
    base_name,
    hidden,
    is_watched,
    named,
    own_name,
)
from tsfc.core.tailscale.status import PeerStatus

LONGEST_FILE_NAME = 255
"Bytes; NAME_MAX of Linux."


def names_of(*peers: dict[str, Any], **fields: Any) -> list[str]:
    return [peer.name for peer in named(decoded(*peers, **fields))]


def node(dns_name: str = "", host_name: str = "", stable_id: str = "") -> dict[str, Any]:
    return peer("rpi3", DNSName=dns_name, HostName=host_name, ID=stable_id)


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        (node("rpi3.tail1.ts.net.", "pi"), "rpi3"),
        (node("rpi3.tail1.ts.net", "pi"), "rpi3"),
        (node("rpi3", "pi"), "rpi3"),
        (node("rpi3.", "pi"), "rpi3"),
        (node("rpi3.attic.tail1.ts.net.", "pi"), "rpi3"),
        (node("rpi3.tail2.ts.net.", "pi"), "rpi3.tail2.ts.net"),
        (node("hello.ts.net.", "hello"), "hello.ts.net"),
        (node("rpi3.nottail1.ts.net.", "pi"), "rpi3.nottail1.ts.net"),
        (node("us-nyc-wg-301.mullvad.ts.net.", "us-nyc"), "us-nyc-wg-301.mullvad.ts.net"),
        (node("", "funnel-ingress-node"), "funnel-ingress-node"),
        (node(".", "pi"), "pi"),
        (node(".tail1.ts.net.", "pi"), "pi"),
        (node("", "", "nABC"), "nABC"),
        (node("", "", ""), "unnamed"),
        (node("", "Jane's phone"), "Jane's phone"),
        (node("", "a.b.c"), "a.b.c"),
        (node("", "rpi3#nABC"), "rpi3\N{REPLACEMENT CHARACTER}nABC"),
        (node("", "line one\nline two"), "line one\N{REPLACEMENT CHARACTER}line two"),
        (node("a\nb.tail1.ts.net."), "a\N{REPLACEMENT CHARACTER}b"),
        (node("", "../../etc/passwd"), "../../etc/passwd"),
        (node("", "café"), "café"),
        (node("", "n" * 10_240), "n" * 160),
        (node("", "/" * 10_240), "/" * 53),
        (node("", "é" * 10_240), "é" * 26),
    ],
)
def test_a_peer_is_named_by_its_dns_name_or_host_name_or_id(
    peer: dict[str, Any], name: str
) -> None:
    """Peers of another tailnet keep the whole DNS name; names are printable and cut."""
    assert names_of(peer) == [name]


@pytest.mark.parametrize(
    ("own", "name"),
    [
        ({"DNSName": "alpha.x.ts.net.", "HostName": "a"}, "alpha"),
        ({"DNSName": "", "HostName": "a\nb"}, "a\N{REPLACEMENT CHARACTER}b"),
        ({"DNSName": "", "HostName": "n" * 300}, "n" * 200),
        ({}, ""),
    ],
)
def test_the_node_is_named_by_its_dns_name_or_host_name(own: dict[str, Any], name: str) -> None:
    assert own_name(decoded(Self=own)) == name


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"MagicDNSSuffix": "tail1.ts.net"}, "rpi3"),
        ({"MagicDNSSuffix": ".tail1.ts.net."}, "rpi3"),
        ({"MagicDNSSuffix": "", "CurrentTailnet": {"MagicDNSSuffix": "tail1.ts.net"}}, "rpi3"),
        (
            {
                "MagicDNSSuffix": "tail2.ts.net",
                "CurrentTailnet": {"MagicDNSSuffix": "tail1.ts.net"},
            },
            "rpi3.tail1.ts.net",
        ),
        (
            {
                "MagicDNSSuffix": "",
                "CurrentTailnet": None,
                "Self": {"DNSName": "alpha.tail1.ts.net."},
            },
            "rpi3",
        ),
        (
            {
                "MagicDNSSuffix": "",
                "CurrentTailnet": {},
                "Self": {"DNSName": "alpha.tail2.ts.net."},
            },
            "rpi3.tail1.ts.net",
        ),
        ({"MagicDNSSuffix": "", "CurrentTailnet": None, "Self": {"DNSName": "alpha"}}, "rpi3"),
        ({"MagicDNSSuffix": "", "CurrentTailnet": None, "Self": {}}, "rpi3"),
    ],
)
def test_only_peers_of_another_tailnet_keep_their_suffix(fields: dict[str, Any], name: str) -> None:
    """The own suffix comes from the status, the tailnet or the own DNS name.

    Without any of them, no peer counts as foreign.
    """
    assert names_of(node("rpi3.tail1.ts.net."), **fields) == [name]


@pytest.mark.parametrize(
    ("peers", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([node("b.tail1.ts.net."), node("a.tail1.ts.net.")], ["a", "b"], id="sorted"),
        pytest.param(
            [node("", "pi", "nA"), node("", "pi", "nB")], ["pi#nA", "pi#nB"], id="same-host-name"
        ),
        pytest.param(
            [node("pi.tail1.ts.net.", "", "nA"), node("", "pi", "nB"), node("", "other", "nC")],
            ["other", "pi#nA", "pi#nB"],
            id="dns-and-host-name",
        ),
        pytest.param(
            [node("pi.tail1.ts.net.", "", "nA"), node("pi.tail2.ts.net.", "", "nB")],
            ["pi", "pi.tail2.ts.net"],
            id="other-tailnet",
        ),
        pytest.param(
            [node("", "pi", "nA"), node("", "pi", "nA")], ["pi#nA#1", "pi#nA#2"], id="same-id"
        ),
        pytest.param([node("", "pi", ""), node("", "pi", "")], ["pi##1", "pi##2"], id="no-ids"),
        pytest.param([node("", "pi", ""), node("", "pi", "nA")], ["pi#", "pi#nA"], id="one-id"),
        pytest.param(
            [node("", "pi", "nA"), node("", "pi", "nB"), node("", "pi#nA", "nC")],
            ["pi#nA", "pi#nB", "pi\N{REPLACEMENT CHARACTER}nA"],
            id="imitation",
        ),
        pytest.param(
            [node("", "pi", "n#\n"), node("", "pi", "nB")],
            ["pi#nB", "pi#n\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"],
            id="hostile-id",
        ),
        pytest.param(
            [node("", "a\nb", "nA"), node("", "a\rb", "nB")],
            ["a\N{REPLACEMENT CHARACTER}b#nA", "a\N{REPLACEMENT CHARACTER}b#nB"],
            id="made-alike",
        ),
        pytest.param(
            [node("", "n" * 200, "nA"), node("", "n" * 201, "nB")],
            ["n" * 160 + "#nA", "n" * 160 + "#nB"],
            id="cut-alike",
        ),
        pytest.param(
            [node("", "pi", "n" * 99), node("", "pi", "n" * 98 + "m")],
            ["pi#" + "n" * 60 + "#1", "pi#" + "n" * 60 + "#2"],
            id="ids-cut",
        ),
    ],
)
def test_names_that_collide_get_the_id_and_then_a_number(
    peers: list[dict[str, Any]], expected: list[str]
) -> None:
    """`#` and the StableNodeID; if that is not enough, `#` and a rank by node key."""
    assert names_of(*peers) == expected


@given(hostile_statuses())
def test_names_are_unique_printable_and_fit_a_file_name(document: dict[str, Any]) -> None:
    """A name serves as a label, in log lines and in file names."""
    status = decoded(**document)
    names = [peer.name for peer in named(status)]
    assert len(set(names)) == len(names) == len(status.peer or {})
    assert names == sorted(names)
    for name in names:
        assert name
        assert name.isprintable()
        file_name = "peer_" + quote(name, safe="")
        assert len(file_name) <= LONGEST_FILE_NAME
        assert "/" not in file_name
        assert unquote(file_name) == "peer_" + name


@given(hostile_statuses())
def test_only_names_that_collide_have_a_separator(document: dict[str, Any]) -> None:
    """The base name is the part before the first `#`."""
    names = [peer.name for peer in named(decoded(**document))]
    bases = [base_name(name) for name in names]
    for name, base in zip(names, bases, strict=True):
        assert "#" not in base
        assert ("#" in name) == (bases.count(base) > 1)
        assert name.count("#") <= 2


@given(hostile_statuses(), st.randoms(use_true_random=False))
def test_names_do_not_depend_on_the_order_of_the_peers(
    document: dict[str, Any], random: Any
) -> None:
    """Go's maps have no order; tailscaled sorts by a key that changes at each login."""
    shuffled = list(document["Peer"].items())
    random.shuffle(shuffled)
    assert named(decoded(**document | {"Peer": dict(shuffled)})) == named(decoded(**document))


@given(st.lists(hostile_statuses(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_names_do_not_depend_on_earlier_statuses(
    documents: list[dict[str, Any]], random: Any
) -> None:
    """The names of the last statuses are kept: for the same peers, and for no others."""
    alone = [_named_alone(document) for document in documents]
    for number in random.choices(range(len(documents)), k=8):
        assert named(decoded(**documents[number])) == alone[number]


def _named_alone(document: dict[str, Any]) -> tuple[Peer, ...]:
    """Return the peers of a status after statuses without any peer of it."""
    for name in ("one", "other"):
        named(decoded(peer(name)))
    return named(decoded(**document))


def test_kept_names_are_those_of_the_peers_of_this_status() -> None:
    named(decoded(peer("nas"), peer("rpi3")))
    names = [one.name for one in named(decoded(peer("nas", "derp"), peer("rpi4", ID="nrpi3CNTRL")))]
    assert names == ["nas", "rpi4"]
    moved = named(decoded(peer("nas", "derp", OS="js"), peer("rpi4", ID="nrpi3CNTRL")))
    assert moved[0].status.os == "js"


def test_peers_with_the_same_id_are_numbered_by_node_key() -> None:
    """So a peer keeps its name from run to run, in whatever order the map arrives."""
    twins = {f"nodekey:{key}": peer("twin", ID="nABC", OS=key) for key in "abc"}
    backwards = dict(reversed(twins.items()))
    assert [(peer.name, peer.status.os) for peer in named(decoded(Peer=twins))] == [
        ("twin#nABC#1", "a"),
        ("twin#nABC#2", "b"),
        ("twin#nABC#3", "c"),
    ]
    assert named(decoded(Peer=backwards)) == named(decoded(Peer=twins))


@pytest.mark.parametrize("name", NAMES_FROM_HELL)
def test_hostile_names_become_printable_and_unique(name: str) -> None:
    """As a DNS name, a host name or an ID, alone or twice."""
    evil = NAMES_FROM_HELL[name]
    names = names_of(
        node(f"{evil}.{SUFFIX}."),
        node(evil),
        node("", evil),
        node("", evil, evil),
        node("", "", evil),
    )
    assert len(set(names)) == 5
    assert all(names)
    assert "".join(names).isprintable()


@pytest.mark.parametrize("name", ["rpi3", "rpi3.tail2.ts.net", "pi", "x"])
def test_the_base_name_lacks_the_suffix(name: str) -> None:
    """A name without a suffix is its own base name."""
    assert [
        base_name(name),
        base_name(f"{name}#nABC"),
        base_name(f"{name}#nABC#7"),
        base_name(f"{name}##7"),
    ] == [name] * 4


@pytest.mark.parametrize(
    ("peer", "watched"),
    [
        pytest.param(PeerStatus(online=True), True, id="online"),
        pytest.param(PeerStatus(), False, id="offline"),
        pytest.param(PeerStatus(online=True, expired=True), False, id="expired"),
        pytest.param(PeerStatus(online=True, sharee_node=True), False, id="sharee"),
        pytest.param(
            PeerStatus(online=True, dns_name="us-nyc-wg-301.mullvad.ts.net."), False, id="mullvad"
        ),
        pytest.param(
            PeerStatus(online=True, dns_name="us-nyc-wg-301.mullvad.ts.net"),
            False,
            id="mullvad-no-dot",
        ),
        pytest.param(
            PeerStatus(online=True, dns_name="mullvad.tail1.ts.net."), True, id="called-mullvad"
        ),
        pytest.param(
            PeerStatus(online=True, dns_name="notmullvad.ts.net."), True, id="ends-like-mullvad"
        ),
        pytest.param(PeerStatus(online=True, exit_node=True), True, id="exit-node"),
        pytest.param(PeerStatus(online=True, tailscale_ips=()), True, id="no-ip"),
        pytest.param(PeerStatus(online=True, active=True), True, id="active"),
        pytest.param(PeerStatus(online=True, tags=("tag:server",)), True, id="tagged"),
        pytest.param(PeerStatus(online=True, os="iOS"), True, id="phone"),
        pytest.param(PeerStatus(online=True, peer_relay="192.0.2.1:1:vni:1"), True, id="relay"),
        pytest.param(PeerStatus(online=True, os="js"), False, id="browser"),
        pytest.param(PeerStatus(online=True, dns_name="hello.ts.net."), False, id="hello"),
        pytest.param(
            PeerStatus(online=True, dns_name="hello.tail1.ts.net."), True, id="called-hello"
        ),
        pytest.param(PeerStatus(online=True, in_magic_sock=False), False, id="not-in-magicsock"),
        pytest.param(PeerStatus(online=True, in_magic_sock=True), True, id="in-magicsock"),
        pytest.param(PeerStatus(online=True, tailscale_ips=("100.64.0.1",)), False, id="own-ip"),
        pytest.param(PeerStatus(online=True, tailscale_ips=("100.64.0.2",)), True, id="other-ip"),
        pytest.param(PeerStatus(online=True, host_name="svc:web"), False, id="service"),
        pytest.param(PeerStatus(online=True, dns_name="svc:web."), False, id="service-name"),
    ],
)
def test_online_peers_are_watched_unless_they_cannot_be_direct(
    peer: PeerStatus, *, watched: bool
) -> None:
    """An IP is not required."""
    assert is_watched(peer, ("100.64.0.1",)) is watched


MULLVAD = "us-nyc-wg-301.mullvad.ts.net."


@pytest.mark.parametrize(
    ("peer", "kind"),
    [
        pytest.param(PeerStatus(dns_name="nas.tail1.ts.net."), None, id="ordinary"),
        pytest.param(
            PeerStatus(dns_name=MULLVAD, exit_node_option=True), Hidden.MULLVAD, id="mullvad"
        ),
        pytest.param(
            PeerStatus(dns_name=MULLVAD[:-1], exit_node_option=True),
            Hidden.MULLVAD,
            id="mullvad-no-dot",
        ),
        pytest.param(
            PeerStatus(dns_name=MULLVAD, exit_node_option=True, exit_node=True),
            None,
            id="mullvad-in-use",
        ),
        pytest.param(PeerStatus(dns_name=MULLVAD), None, id="mullvad-not-permitted"),
        pytest.param(
            PeerStatus(dns_name="exit.tail1.ts.net.", exit_node_option=True), None, id="exit-node"
        ),
        pytest.param(
            PeerStatus(sharee_node=True, host_name="funnel-ingress-node"),
            Hidden.FUNNEL,
            id="funnel",
        ),
        pytest.param(
            PeerStatus(
                sharee_node=True,
                host_name="funnel-ingress-node",
                dns_name="funnel-ingress-node.tail2.ts.net.",
            ),
            Hidden.SHAREE,
            id="sharee-called-funnel",
        ),
        pytest.param(PeerStatus(host_name="funnel-ingress-node"), None, id="called-funnel"),
        pytest.param(PeerStatus(sharee_node=True), Hidden.SHAREE, id="sharee"),
    ],
)
def test_peers_are_hidden_as_in_tailscale_status(peer: PeerStatus, kind: Hidden | None) -> None:
    """Sharees, and exit nodes of Mullvad that could be used but are not."""
    assert hidden(peer) is kind


@pytest.mark.parametrize(
    ("ips", "ip"),
    [
        pytest.param(None, None, id="null"),
        pytest.param((), None, id="none"),
        pytest.param(("100.64.0.2",), "100.64.0.2", id="one"),
        pytest.param(("100.64.0.2", "fd7a:115c:a1e0::2"), "100.64.0.2", id="first"),
        pytest.param(("fd7a:115c:a1e0::2",), "fd7a:115c:a1e0::2", id="v6"),
        pytest.param(("::1",), "::1", id="shortest"),
        pytest.param(("",), None, id="empty"),
        pytest.param(("", "100.64.0.2"), "100.64.0.2", id="skips-empty"),
        pytest.param(("-c", "100.64.0.2"), "100.64.0.2", id="skips-option"),
        pytest.param(
            ("100.64.0.2 ", "100.64.0.2\n", "100.64.0.2/32", "rpi3", "\u0661\u0660\u0660.64.0.2"),
            None,
            id="not-one",
        ),
        pytest.param(("100.64.0.2&type=TSMP",), None, id="query"),
    ],
)
def test_the_address_is_the_first_ip(ips: tuple[str, ...] | None, ip: str | None) -> None:
    """It becomes a command-line argument and part of a URL, so all else is skipped."""
    assert address(PeerStatus(tailscale_ips=ips)) == ip
