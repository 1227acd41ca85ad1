"""Which peers a user means by a name.

People name a peer as the label `peer` does, by its FQDN, its host name, a Tailscale IP,
or its StableNodeID. Upper and lower case are the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from tsfc.core.tailscale.peers import SEPARATOR, Peer, base_name, named
from tsfc.core.tailscale.status import PeerStatus, Status


class Matches(Struct, frozen=True):
    """The peers that a list of names means."""

    peers: frozenset[str] = frozenset()
    "Unique names of the peers."
    unmatched: tuple[str, ...] = ()
    "The given names that mean no peer, sorted."


NOBODY = Matches()


def find(peers: Iterable[Peer], name: str) -> tuple[Peer, ...]:
    """Return the peers that a name means.

    A unique name means that peer alone. `rpi3` also means `rpi3#nABC`, of which there
    is one for each peer called `rpi3`. `rpi3#nABC` still means that peer when it is
    the only one called `rpi3`. A host name counts last, because it is not unique and
    its owner can change it at will.
    """
    wanted = name.casefold()
    if not wanted:
        return ()
    known = tuple(peers)
    for names in (_unique_name, _identifiers, _host_name):
        found = tuple(peer for peer in known if wanted in names(peer))
        if found:
            return found
    return ()


def match(peers: tuple[Peer, ...], own: PeerStatus, names: Iterable[str]) -> Matches:
    """Return the peers that the names mean, and the names that mean none.

    The node itself, `own`, counts as known: the nodes of a tailnet can share one list.
    """
    node = (_node(own),)
    found: set[str] = set()
    unmatched: list[str] = []
    for name in sorted(names):
        matching = find(peers, name)
        found.update(peer.name for peer in matching)
        if not matching and not find(node, name):
            unmatched.append(name)
    return Matches(frozenset(found), tuple(unmatched))


def find_node(status: Status, name: str) -> tuple[Peer, ...]:
    """Return the peers that a name means, as `find` does, or the node itself.

    The node is the one whose `status` is `status.self_`. A node key is a name, too.
    """
    peers = named(status)
    by_key = (status.peer or {}).get(name)
    if by_key is not None:
        return tuple(peer for peer in peers if peer.status is by_key)
    return find((*peers, _node(status.self_)), name)


def _node(own: PeerStatus) -> Peer:
    """Return the node itself under its name in MagicDNS."""
    return Peer(own.dns_name.partition(".")[0], own)


def _unique_name(peer: Peer) -> tuple[str, ...]:
    return (peer.name.casefold(),)


def _identifiers(peer: Peer) -> tuple[str, ...]:
    status = peer.status
    fqdn = status.dns_name.removesuffix(".")
    return tuple(
        text.casefold()
        for text in (
            base_name(peer.name),
            f"{base_name(peer.name)}{SEPARATOR}{status.id}",
            fqdn,
            fqdn and f"{fqdn}.",
            *(status.tailscale_ips or ()),
            status.id,
        )
        if text
    )


def _host_name(peer: Peer) -> tuple[str, ...]:
    return (peer.status.host_name.casefold(),)
