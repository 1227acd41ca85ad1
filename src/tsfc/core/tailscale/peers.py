"""Peers: their names, which of them are watched or hidden, and their addresses.

A name serves as a label, in log lines and in file names, and comes from another
machine. So it is made printable, cut to a length, and unique within the status. It does
not depend on the order of the peers.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from functools import lru_cache
from urllib.parse import quote

from msgspec import Struct

from tsfc.core.memo import keep_last
from tsfc.core.tailscale.status import PeerStatus, Status
from tsfc.core.text import REPLACEMENT, printable

MULLVAD_SUFFIX = ".mullvad.ts.net"
"""DNS suffix of Mullvad's exit nodes.

They speak WireGuard only: no disco, no DERP, no reply to `tailscale ping`
(`cmd/tailscale/cli/status.go`).
"""

HELLO = "hello.ts.net"
"Name of a node of Tailscale's that is shared with everybody; it is on relay for good."

_MULLVAD_ENDS, _HELLO_NAMES = (MULLVAD_SUFFIX, f"{MULLVAD_SUFFIX}."), (HELLO, f"{HELLO}.")
"With and without the trailing dot of `DNSName`: to remove it from each name is slow."

SERVICE_PREFIX = "svc:"
"Prefix of the names of Tailscale Services (`tailcfg.ServiceName`)."

FUNNEL_HOST_NAME = "funnel-ingress-node"
"""Hostname of all Funnel ingress nodes, which also have no DNS name.

They are in the status of a node that may use Funnel, to forward its visitors.
"""

SEPARATOR = "#"
"Between a name and the StableNodeID; never inside a name."

OWN_NAME_LIMIT = 200
"Maximum length of the node's own name, in characters."

NAME_BUDGET, ID_BUDGET = 160, 60
"""Maximum lengths of a name and of an ID in bytes, percent-encoded.

The file name `peer_` + name + `%23` + ID + `%23` + number may have 255 bytes. A DNS
label has at most 63.
"""

MAX_IP_LENGTH = 45
"Characters in the longest IPv6 address, one that embeds an IPv4 address."
_IP_CHARACTERS = frozenset("0123456789abcdefABCDEF:.")


class Hidden(StrEnum):
    """Kind of a peer that `tailscale status` hides; the value of the label `kind`."""

    MULLVAD = "mullvad"
    "Exit node of Mullvad that is not in use. A node that may use them sees hundreds."
    FUNNEL = "funnel"
    "Funnel ingress node of Tailscale."
    SHAREE = "sharee"
    "Known only because a node is shared with its owner."


class Peer(Struct, frozen=True):
    """A peer and its name in metrics, log lines and file names."""

    name: str
    status: PeerStatus


@keep_last
def named(status: Status) -> tuple[Peer, ...]:
    """Return all peers of a status with unique names, sorted by name.

    The name is the first label of `DNSName`, or the whole of it if the peer belongs to
    another tailnet. A peer without `DNSName` is named by `HostName`, else by its ID.
    Names that collide get the suffix `#<StableNodeID>`; if they still collide, `#` and
    a number in the order of the node keys. All jobs of the agent name the same status.
    """
    peers = status.peer or {}
    names = _names(
        _own_suffix(status),
        tuple(peers),
        tuple([peer.dns_name for peer in peers.values()]),
        tuple([peer.host_name for peer in peers.values()]),
        tuple([peer.id for peer in peers.values()]),
    )
    return tuple([Peer(name, peers[key]) for name, key in names])


class Unwatched(StrEnum):
    """Why a peer is not watched."""

    EXPIRED = "its key has expired"
    OFFLINE = "it is offline"
    SHAREE = "it belongs to a user you share a node with"
    FUNNEL = "it is a Funnel ingress node of Tailscale"
    MULLVAD = "it is a Mullvad exit node, which sends no pongs"
    BROWSER = "it runs in a browser, which has no UDP"
    HELLO = "it is Tailscale's hello.ts.net, which never becomes direct"
    SERVICE = "it is a Tailscale Service, which other nodes host"
    NO_PATH = "tailscaled does not look for a path to it (InMagicSock is false)"
    SELF = "it has an IP address of this node"


def own_name(status: Status) -> str:
    """Return the name of the node itself; empty if tailscaled does not know it.

    It is the name in MagicDNS, as for peers; a node without one has its host name.
    """
    own = status.self_
    return printable(own.dns_name.partition(".")[0] or own.host_name, OWN_NAME_LIMIT)


def unwatched(peer: PeerStatus, own_ips: tuple[str, ...]) -> Unwatched | None:
    """Return why a peer is not watched; None if it is.

    `own_ips` are the Tailscale IPs of the node. Phones, peer relays and peers without
    an IP are watched.
    """
    if peer.expired:
        return Unwatched.EXPIRED
    if peer.sharee_node:
        is_funnel = hidden(peer) is Hidden.FUNNEL
        return Unwatched.FUNNEL if is_funnel else Unwatched.SHAREE
    kind = _never_direct(peer, own_ips)
    return Unwatched.OFFLINE if kind is None and not peer.online else kind


def is_watched(peer: PeerStatus, own_ips: tuple[str, ...]) -> bool:
    """Whether the peer is watched: online, valid, and of a kind that can be direct."""
    return unwatched(peer, own_ips) is None


def _never_direct(peer: PeerStatus, own_ips: tuple[str, ...]) -> Unwatched | None:
    """Why no restart can make the peer direct, if that is so."""
    if peer.in_magic_sock is False:
        return Unwatched.NO_PATH
    if peer.os == "js":
        return Unwatched.BROWSER
    dns_name = peer.dns_name
    if dns_name.endswith(_MULLVAD_ENDS):
        return Unwatched.MULLVAD
    if dns_name in _HELLO_NAMES:
        return Unwatched.HELLO
    if dns_name.startswith(SERVICE_PREFIX) or peer.host_name.startswith(SERVICE_PREFIX):
        return Unwatched.SERVICE
    for ip in peer.tailscale_ips or ():
        if ip in own_ips:
            return Unwatched.SELF
    return None


def hidden(peer: PeerStatus) -> Hidden | None:
    """Return why `tailscale status` hides a peer; None if it shows the peer.

    Source: `runStatus` in `cmd/tailscale/cli/status.go` of v1.102.3. A Mullvad exit
    node that the node may not use is shown, as is the one in use.
    """
    if peer.sharee_node:
        is_funnel = peer.host_name == FUNNEL_HOST_NAME and not peer.dns_name
        return Hidden.FUNNEL if is_funnel else Hidden.SHAREE
    is_idle_exit_node = peer.exit_node_option and not peer.exit_node
    return Hidden.MULLVAD if is_idle_exit_node and is_mullvad(peer) else None


def is_mullvad(peer: PeerStatus) -> bool:
    """Whether the peer is an exit node of Mullvad."""
    return peer.dns_name.endswith(_MULLVAD_ENDS)


def address(peer: PeerStatus) -> str | None:
    """Return the first Tailscale IP of a peer; None if it has none.

    Anything that does not look like an IP address is skipped: the result becomes an
    argument of `tailscale ping` and must not be read as an option.
    """
    return next((ip for ip in peer.tailscale_ips or () if _looks_like_an_ip(ip)), None)


def _looks_like_an_ip(text: str) -> bool:
    return (
        len(text) <= MAX_IP_LENGTH
        and _IP_CHARACTERS.issuperset(text)
        and ("." in text.strip(".") or ":" in text)
    )


def base_name(name: str) -> str:
    """Return a peer's name without the suffix that makes it unique."""
    return name.partition(SEPARATOR)[0]


