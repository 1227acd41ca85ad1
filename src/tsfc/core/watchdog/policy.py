"""The rules of the watchdog that an operator can choose."""

from __future__ import annotations

from msgspec import Struct

from tsfc.core.clock import Instant
from tsfc.core.watchdog.state import State, last_restart


class ThresholdPolicy(Struct, frozen=True, tag="threshold"):
    """Restart tailscaled when a peer has had no direct address for too long."""

    max_relay_seconds: int = 600
    "A peer on relay for longer than this causes a restart."
    cooldown_seconds: int = 600
    "Time after a restart in which there is no other."
    excluded: frozenset[str] = frozenset()
    "Names, as for `naming.find`, of peers that are watched and never cause a restart."


Policy = ThresholdPolicy
"Every policy: a closed union, with one member so far. `step` has a case for each."


def cooldown_left(policy: Policy, state: State, now: Instant) -> int:
    """Seconds for which the cooldown still holds; 0 if it does not."""
    restarted = last_restart(state)
    if restarted is None:
        return 0
    return max(0, policy.cooldown_seconds - (now.unix - restarted))
