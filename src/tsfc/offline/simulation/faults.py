"""Faults that keep a peer on relay, and what cures them."""

from __future__ import annotations

from msgspec import Struct

from tsfc.core.watchdog.remedy import Remedy
from tsfc.offline.simulation.scenario import Stuck


class StuckFault(Struct):
    """A `stuck` event while it lasts."""

    event: Stuck
    is_cured: bool = False
    has_ended: bool = False

    def remedy(self) -> Remedy | None:
        """What this node can do about it; None if nothing, or nothing is needed."""
        is_near = self.event.side == "near" and self.event.restart != "nothing"
        return Remedy.RESTART if is_near and not self.is_cured else None


class PortFault(Struct):
    """A `blocked-port` or `stuck-nat` event while it lasts."""

    port: int
    "The UDP port of this node that does not work."
    blocks_stun: bool = False
    "The node does not learn its public address, either."
    is_cured: bool = False

    def remedy(self) -> Remedy | None:
        """See `StuckFault.remedy`."""
        return None if self.is_cured else Remedy.OTHER_PORT


Fault = StuckFault | PortFault


def cures(remedy: Remedy, fault: Fault) -> bool:
    """Whether a remedy cures a fault. Another port needs a restart, so it does more."""
    return fault.remedy() in {Remedy.RESTART, remedy}


def remedy_for(faults: list[Fault]) -> Remedy | None:
    """Return the remedy that cures all faults; None if there is none, or no fault."""
    remedies = {fault.remedy() for fault in faults if not fault.is_cured}
    if not remedies or None in remedies:
        return None
    return Remedy.OTHER_PORT if Remedy.OTHER_PORT in remedies else Remedy.RESTART
