"""The watchdog's run without a host: an observation in, what the run would have said and done out.

It does what `shell.jobs.watchdog` does, in the same order, with the same `step`; what it has not is a disk, a journal and a
tailscaled. So a fold over a capture is one oneshot run for each observation, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from returns.result import Failure

from tsfc.core.clock import Instant
from tsfc.core.evaluation.observation import Observation
from tsfc.core.faults import Down, Fault
from tsfc.core.tailscale.status import Status, decode
from tsfc.core.watchdog.effects import Effect, Log, RestartTailscaled, Warn
from tsfc.core.watchdog.events import Done, Observed, Outcome, Performed, Unobservable
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import Verdict, step

WARNING = "tsfc watchdog: "
"What the journal has before a line of standard error."


class Run(Struct, frozen=True):
    """One run of the watchdog."""

    now: Instant
    state: State
    "After it."
    lines: tuple[str, ...]
    "As the journal has them, in order."
    verdicts: tuple[Verdict, ...] | None
    "None where no peer could be seen."
    restart: RestartTailscaled | None
    "The restart that it asked for."


def seen(observation: Observation) -> Status | Fault:
    """Returns what an observation tells: the status, or why it tells none, which is also that its status cannot be used."""
    if observation.fault is not None:
        return Down(observation.fault)
    decoded = decode(observation.status)
    return decoded.failure() if isinstance(decoded, Failure) else decoded.unwrap()


def done() -> Outcome:
    """Restarts nothing, and says that it is done: of a recording nobody knows better."""
    return Done()


def run(
    state: State,
    sight: Status | Fault,
    *,
    now: Instant,
    policy: Policy,
    restart: Callable[[], Outcome] = done,
) -> Run:
    """Does one run on the state that the last one left; `restart` is asked once where the decision is to restart."""
    event = Observed(sight) if isinstance(sight, Status) else Unobservable(sight)
    decided = step(state, event, now=now, policy=policy)
    asked = next(
        (effect for effect in decided.effects if isinstance(effect, RestartTailscaled)), None
    )
    if asked is None:
        return Run(now, decided.state, _lines(decided.effects), decided.verdicts, None)
    told = step(decided.state, Performed(asked, restart()), now=now, policy=policy)
    return Run(now, told.state, _lines((*decided.effects, *told.effects)), decided.verdicts, asked)


def _lines(effects: tuple[Effect, ...]) -> tuple[str, ...]:
    return tuple(
        [
            effect.line if isinstance(effect, Log) else WARNING + effect.line
            for effect in effects
            if isinstance(effect, Log | Warn)
        ]
    )
