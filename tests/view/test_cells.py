"""What the watchdog did, as clauses. The table itself is tested as `tsfc peers`."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy, Stage
from tsfc.view.cells import attempts
from tsfc.view.model import View

from .guarded import STATE, view
from .node import NOW

RESTART = Attempt(Remedy.RESTART, "nas", NOW - 600, NOW - 300, stage=Stage.DONE)


def _after(*done: Attempt) -> View:
    return view(state=replace(STATE, attempts=done))


@pytest.mark.parametrize(
    ("attempt", "clause"),
    [
        (RESTART, "restart because of nas: too early to tell whether it helped"),
        (replace(RESTART, result=AttemptResult.HELPED), "restart because of nas: helped"),
        (replace(RESTART, stage=Stage.FAILED), "restart because of nas: its command failed"),
        (
            replace(RESTART, peer="", stage=Stage.ASKED),
            "restart because of an unknown peer: the outcome of its command is unknown",
        ),
        (
            replace(RESTART, remedy=Remedy.OTHER_PORT, result=AttemptResult.NO_EFFECT),
            "port change because of nas: did not help",
        ),
    ],
)
def test_an_attempt_is_a_clause(attempt: Attempt, clause: str) -> None:
    assert attempts(_after(attempt), 3600) == [(NOW - 600, clause)]


@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("result", AttemptResult)
def test_each_outcome_has_words(stage: Stage, result: AttemptResult) -> None:
    ((_, clause),) = attempts(_after(replace(RESTART, stage=stage, result=result)), 3600)
    assert not clause.endswith(": ")


def test_the_newest_comes_first_and_old_ones_are_left_out() -> None:
    done = [replace(RESTART, at=NOW - age) for age in (7200, 3600, 600, 60)]
    assert [at for at, _ in attempts(_after(*done), 3600)] == [NOW - 60, NOW - 600]


def test_without_a_snapshot_nothing_is_known() -> None:
    assert attempts(replace(view(), snapshot=None), 3600) == []
