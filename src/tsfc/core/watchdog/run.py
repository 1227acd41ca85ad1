"""The record of one run of the watchdog."""

from __future__ import annotations

from msgspec import Struct

from tsfc.core.clock import Instant
from tsfc.core.faults import Fault
from tsfc.core.watchdog.effects import Effect
from tsfc.core.watchdog.remedy import Attempt
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.track import Verdict


class Run(Struct, frozen=True):
    """What one run observed, decided and did."""

    now: Instant
    state: State
    "After the run."
    is_after_break: bool = False
    "Relay was not watched for a time before this run, so it starts again."
    unmatched: tuple[str, ...] = ()
    "Excluded names that mean no peer."
    verdicts: tuple[Verdict, ...] | None = None
    "None if no peer could be observed."
    attempt: Attempt | None = None
    "As it was decided."
    effects: tuple[Effect, ...] = ()
    "What was done, in this order."
    fault: Fault | None = None
    "Why no status could be read."
    has_failed: bool = False
    "The command of the attempt failed, or its outcome could not be kept."
