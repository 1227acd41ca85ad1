"""Whatever happens to the tailnet, the clock and the operator, the watchdog keeps its promises."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import Tailnet
from .worlds import ROWS


@pytest.mark.slow
def test_promises_are_kept_and_every_row_of_the_table_is_reached() -> None:
    """No invariant breaks in any of the generated lives, and these lives lead through every row of the table."""
    reached: set[str] = set()
    machine = type("Recorded", (Tailnet,), {"reached": reached})
    run_state_machine_as_test(machine, settings=settings(max_examples=200, stateful_step_count=40))
    assert reached == ROWS
