"""Which peers count, and what each is called.

A name is a label, a part of a log line and of a file name at once, and it comes from somebody else's machine. So it is
made printable, cut, and told apart from every other name in the same status; by nothing that depends on the order of
the peers.
"""

from __future__ import annotations

from collections import Counter
from urllib.parse import quote

from msgspec import Struct

from tsfc.core.tailscale.status import PeerStatus, Status
from tsfc.core.text import REPLACEMENT, printable

MULLVAD_SUFFIX = ".mullvad.ts.net"
"Mullvad's exit nodes speak WireGuard only: no disco, no DERP, no answer to a `tailscale ping` (`cmd/tailscale/cli/status.go`)."

SEPARATOR = "#"
"Stands between a name and the StableNodeID; nowhere else in a name."

NAME_BUDGET, ID_BUDGET = 160, 60
"""Lengths, percent-encoded, at which a name and an ID are cut.

`peer_` + name + `%23` + ID + `%23` + a number is a file name, and that has at most 255 bytes. A DNS label has 63.
"""

MAX_IP_LENGTH = 45
"Of an IPv6 address with an IPv4 address in it."
_IP_CHARACTERS = frozenset("0123456789abcdefABCDEF:.")


class Peer(Struct, frozen=True):
    """A peer under the name that all of its metrics, log lines and files carry."""

    name: str
    status: PeerStatus


def named(status: Status) -> tuple[Peer, ...]:
    """Returns all peers of a status, each under a name that no other has, in the order of the names.

    The name is the first label of `DNSName`; the whole of it for a peer of another tailnet; `HostName` without a DNS
    name; the ID without either. What collides gets `#<StableNodeID>` behind it, and should even that collide, `#` and
    a number in the order of the node keys.
    """
    suffix = _own_suffix(status)
    by_key = sorted((status.peer or {}).items())
    plain = [_plain_name(peer, suffix) for _, peer in by_key]
    taken = Counter(plain)
    if len(taken) < len(plain):
        with_id = [
            name if taken[name] == 1 else f"{name}{SEPARATOR}{_cut(peer.id, ID_BUDGET)}"
            for name, (_, peer) in zip(plain, by_key, strict=True)
        ]
        plain = _numbered(with_id)
    return tuple(
        sorted(
            (Peer(name, peer) for name, (_, peer) in zip(plain, by_key, strict=True)),
            key=lambda peer: peer.name,
        )
    )


def is_watched(peer: PeerStatus) -> bool:
    """Reports whether the peer should be reachable: online, not expired, no sharee, no Mullvad exit node."""
    return (
        peer.online
        and not peer.expired
        and not peer.sharee_node
        and not peer.dns_name.removesuffix(".").endswith(MULLVAD_SUFFIX)
    )


def address(peer: PeerStatus) -> str | None:
    """Returns the Tailscale IP to ping, the first that looks like one and so cannot be taken for an option; None for a peer without."""
    return next((ip for ip in peer.tailscale_ips or () if _looks_like_an_ip(ip)), None)


def _looks_like_an_ip(text: str) -> bool:
    return (
        len(text) <= MAX_IP_LENGTH
        and _IP_CHARACTERS.issuperset(text)
        and ("." in text.strip(".") or ":" in text)
    )


def base_name(name: str) -> str:
    """Returns a peer's name without what was put behind it to tell it from others."""
    return name.partition(SEPARATOR)[0]


def _numbered(names: list[str]) -> list[str]:
    """Returns the names, and a number behind each of those that are not the only one of their kind."""
    taken = Counter(names)
    so_far: Counter[str] = Counter()
    numbered: list[str] = []
    for name in names:
        so_far[name] += 1
        numbered.append(name if taken[name] == 1 else f"{name}{SEPARATOR}{so_far[name]}")
    return numbered


def _own_suffix(status: Status) -> str:
    """Returns the tailnet's DNS suffix without dots around it; empty before the first netmap."""
    tailnet = status.current_tailnet.magic_dns_suffix if status.current_tailnet else ""
    return (status.magic_dns_suffix or tailnet or status.self_.dns_name.partition(".")[2]).strip(
        "."
    )


def _plain_name(peer: PeerStatus, own_suffix: str) -> str:
    dns_name = peer.dns_name.removesuffix(".")
    label, _, suffix = dns_name.partition(".")
    is_foreign = (
        bool(suffix and own_suffix)
        and suffix != own_suffix
        and not suffix.endswith("." + own_suffix)
    )
    name = dns_name if is_foreign else label
    return (
        _cut(name, NAME_BUDGET)
        or _cut(peer.host_name, NAME_BUDGET)
        or _cut(peer.id, NAME_BUDGET)
        or "unnamed"
    )


def _cut(text: str, budget: int) -> str:
    """Returns a printable `text` without separators, cut so that it takes at most `budget` bytes when percent-encoded."""
    if len(text) <= budget and text.isascii() and text.replace("-", "").replace(".", "").isalnum():
        return text
    text = printable(text, budget).replace(SEPARATOR, REPLACEMENT)
    length = 0
    for position, character in enumerate(text):
        length += len(quote(character, safe=""))
        if length > budget:
            return text[:position]
    return text
