"""What the tests of the watchdog share: a fixed time, and short ways to say what was seen and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from support.statuses import decoded, peer
from tsfc.core.clock import Instant
from tsfc.core.faults import Down
from tsfc.core.watchdog.effects import Log, RestartTailscaled
from tsfc.core.watchdog.events import Event, Observed, Unobservable
from tsfc.core.watchdog.policy import Policy, ThresholdPolicy
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import Reason, Transition

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


def restarts(transition: Transition) -> tuple[RestartTailscaled, ...]:
    """Returns the restarts that are asked for."""
    return tuple(effect for effect in transition.effects if isinstance(effect, RestartTailscaled))


def rows(before: State, transition: Transition) -> set[str]:
    """Returns the rows of the table that a run took."""
    if transition.verdicts is None:
        return {"unobservable"}
    judged = {verdict.peer for verdict in transition.verdicts}
    taken: set[str] = {verdict.reason for verdict in transition.verdicts}
    return taken | {"forgotten"} if before.relay_since.keys() - judged else taken
