"""The guarded policy keeps its promises in random histories of a tailnet and its clock."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tsfc.core.watchdog.remedy import AttemptResult, Remedy
from tsfc.core.watchdog.track import Reason
from tsfc.core.watchdog.watch import Hold

from .guarded_machine import GuardedTailnet

OUTCOMES = {
    f"{remedy}/{result}"
    for remedy in Remedy
    for result in AttemptResult
    if result is not AttemptResult.PENDING
}


@pytest.mark.slow
def test_promises_are_kept_and_every_verdict_hold_and_outcome_is_reached() -> None:
    """The generated histories must also reach everything, or they prove little."""
    seen: set[str] = set()
    machine = type("Recorded", (GuardedTailnet,), {"seen": seen})
    run_state_machine_as_test(machine, settings=settings(max_examples=400, stateful_step_count=40))
    assert {*Reason, *Hold.__members__, *OUTCOMES, "way back"} - seen == set()
