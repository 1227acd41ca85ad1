"""Helpers of the watchdog's tests: a fixed time, events, and views of results."""

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
from tsfc.core.watchdog.state import Relay, State, last_restart, pending, restart_at
from tsfc.core.watchdog.step import Transition
from tsfc.core.watchdog.track import ONLY_GUARDED, Reason

T0 = 1_700_000_000
NOW = Instant(T0)
POLICY = ThresholdPolicy()

DOWN = Unobservable(Down("asking tailscaled: connection refused; is it running?"))
STOPPED = Observed(decoded(peer("rpi3"), BackendState="Stopped"))

ROWS: frozenset[str] = frozenset({*Reason, "forgotten", "unobservable"}) - ONLY_GUARDED
"""Rows of the documented policy's table.

One for each verdict, one for a peer that is no longer watched, and one for a run that
cannot observe peers.
"""


class Step(Protocol):
    """Signature of `step`, also for the broken versions of it."""

    def __call__(self, state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        """Return the transition for one event."""
        ...


def observation(*peers: Mapping[str, Any]) -> Observed:
    """Event of a running tailscaled with these peers."""
    return Observed(decoded(*map(dict, peers)))


def derp_peer(name: str, **fields: Any) -> dict[str, Any]:
    """Peer that is reached through DERP."""
    return peer(name, "derp", **fields)


def lines(transition: Transition) -> tuple[str, ...]:
    """Log lines about peers."""
    return tuple(effect.line for effect in transition.effects if isinstance(effect, Log))


def restarts(transition: Transition) -> tuple[Apply, ...]:
    """Effects that restart tailscaled."""
    return tuple(effect for effect in transition.effects if isinstance(effect, Apply))


class Restart(Struct, frozen=True):
    """Effect that restarts tailscaled, with nothing but the peer that causes it."""

    peer: str


def effects(transition: Transition) -> tuple[Log | Warn | Restart, ...]:
    """Effects, with each `Apply` reduced to a `Restart`."""
    return tuple(map(_reduce, transition.effects))


def _reduce(effect: Effect) -> Log | Warn | Restart:
    return Restart(effect.attempt.peer) if isinstance(effect, Apply) else effect


class Summary(Struct, frozen=True):
    """State, with the attempts reduced to the facts that the threshold policy uses."""

    relay_since: Mapping[str, int] = {}
    last_restart: int | None = None
    restarts: int = 0
    restart_failures: int = 0
    detections: int = 0
    recoveries: int = 0
    restart_pending: bool = False
    last_success: int | None = None
    last_run: Instant | None = None


def summarize(state: State) -> Summary:
    """Return the summary of a state."""
    return Summary(
        {name: relay.since for name, relay in state.relays.items()},
        last_restart(state),
        state.restarts,
        state.restart_failures,
        state.detections,
        state.recoveries,
        pending(state) is not None,
        None if state.last_success is None else state.last_success.unix,
        state.last_run,
    )


def make_state(
    relay_since: Mapping[str, int] | None = None,
    *,
    last_restart: int | None = None,
    restart_pending: bool = False,
    last_success: int | Instant | None = None,
    **fields: Any,
) -> State:
    """Return a state, with at most one attempt.

    The attempt is a restart at `last_restart`. It is at the stage `DONE`, or `ASKED` if
    `restart_pending`.
    """
    attempts: tuple[Attempt, ...] = () if last_restart is None else (restart_at(last_restart),)
    if restart_pending:
        attempts = tuple(replace(attempt, stage=Stage.ASKED) for attempt in attempts)
    relays = {name: Relay(since) for name, since in (relay_since or {}).items()}
    seen = Instant(last_success) if isinstance(last_success, int) else last_success
    return State(relays, attempts, last_success=seen, **fields)


def rows(before: State, transition: Transition) -> set[str]:
    """Rows of the policy's table that apply to a run."""
    if transition.verdicts is None:
        return {"unobservable"}
    peers = {verdict.peer for verdict in transition.verdicts}
    reasons: set[str] = {verdict.reason for verdict in transition.verdicts}
    return reasons | {"forgotten"} if before.relays.keys() - peers else reasons
