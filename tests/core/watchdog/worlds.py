"""What the tests of the watchdog share: a fixed time, and short ways to say what was seen and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from support.statuses import decoded, peer
from tsfc.core.clock import Instant
from tsfc.core.faults import Down
from tsfc.core.watchdog.effects import Apply, Effect, Log, Warn
from tsfc.core.watchdog.events import Event, Observed, Unobservable
from tsfc.core.watchdog.policy import Policy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Attempt, Stage
from tsfc.core.watchdog.state import State, last_restart, pending, restart_at
from tsfc.core.watchdog.step import Transition
from tsfc.core.watchdog.track import Reason

T0 = 1_700_000_000
NOW = Instant(T0)
POLICY = ThresholdPolicy()

DOWN = Unobservable(Down("asking tailscaled: connection refused; is it running?"))
STOPPED = Observed(decoded(peer("rpi3"), BackendState="Stopped"))

ROWS: frozenset[str] = frozenset({*Reason, "forgotten", "unobservable"})
"The rows of the table: each verdict, a peer that is remembered and not watched any more, and nothing to be seen."


class Step(Protocol):
    """`step`, or something that pretends to be it."""

    def __call__(self, state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        """Decides."""
        ...


def seen(*peers: Mapping[str, Any]) -> Observed:
    """Returns the event of a running tailscaled with these peers."""
    return Observed(decoded(*map(dict, peers)))


def relayed(name: str, **fields: Any) -> dict[str, Any]:
    """Returns a peer that is reached through DERP."""
    return peer(name, "derp", **fields)


def lines(transition: Transition) -> tuple[str, ...]:
    """Returns what is said of peers."""
    return tuple(effect.line for effect in transition.effects if isinstance(effect, Log))


def restarts(transition: Transition) -> tuple[Apply, ...]:
    """The restarts that are asked for."""
    return tuple(effect for effect in transition.effects if isinstance(effect, Apply))


class Restart(Struct, frozen=True):
    """The restart that an effect asks for."""

    peer: str


def effects(transition: Transition) -> tuple[Log | Warn | Restart, ...]:
    """The effects, with a restart reduced to the peer that causes it."""
    return tuple(map(_reduced, transition.effects))


def _reduced(effect: Effect) -> Log | Warn | Restart:
    return Restart(effect.attempt.peer) if isinstance(effect, Apply) else effect


class Remembered(Struct, frozen=True):
    """A state, with its attempts reduced to what the documented policy needs of them."""

    relay_since: Mapping[str, int] = {}
    last_restart: int | None = None
    restarts: int = 0
    restart_failures: int = 0
    detections: int = 0
    recoveries: int = 0
    restart_pending: bool = False
    last_success: int | None = None
    last_run: Instant | None = None


def remembered(state: State) -> Remembered:
    """Reduce a state."""
    return Remembered(
        state.relay_since,
        last_restart(state),
        state.restarts,
        state.restart_failures,
        state.detections,
        state.recoveries,
        pending(state) is not None,
        state.last_success,
        state.last_run,
    )


def remembering(
    relay_since: Mapping[str, int] | None = None,
    *,
    last_restart: int | None = None,
    restart_pending: bool = False,
    **fields: Any,
) -> State:
    """A state with one restart, at that time. If it is pending, it was asked for."""
    attempts: tuple[Attempt, ...] = () if last_restart is None else (restart_at(last_restart),)
    if restart_pending:
        attempts = tuple(replace(attempt, stage=Stage.ASKED) for attempt in attempts)
    return State(relay_since or {}, attempts, **fields)


def rows(before: State, transition: Transition) -> set[str]:
    """Returns the rows of the table that a run took."""
    if transition.verdicts is None:
        return {"unobservable"}
    judged = {verdict.peer for verdict in transition.verdicts}
    taken: set[str] = {verdict.reason for verdict in transition.verdicts}
    return taken | {"forgotten"} if before.relay_since.keys() - judged else taken