def _numbered(names: list[str]) -> list[str]:
    """Append a number to each name that occurs more than once."""
    taken = Counter(names)
    so_far: Counter[str] = Counter()
    numbered: list[str] = []
    for name in names:
        so_far[name] += 1
        numbered.append(name if taken[name] == 1 else f"{name}{SEPARATOR}{so_far[name]}")
    return numbered


@lru_cache(maxsize=2)
def _names(
    own_suffix: str,
    keys: tuple[str, ...],
    dns_names: tuple[str, ...],
    host_names: tuple[str, ...],
    ids: tuple[str, ...],
) -> tuple[tuple[str, str], ...]:
    """Name and node key of each peer, sorted by name.

    Names seldom change from one status to the next, so the last result is kept. There
    are two, because a simulation also has the statuses of nodes at the other end.
    """
    by_key = sorted(zip(keys, dns_names, host_names, ids, strict=True))
    plain = [
        _plain_name(dns_name, host_name, id_, own_suffix) for _, dns_name, host_name, id_ in by_key
    ]
    taken = Counter(plain)
    if len(taken) < len(plain):
        with_id = [
            name if taken[name] == 1 else f"{name}{SEPARATOR}{_cut(id_, ID_BUDGET)}"
            for name, (*_, id_) in zip(plain, by_key, strict=True)
        ]
        plain = _numbered(with_id)
    named_keys = ((name, key) for name, (key, *_) in zip(plain, by_key, strict=True))
    return tuple(sorted(named_keys, key=lambda named_key: named_key[0]))


def _own_suffix(status: Status) -> str:
    """DNS suffix of the tailnet without outer dots; empty before the first netmap."""
    tailnet = status.current_tailnet.magic_dns_suffix if status.current_tailnet else ""
    return (status.magic_dns_suffix or tailnet or status.self_.dns_name.partition(".")[2]).strip(
        "."
    )


def _plain_name(dns_name: str, host_name: str, id_: str, own_suffix: str) -> str:
    dns_name = dns_name.removesuffix(".")
    label, _, suffix = dns_name.partition(".")
    is_foreign = (
        bool(suffix and own_suffix)
        and suffix != own_suffix
        and not suffix.endswith("." + own_suffix)
    )
    name = dns_name if is_foreign else label
    return (
        _cut(name, NAME_BUDGET)
        or _cut(host_name, NAME_BUDGET)
        or _cut(id_, NAME_BUDGET)
        or "unnamed"
    )


def _cut(text: str, budget: int) -> str:
    """Make `text` printable and cut it to `budget` bytes, percent-encoded."""
    if len(text) <= budget and text.isascii() and text.replace("-", "").replace(".", "").isalnum():
        return text
    text = printable(text, budget).replace(SEPARATOR, REPLACEMENT)
    length = 0
    for position, character in enumerate(text):
        length += len(quote(character, safe=""))
        if length > budget:
            return text[:position]
    return text
