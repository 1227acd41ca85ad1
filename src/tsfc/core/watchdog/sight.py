"""What a policy takes as evidence of a peer's path."""

from __future__ import annotations

from enum import StrEnum

from tsfc.core.tailscale.paths import Path, active_path, has_direct_address
from tsfc.core.tailscale.status import PeerStatus

PHONES = frozenset({"iOS", "android"})
"""`OS` of devices that sleep while they are online.

Their path says nothing about this node's.
"""


class Sight(StrEnum):
    """What one look at a peer tells about its path."""

    DIRECT = "direct"
    RELAY = "relay"
    UNKNOWN = "unknown"
    "The look is no evidence for either."


def by_address(peer: PeerStatus) -> Sight:
    """The sight of `ThresholdPolicy`: the direct address alone decides."""
    return Sight.DIRECT if has_direct_address(peer) else Sight.RELAY


def by_evidence(peer: PeerStatus) -> Sight:
    """The sight of `GuardedPolicy`: on relay only if packets go through DERP.

    Unknown are idle peers, peers behind a peer relay, peers without any path, and
    phones.
    """
    if peer.os in PHONES:
        return Sight.UNKNOWN
    if has_direct_address(peer):
        return Sight.DIRECT
    return Sight.RELAY if active_path(peer) is Path.DERP else Sight.UNKNOWN
