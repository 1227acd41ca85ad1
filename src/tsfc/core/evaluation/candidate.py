"""What a comparison compares: the policies of the watchdog, and their bounds."""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never

from tsfc.core.clock import MAX_NUMBER
from tsfc.core.watchdog.policy import GuardedPolicy, Policy, ThresholdPolicy, name
from tsfc.core.watchdog.remedy import Remedy


class Bound(StrEnum):
    """The worst and the best that a policy can do for paths. No watchdog runs them."""

    NONE = "none"
    "Never acts."
    ORACLE = "oracle"
    "Knows the faults and cures each at once, without harm; only in a simulation."


Candidate = Policy | Bound
"Everything that can be compared."

NAMES = ("none", "documented", "guarded", "oracle")
"Values of `policy` in a comparison."

_WATCHING = ThresholdPolicy(max_relay_seconds=MAX_NUMBER)


def named(base: Policy, chosen: str) -> Candidate | None:
    """Return the candidate of a name, with the options of `base` that it has too.

    None if there is no such candidate.
    """
    match chosen:
        case "documented":
            return ThresholdPolicy(base.max_relay_seconds, base.cooldown_seconds, base.excluded)
        case "guarded" if isinstance(base, GuardedPolicy):
            return base
        case "guarded":
            return GuardedPolicy(base.max_relay_seconds, base.cooldown_seconds, base.excluded)
        case "none" | "oracle":
            return Bound(chosen)
        case _:
            return None


def watching(candidate: Candidate) -> Policy:
    """Return the policy that the watchdog runs. Under a bound, it only watches."""
    return _WATCHING if isinstance(candidate, Bound) else candidate


def text(candidate: Candidate) -> str:
    """Format a candidate as its name and its options."""
    if isinstance(candidate, Bound):
        return candidate.value
    excluded = "".join(f" exclude-peer={peer}" for peer in sorted(candidate.excluded))
    common = (
        f"{name(candidate)} max-relay-seconds={candidate.max_relay_seconds}"
        f" cooldown-seconds={candidate.cooldown_seconds}"
    )
    match candidate:
        case ThresholdPolicy():
            return common + excluded
        case GuardedPolicy():
            return f"{common} budget={candidate.budget}{_remedies(candidate)}{excluded}"
        case _ as never:
            assert_never(never)


def as_object(candidate: Candidate) -> dict[str, object]:
    """Return a candidate as an object for JSON, with its name under `policy`."""
    if isinstance(candidate, Bound):
        return {"policy": candidate.value}
    common: dict[str, object] = {
        "policy": name(candidate),
        "max_relay_seconds": candidate.max_relay_seconds,
        "cooldown_seconds": candidate.cooldown_seconds,
        "exclude_peers": sorted(candidate.excluded),
    }
    match candidate:
        case ThresholdPolicy():
            return common
        case GuardedPolicy():
            return {
                **common,
                "remedies": [remedy.value for remedy in candidate.remedies],
                "budget": candidate.budget,
                "known_direct_days": candidate.known_direct_days,
                "discount": candidate.discount,
                "half_life_days": candidate.half_life_days,
            }
        case _ as never:
            assert_never(never)


def _remedies(policy: GuardedPolicy) -> str:
    """The option `remedies`, unless it has its default."""
    if policy.remedies == (Remedy.RESTART,):
        return ""
    return f" remedies={','.join(policy.remedies)}"
