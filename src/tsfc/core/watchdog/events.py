"""Events: what happened, as input to the decision."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from tsfc.core.clock import Seconds
from tsfc.core.faults import Fault
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.dataplane import Probe
from tsfc.core.watchdog.remedy import Attempt, Outcome


class Observed(Struct, frozen=True):
    """tailscaled returned its status."""

    status: Status
    tailscaled_start: Seconds | None = None
    "Unix time when tailscaled started; None if unknown."
    is_paused: bool = False
    "The pause file of the policy exists."
    probes: Mapping[str, Probe] = {}
    "What became of the pings to the `dataplane.suspects`, by name."


class Unobservable(Struct, frozen=True):
    """No status could be read."""

    fault: Fault
    is_paused: bool = False
    "As in `Observed`."


class Asking(Struct, frozen=True):
    """The command of an attempt is about to run."""

    attempt: Attempt


class Performed(Struct, frozen=True):
    """The command of an attempt has ended."""

    attempt: Attempt
    outcome: Outcome


Event = Observed | Unobservable | Asking | Performed
