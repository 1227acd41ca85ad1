"""What the watchdog would decide now, what comes next, and what would change that.

There is no second copy of the rules: each answer is what `step` returns, for this
policy or another one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.tailscale.naming import find
from tsfc.core.tailscale.peers import named
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.decision import Due
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.policy import GuardedPolicy, Policy, ThresholdPolicy, cooldown_left
from tsfc.core.watchdog.remedy import Remedy
from tsfc.core.watchdog.state import ATTEMPT_LIMIT, State, last_restart
from tsfc.core.watchdog.step import Transition, step
from tsfc.core.watchdog.track import Reason, Verdict
from tsfc.core.watchdog.watch import Hold


class Forecast(Struct, frozen=True):
    """The present and the next restart, under one policy."""

    verdicts: tuple[Verdict, ...] | None
    "As a run would give them now; None if no peer can be judged."
    cooldown_seconds: int
    "Seconds for which the cooldown still holds; 0 if it does not."
    due: Due | None
    "The next attempt, if no path changes; None if there is none, or it is unknown."
    hold: Hold | None = None
    "Why no remedy may be applied now."


class WhatIf(Struct, frozen=True):
    """Another policy, and the reason that a peer would get under it now."""

    option: str
    "As on the command line, with its value; `without` if it is removed."
    reason: Reason
    due: Due | None = None
    "The next attempt under that policy; see `Forecast.due`."


PASSIVE = frozenset({Reason.WAITING, Reason.EXCLUDED, Reason.NEVER_DIRECT, Reason.PATIENT})
"Reasons for which a peer on relay asks for no attempt yet."


def forecast(state: State, observed: Observed, *, now: Instant, policy: Policy) -> Forecast:
    """What a run would decide now about what it observed, and what it would do next."""
    transition = step(state, observed, now=now, policy=policy)
    cooldown = cooldown_left(policy, transition.state, now)
    return Forecast(transition.verdicts, cooldown, transition.due, transition.hold)


def what_ifs(
    state: State, observed: Observed, name: str, *, now: Instant, policy: Policy
) -> tuple[WhatIf, ...]:
    """The policies under which the verdict on a peer would differ.

    A verdict differs, too, if another remedy is due. For each option it is the nearest
    value that makes a difference. The moment is that of a `forecast` with the same
    arguments.
    """

    def run(other: Policy) -> Transition:
        return step(state, observed, now=now, policy=other)

    present = run(policy)
    verdict = _verdict(present, name)
    if verdict is None:
        return ()

    def under(other: Policy, option: str = "") -> WhatIf:
        transition = run(other)
        changed = _verdict(transition, name) or verdict
        return WhatIf(option, changed.reason, transition.due)

    def reason_under(other: Policy) -> Reason:
        return under(other).reason

    others = [
        *_thresholds(verdict, policy, reason_under),
        *_cooldowns(state, now, policy),
        *_exclusions(verdict, observed.status, policy),
    ]
    if isinstance(policy, GuardedPolicy):
        others += [*_remedies(policy), *_budgets(verdict, policy, reason_under)]
    found = [under(other, option) for option, other in others]
    if isinstance(policy, GuardedPolicy) and not verdict.is_excluded:
        documented = under(_documented(policy), "--policy documented")
        found += [documented] if _is_sooner(documented, present) else []
    return tuple(
        what_if
        for what_if in found
        if what_if.reason is not verdict.reason
        or (what_if.reason is Reason.RESTART and _remedy(what_if.due) is not _remedy(present.due))
    )


_Others = Iterable[tuple[str, Policy]]
"Policies to try, each with the option that makes it."


def _thresholds(
    verdict: Verdict, policy: Policy, reason_under: Callable[[Policy], Reason]
) -> _Others:
    """The nearest threshold that makes the peer passive, or active."""
    seconds, threshold = verdict.relay_seconds, policy.max_relay_seconds
    is_passive = verdict.reason in PASSIVE
    nearest = _nearest(
        range(min(seconds, threshold) - 1, -1, -1)
        if is_passive
        else range(threshold + 1, seconds + 1),
        lambda value: (
            (reason_under(replace(policy, max_relay_seconds=value)) in PASSIVE) != is_passive
        ),
    )
    if nearest is not None:
        yield f"--max-relay-seconds {nearest}", replace(policy, max_relay_seconds=nearest)


def _cooldowns(state: State, now: Instant, policy: Policy) -> _Others:
    """The cooldown right below or above the time since the restart."""
    restarted = last_restart(state)
    if restarted is not None and restarted <= now.unix:
        passed = now.unix - restarted
        cooldown = passed if passed < policy.cooldown_seconds else passed + 1
        yield f"--cooldown-seconds {cooldown}", replace(policy, cooldown_seconds=cooldown)


def _exclusions(verdict: Verdict, status: Status, policy: Policy) -> _Others:
    """The exclusion, there or not."""
    name = verdict.peer
    if verdict.is_excluded:
        names = frozenset(given for given in policy.excluded if name in _meant(status, given))
        options = " ".join(f"--exclude-peer {given}" for given in sorted(names))
        yield f"without {options}", replace(policy, excluded=policy.excluded - names)
    elif verdict.reason is not Reason.NEVER_DIRECT:
        yield f"--exclude-peer {name}", replace(policy, excluded=policy.excluded | {name})


def _remedies(policy: GuardedPolicy) -> _Others:
    """All remedies; or the restart alone, if all are allowed."""
    has_all = set(policy.remedies) == set(Remedy)
    remedies = (Remedy.RESTART,) if has_all else tuple(Remedy)
    yield f"--remedies {','.join(remedies)}", replace(policy, remedies=remedies)


def _budgets(
    verdict: Verdict, policy: GuardedPolicy, reason_under: Callable[[Policy], Reason]
) -> _Others:
    """The nearest budget that lets a remedy pass, or holds it back."""
    is_held = verdict.reason is Reason.HELD
    nearest = _nearest(
        range(policy.budget + 1, ATTEMPT_LIMIT + 1)
        if is_held
        else range(policy.budget - 1, -1, -1),
        lambda value: reason_under(replace(policy, budget=value)) is not verdict.reason,
    )
    if nearest is not None:
        yield f"--budget {nearest}", replace(policy, budget=nearest)


def _documented(policy: GuardedPolicy) -> ThresholdPolicy:
    """The documented policy with the options that both have."""
    return ThresholdPolicy(policy.max_relay_seconds, policy.cooldown_seconds, policy.excluded)


def _is_sooner(what_if: WhatIf, present: Transition) -> bool:
    """Whether the next attempt would come sooner. What is held back has no time.

    A change of policy starts the relay of each peer again, so a peer is just DETECTED.
    """
    if what_if.reason is not Reason.DETECTED or what_if.due is None or present.hold is not None:
        return False
    return present.due is None or what_if.due.at < present.due.at


def _nearest(values: range, changes: Callable[[int], bool]) -> int | None:
    """The first value that changes something; None if none does.

    A value after one that changes something does, too.
    """
    index = bisect_left(values, True, key=changes)
    return values[index] if index < len(values) else None


def _meant(status: Status, given: str) -> set[str]:
    return {peer.name for peer in find(named(status), given)}


def _remedy(due: Due | None) -> Remedy | None:
    return None if due is None else due.remedy


def _verdict(transition: Transition, name: str) -> Verdict | None:
    verdicts = transition.verdicts or ()
    return next((verdict for verdict in verdicts if verdict.peer == name), None)
