"""What the watchdog would say now, and what it would do next if nothing changed.

There is no second copy of its rules here: each answer is what `step` does with another time or another policy. That a restart
which is due stays due is all that is taken for granted (`tests/core/watchdog` holds it), so the first such time is found by halving.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.tailscale.peers import base_name
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.effects import RestartTailscaled
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.policy import ThresholdPolicy, is_excluded
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import Reason, Transition, Verdict, cooldown_left, step

HORIZON_SECONDS = 2**32
"How far is looked ahead: more than the longest threshold and the longest cooldown together."


class Forecast(Struct, frozen=True):
    """What is and what comes, under one policy."""

    verdicts: tuple[Verdict, ...] | None
    "As a run would give them now; None where no peer can be judged."
    cooldown_seconds: int
    "For how long the cooldown still holds; 0 where it does not."
    restart_seconds: int | None
    "Until the next restart, if each peer stays on the path that it is on; 0 for one that is due. None where none would come."
    restart_peer: str | None
    "Whose relay causes it."


class WhatIf(Struct, frozen=True):
    """Another policy, and what it would make of a peer now."""

    option: str
    "As on the command line, with its value; one that would have to go has `without` before it."
    reason: Reason


def forecast(state: State, status: Status, *, now: Instant, policy: ThresholdPolicy) -> Forecast:
    """Returns what the watchdog would say of a status, were this the moment of its next run, and what it would do next."""
    decided = _run(state, status, now, policy)
    left = cooldown_left(decided.state, now, policy)
    if decided.verdicts is None:
        return Forecast(None, left, None, None)
    due = _restart_of(decided)
    if due is not None:
        return Forecast(decided.verdicts, left, 0, due)

    def later(seconds: int) -> str | None:
        return _restart_of(_run(decided.state, status, Instant(now.unix + seconds), policy))

    if later(HORIZON_SECONDS) is None:
        return Forecast(decided.verdicts, left, None, None)
    early, late = 0, HORIZON_SECONDS
    while late - early > 1:
        middle = (early + late) // 2
        early, late = (early, middle) if later(middle) is not None else (middle, late)
    return Forecast(decided.verdicts, left, late, later(late))


def what_ifs(
    state: State, status: Status, name: str, *, now: Instant, policy: ThresholdPolicy
) -> tuple[WhatIf, ...]:
    """Returns the policies beside this one under which the verdict on a peer would be another: of each option the nearest value."""
    current = _verdict(_run(state, status, now, policy), name)
    if current is None:
        return ()
    found: list[WhatIf] = []
    for option, other in _others(state, current, now, policy):
        verdict = _verdict(_run(state, status, now, other), name)
        if verdict is not None and verdict.reason is not current.reason:
            found.append(WhatIf(option, verdict.reason))
    return tuple(found)


def _others(
    state: State, verdict: Verdict, now: Instant, policy: ThresholdPolicy
) -> Iterable[tuple[str, ThresholdPolicy]]:
    seconds, name = verdict.relay_seconds, verdict.peer
    if 0 < seconds <= policy.max_relay_seconds:
        yield f"--max-relay-seconds {seconds - 1}", replace(policy, max_relay_seconds=seconds - 1)
    if seconds > policy.max_relay_seconds:
        yield f"--max-relay-seconds {seconds}", replace(policy, max_relay_seconds=seconds)
    if state.last_restart is not None and state.last_restart <= now.unix:
        passed = now.unix - state.last_restart
        other = passed if passed < policy.cooldown_seconds else passed + 1
        yield f"--cooldown-seconds {other}", replace(policy, cooldown_seconds=other)
    if is_excluded(policy, name):
        yield (
            f"without --exclude-peer {base_name(name)}",
            replace(policy, excluded=policy.excluded - {name, base_name(name)}),
        )
    else:
        yield f"--exclude-peer {name}", replace(policy, excluded=policy.excluded | {name})


def _run(state: State, status: Status, now: Instant, policy: ThresholdPolicy) -> Transition:
    return step(state, Observed(status), now=now, policy=policy)


def _restart_of(decided: Transition) -> str | None:
    return next(
        (effect.peer for effect in decided.effects if isinstance(effect, RestartTailscaled)), None
    )


def _verdict(decided: Transition, name: str) -> Verdict | None:
    return next((verdict for verdict in decided.verdicts or () if verdict.peer == name), None)
