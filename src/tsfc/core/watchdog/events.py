"""What happened: the decision's input, in the past tense."""

from __future__ import annotations

from msgspec import Struct

from tsfc.core.faults import Fault
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.effects import RestartTailscaled


class Observed(Struct, frozen=True):
    """tailscaled told its status."""

    status: Status


class Unobservable(Struct, frozen=True):
    """Nothing could be seen."""

    fault: Fault


class Done(Struct, frozen=True, tag=True):
    """The effect was performed."""


class Failed(Struct, frozen=True, tag=True):
    """The effect was tried, and failed."""

    detail: str
    "One line: what was tried, what went wrong, what to do."


Outcome = Done | Failed


class Performed(Struct, frozen=True):
    """An effect that the last transition asked for was tried."""

    effect: RestartTailscaled
    outcome: Outcome


Event = Observed | Unobservable | Performed
