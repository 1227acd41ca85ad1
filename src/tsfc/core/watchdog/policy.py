"""What the operator may choose about the watchdog's decision."""

from __future__ import annotations

from msgspec import Struct

from tsfc.core.tailscale.peers import base_name


class ThresholdPolicy(Struct, frozen=True):
    """The documented policy: a peer that has no direct address for longer than the threshold has tailscaled restarted."""

    max_relay_seconds: int = 600
    "On relay for more than this is too long."
    cooldown_seconds: int = 600
    "For so long after a restart there is no other."
    excluded: frozenset[str] = frozenset()
    "Peers, by name, that are watched and never the cause of a restart."


Policy = ThresholdPolicy
"All policies there are: a closed union, of one member so far. Each member has its case in `step`."


def is_excluded(policy: ThresholdPolicy, name: str) -> bool:
    """Reports whether the peer is excluded: under its name, or under the name that it had to share (`rpi3` covers `rpi3#nABC`)."""
    return name in policy.excluded or base_name(name) in policy.excluded
