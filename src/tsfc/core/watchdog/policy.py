"""The policies of the watchdog that an operator can choose, and their limits."""

from __future__ import annotations

from itertools import takewhile
from typing import assert_never

from msgspec import Struct

from tsfc.core.clock import Instant
from tsfc.core.watchdog.memory import DAY_SECONDS
from tsfc.core.watchdog.remedy import Attempt, Remedy
from tsfc.core.watchdog.state import State

EXPERIMENT_SECONDS = 300
"Time in which a remedy of `GuardedPolicy` has to help."


class ThresholdPolicy(Struct, frozen=True, tag="documented"):
    """Restart tailscaled when a peer has had no direct address for too long."""

    max_relay_seconds: int = 600
    "A peer on relay for longer than this causes a restart."
    cooldown_seconds: int = 600
    "Time after a restart in which there is no other."
    excluded: frozenset[str] = frozenset()
    "Names, as for `naming.find`, of peers that are watched and never cause a restart."


class GuardedPolicy(Struct, frozen=True, tag="guarded"):
    """Apply a remedy where the evidence says that it will help. See `guarded`."""

    max_relay_seconds: int = 600
    "Time on relay that a remedy which certainly helps is worth."
    cooldown_seconds: int = 600
    "Shortest time after an attempt in which there is no other."
    excluded: frozenset[str] = frozenset()
    "As in `ThresholdPolicy`."
    remedies: tuple[Remedy, ...] = (Remedy.RESTART,)
    "What may be done. Of two that are worth it equally soon, the first one is."
    budget: int = 6
    """Maximum number of attempts in 24 hours that did not help.

    One that helped costs nothing: the same peer may need it again within the day. Nor
    does a command that failed and left tailscaled running.
    """
    known_direct_days: int = 7
    "A peer that was not direct for longer never causes an attempt."
    discount: float = 0.05
    """Factor of the expected benefit for each remedy that just failed to help.

    Between 0 and 1. The smaller it is, the longer the next attempt waits.
    """
    half_life_days: float = 14.0
    "Time in which the record of a remedy loses half of its weight."
    pause_file: str = "/run/tailscale-watchdog/pause"
    "While this file exists, nothing is done."


Policy = ThresholdPolicy | GuardedPolicy
"Every policy: a closed union. `step` has a case for each."


def name(policy: Policy) -> str:
    """The name of a policy, as in `--policy`."""
    match policy:
        case ThresholdPolicy():
            return "documented"
        case GuardedPolicy():
            return "guarded"
        case _ as never:
            assert_never(never)


def pause_file(policy: Policy) -> str | None:
    """The file that pauses the watchdog while it exists; None if none does."""
    match policy:
        case ThresholdPolicy():
            return None
        case GuardedPolicy():
            return policy.pause_file
        case _ as never:
            assert_never(never)


def cooldown_seconds(policy: Policy, attempt: Attempt) -> int:
    """How long the cooldown after an attempt lasts."""
    match policy:
        case ThresholdPolicy():
            return policy.cooldown_seconds
        case GuardedPolicy():
            drawn = attempt.cooldown_seconds
            return max(EXPERIMENT_SECONDS, policy.cooldown_seconds if drawn is None else drawn)
        case _ as never:
            assert_never(never)


def cooldown_left(policy: Policy, state: State, now: Instant) -> int:
    """Seconds for which the cooldown still holds; 0 if it does not."""
    if not state.attempts:
        return 0
    last = state.attempts[-1]
    seconds = cooldown_seconds(policy, last)
    if isinstance(policy, GuardedPolicy):
        seconds = _backed_off(seconds, state.attempts)
    return max(0, seconds - (now.unix - last.at))


def _backed_off(cooldown: int, attempts: tuple[Attempt, ...]) -> int:
    """The cooldown after commands that failed in a row, and did no harm.

    The second and each later one doubles it, up to a day. So a command that never works
    is tried less often than the budget allows, and one that works again is found before
    the time of the failures has doubled.
    """
    failures = sum(1 for _ in takewhile(lambda attempt: attempt.is_harmless, reversed(attempts)))
    return max(cooldown, min(cooldown << max(0, failures - 1), DAY_SECONDS))
