"""What the watchdog would decide now, what comes next, and what would change that.

There is no second copy of the rules: each answer is what `step` returns, for this
policy or another one.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.tailscale.naming import find
from tsfc.core.tailscale.peers import named
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.policy import Policy, cooldown_left
from tsfc.core.watchdog.state import State, last_restart
from tsfc.core.watchdog.step import Transition, step
from tsfc.core.watchdog.track import Reason, Verdict
from tsfc.core.watchdog.watch import Hold


class Forecast(Struct, frozen=True):
    """The present and the next restart, under one policy."""

    verdicts: tuple[Verdict, ...] | None
    "As a run would give them now; None if no peer can be judged."
    cooldown_seconds: int
    "Seconds for which the cooldown still holds; 0 if it does not."
    restart_seconds: int | None
    "Seconds until the next restart if no path changes; 0 if it is due."
    restart_peer: str | None
    "The peer that causes it."
    hold: Hold | None = None
    "Why no remedy may be applied now."


class WhatIf(Struct, frozen=True):
    """Another policy, and the reason that a peer would get under it now."""

    option: str
    "As on the command line, with its value; `without` if it is removed."
    reason: Reason


def forecast(state: State, observed: Observed, *, now: Instant, policy: Policy) -> Forecast:
    """What a run would decide now about what it observed, and what it would do next."""
    transition = step(state, observed, now=now, policy=policy)
    cooldown = cooldown_left(policy, transition.state, now)
    due = transition.due
    if due is None:
        return Forecast(transition.verdicts, cooldown, None, None, transition.hold)
    return Forecast(transition.verdicts, cooldown, due.at - now.unix, due.peer, transition.hold)


def what_ifs(
    state: State, observed: Observed, name: str, *, now: Instant, policy: Policy
) -> tuple[WhatIf, ...]:
    """The policies under which the verdict on a peer would differ.

    They answer for the same moment as `forecast` with the same arguments.
    For each option it is the nearest value that changes the verdict.
    """
    current = _verdict(step(state, observed, now=now, policy=policy), name)
    if current is None:
        return ()
    found: list[WhatIf] = []
    for option, other in _others(state, observed.status, current, now, policy):
        verdict = _verdict(step(state, observed, now=now, policy=other), name)
        if verdict is not None and verdict.reason is not current.reason:
            found.append(WhatIf(option, verdict.reason))
    return tuple(found)


def _others(
    state: State, status: Status, verdict: Verdict, now: Instant, policy: Policy
) -> Iterable[tuple[str, Policy]]:
    """The policies to try, each with the option that makes it."""
    seconds, name = verdict.relay_seconds, verdict.peer

    # The threshold, right below or above the time on relay.
    if 0 < seconds <= policy.max_relay_seconds:
        threshold = seconds - 1
        yield f"--max-relay-seconds {threshold}", replace(policy, max_relay_seconds=threshold)
    if seconds > policy.max_relay_seconds:
        yield f"--max-relay-seconds {seconds}", replace(policy, max_relay_seconds=seconds)

    # The cooldown, right below or above the time since the restart.
    restarted = last_restart(state)
    if restarted is not None and restarted <= now.unix:
        passed = now.unix - restarted
        cooldown = passed if passed < policy.cooldown_seconds else passed + 1
        yield f"--cooldown-seconds {cooldown}", replace(policy, cooldown_seconds=cooldown)

    # The exclusion, there or not.
    if verdict.is_excluded:
        names = frozenset(given for given in policy.excluded if name in _meant(status, given))
        options = " ".join(f"--exclude-peer {given}" for given in sorted(names))
        yield f"without {options}", replace(policy, excluded=policy.excluded - names)
    else:
        yield f"--exclude-peer {name}", replace(policy, excluded=policy.excluded | {name})


def _meant(status: Status, given: str) -> set[str]:
    return {peer.name for peer in find(named(status), given)}


def _verdict(transition: Transition, name: str) -> Verdict | None:
    verdicts = transition.verdicts or ()
    return next((verdict for verdict in verdicts if verdict.peer == name), None)
