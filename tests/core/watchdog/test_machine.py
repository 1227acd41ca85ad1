"""The watchdog keeps its promises in random histories of a tailnet and its clock."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from .machine import Tailnet
from .worlds import ROWS


@pytest.mark.slow
def test_promises_are_kept_and_every_row_of_the_table_is_reached() -> None:
    """The generated histories must also cover the whole table, or they prove little."""
    covered_rows: set[str] = set()
    machine = type("Recorded", (Tailnet,), {"covered_rows": covered_rows})
    run_state_machine_as_test(machine, settings=settings(max_examples=200, stateful_step_count=40))
    assert covered_rows == ROWS
