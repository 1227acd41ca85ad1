from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import NAMES_FROM_HELL, hostile_statuses
from support.statuses import SUFFIX, decoded, peer
from tsfc.core.tailscale.peers import address, base_name, is_watched, named
from tsfc.core.tailscale.status import PeerStatus

LONGEST_FILE_NAME = 255
"NAME_MAX of Linux."


def names(*peers: dict[str, Any], **fields: Any) -> list[str]:
    return [found.name for found in named(decoded(*peers, **fields))]


def node(dns_name: str = "", host_name: str = "", stable_id: str = "") -> dict[str, Any]:
    return peer("rpi3", DNSName=dns_name, HostName=host_name, ID=stable_id)


@pytest.mark.parametrize(
    ("of", "name"),
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
def test_a_peer_is_called(of: dict[str, Any], name: str) -> None:
    """By the first label of its DNS name; whole in another tailnet; by its host name without one; printable, and cut."""
    assert names(of) == [name]


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
def test_our_tailnet_is_known_by(fields: dict[str, Any], name: str) -> None:
    """Our suffix is the status', else the tailnet's, else that of our own name; without any nobody is a stranger."""
    assert names(node("rpi3.tail1.ts.net."), **fields) == [name]


@pytest.mark.parametrize(
    ("peers", "expected"),
    [
        ([], []),
        ([node("b.tail1.ts.net."), node("a.tail1.ts.net.")], ["a", "b"]),
        ([node("", "pi", "nA"), node("", "pi", "nB")], ["pi#nA", "pi#nB"]),
        (
            [node("pi.tail1.ts.net.", "", "nA"), node("", "pi", "nB"), node("", "other", "nC")],
            ["other", "pi#nA", "pi#nB"],
        ),
        (
            [node("pi.tail1.ts.net.", "", "nA"), node("pi.tail2.ts.net.", "", "nB")],
            ["pi", "pi.tail2.ts.net"],
        ),
        ([node("", "pi", "nA"), node("", "pi", "nA")], ["pi#nA#1", "pi#nA#2"]),
        ([node("", "pi", ""), node("", "pi", "")], ["pi##1", "pi##2"]),
        ([node("", "pi", ""), node("", "pi", "nA")], ["pi#", "pi#nA"]),
        (
            [node("", "pi", "nA"), node("", "pi", "nB"), node("", "pi#nA", "nC")],
            ["pi#nA", "pi#nB", "pi\N{REPLACEMENT CHARACTER}nA"],
        ),
        (
            [node("", "pi", "n#\n"), node("", "pi", "nB")],
            ["pi#nB", "pi#n\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"],
        ),
        (
            [node("", "a\nb", "nA"), node("", "a\rb", "nB")],
            ["a\N{REPLACEMENT CHARACTER}b#nA", "a\N{REPLACEMENT CHARACTER}b#nB"],
        ),
        (
            [node("", "n" * 200, "nA"), node("", "n" * 201, "nB")],
            ["n" * 160 + "#nA", "n" * 160 + "#nB"],
        ),
        (
            [node("", "pi", "n" * 99), node("", "pi", "n" * 98 + "m")],
            ["pi#" + "n" * 60 + "#1", "pi#" + "n" * 60 + "#2"],
        ),
    ],
    ids=[
        "none",
        "sorted",
        "same-host-name",
        "dns-and-host-name",
        "other-tailnet",
        "same-id",
        "no-ids",
        "one-id",
        "imitation",
        "hostile-id",
        "made-alike",
        "cut-alike",
        "ids-cut",
    ],
)
def test_names_that_collide_are_told_apart(
    peers: list[dict[str, Any]], expected: list[str]
) -> None:
    """By the ID behind a `#`, and where that is not enough by the rank, behind a second one."""
    assert names(*peers) == expected


@given(hostile_statuses())
def test_names_are_unique_printable_and_fit_a_file_name(document: dict[str, Any]) -> None:
    """Whatever the peers are called: a name is a label, a part of a line, and a file name."""
    status = decoded(**document)
    found = [peer.name for peer in named(status)]
    assert len(set(found)) == len(found) == len(status.peer or {})
    assert found == sorted(found)
    for name in found:
        assert name
        assert name.isprintable()
        file_name = "peer_" + quote(name, safe="")
        assert len(file_name) <= LONGEST_FILE_NAME
        assert "/" not in file_name
        assert unquote(file_name) == "peer_" + name


@given(hostile_statuses())
def test_a_separator_stands_only_before_what_tells_apart(document: dict[str, Any]) -> None:
    """What is before the first `#` is the name without it; there is one only where two would have had that name."""
    found = [peer.name for peer in named(decoded(**document))]
    bases = [base_name(name) for name in found]
    for name, base in zip(found, bases, strict=True):
        assert "#" not in base
        assert ("#" in name) == (bases.count(base) > 1)
        assert name.count("#") <= 2


@given(hostile_statuses(), st.randoms(use_true_random=False))
def test_the_order_of_the_peers_changes_nothing(document: dict[str, Any], random: Any) -> None:
    """Go's maps have no order, and tailscaled's JSON is sorted by a key that changes at each login."""
    shuffled = list(document["Peer"].items())
    random.shuffle(shuffled)
    assert named(decoded(**document | {"Peer": dict(shuffled)})) == named(decoded(**document))


def test_twins_of_one_id_keep_their_names_in_any_order() -> None:
    """The rank is that of the node key, so a name stays with its peer from run to run, however the map is ordered."""
    twins = {f"nodekey:{key}": peer("twin", ID="nABC", OS=key) for key in "abc"}
    backwards = dict(reversed(twins.items()))
    assert [(found.name, found.status.os) for found in named(decoded(Peer=twins))] == [
        ("twin#nABC#1", "a"),
        ("twin#nABC#2", "b"),
        ("twin#nABC#3", "c"),
    ]
    assert named(decoded(Peer=backwards)) == named(decoded(Peer=twins))


@pytest.mark.parametrize("name", NAMES_FROM_HELL)
def test_a_name_from_hell_is_tamed_wherever_it_stands(name: str) -> None:
    """As a DNS name, a host name or an ID, alone or twice."""
    evil = NAMES_FROM_HELL[name]
    found = names(
        node(f"{evil}.{SUFFIX}."),
        node(evil),
        node("", evil),
        node("", evil, evil),
        node("", "", evil),
    )
    assert len(set(found)) == 5
    assert all(found)
    assert "".join(found).isprintable()


@pytest.mark.parametrize("name", ["rpi3", "rpi3.tail2.ts.net", "pi", "x"])
def test_a_name_without_a_suffix_is_its_own_base(name: str) -> None:
    """Nothing is taken off a name that was told apart from none."""
    assert [
        base_name(name),
        base_name(f"{name}#nABC"),
        base_name(f"{name}#nABC#7"),
        base_name(f"{name}##7"),
    ] == [name] * 4


@pytest.mark.parametrize(
    ("of", "watched"),
    [
        (PeerStatus(online=True), True),
        (PeerStatus(), False),
        (PeerStatus(online=True, expired=True), False),
        (PeerStatus(online=True, sharee_node=True), False),
        (PeerStatus(online=True, dns_name="us-nyc-wg-301.mullvad.ts.net."), False),
        (PeerStatus(online=True, dns_name="us-nyc-wg-301.mullvad.ts.net"), False),
        (PeerStatus(online=True, dns_name="mullvad.tail1.ts.net."), True),
        (PeerStatus(online=True, dns_name="notmullvad.ts.net."), True),
        (PeerStatus(online=True, exit_node=True), True),
        (PeerStatus(online=True, tailscale_ips=()), True),
        (PeerStatus(online=True, active=True), True),
        (PeerStatus(online=True, tags=("tag:server",)), True),
    ],
    ids=[
        "online",
        "offline",
        "expired",
        "sharee",
        "mullvad",
        "mullvad-no-dot",
        "called-mullvad",
        "ends-like-mullvad",
        "exit-node",
        "no-ip",
        "active",
        "tagged",
    ],
)
def test_watched_is(of: PeerStatus, *, watched: bool) -> None:
    """Online, and neither expired, a sharee, nor an exit node of Mullvad's; with or without an IP."""
    assert is_watched(of) is watched


@pytest.mark.parametrize(
    ("ips", "ip"),
    [
        (None, None),
        ((), None),
        (("100.64.0.2",), "100.64.0.2"),
        (("100.64.0.2", "fd7a:115c:a1e0::2"), "100.64.0.2"),
        (("fd7a:115c:a1e0::2",), "fd7a:115c:a1e0::2"),
        (("::1",), "::1"),
        (("",), None),
        (("", "100.64.0.2"), "100.64.0.2"),
        (("-c", "100.64.0.2"), "100.64.0.2"),
        (
            ("100.64.0.2 ", "100.64.0.2\n", "100.64.0.2/32", "rpi3", "\u0661\u0660\u0660.64.0.2"),
            None,
        ),
        (("100.64.0.2&type=TSMP",), None),
    ],
    ids=[
        "null",
        "none",
        "one",
        "first",
        "v6",
        "shortest",
        "empty",
        "skips-empty",
        "skips-option",
        "not-one",
        "query",
    ],
)
def test_the_address_is_the_first_that_is_one(ips: tuple[str, ...] | None, ip: str | None) -> None:
    """It becomes an argument and a part of a URL, so nothing else will do."""
    assert address(PeerStatus(tailscale_ips=ips)) == ip
