"""A remedy cures a peer if it cures all of its faults."""

from __future__ import annotations

import pytest

from tsfc.core.watchdog.remedy import Remedy
from tsfc.offline.simulation.faults import Fault, PortFault, StuckFault, cures, remedy_for
from tsfc.offline.simulation.scenario import Stuck
from tsfc.offline.simulation.spans import Length, span_range

AT = Length(span_range(0, 0))
STUCK = StuckFault(Stuck(at=AT))
CURED = StuckFault(Stuck(at=AT), is_cured=True)
FAR = StuckFault(Stuck(at=AT, side="far"))
NEVER = StuckFault(Stuck(at=AT, restart="nothing"))
PORT = PortFault(41641)


@pytest.mark.parametrize(
    ("faults", "remedy"),
    [
        ([], None),
        ([CURED], None),
        ([STUCK], Remedy.RESTART),
        ([STUCK, CURED], Remedy.RESTART),
        ([PORT], Remedy.OTHER_PORT),
        ([PORT, STUCK], Remedy.OTHER_PORT),
        ([FAR], None),
        ([NEVER, PORT], None),
    ],
)
def test_the_remedy_for_several_faults_cures_them_all(
    faults: list[Fault], remedy: Remedy | None
) -> None:
    assert remedy_for(faults) is remedy


def test_another_port_cures_what_a_restart_cures_and_more() -> None:
    assert [cures(Remedy.RESTART, fault) for fault in (STUCK, PORT, FAR, CURED)] == [
        True,
        False,
        False,
        False,
    ]
    assert [cures(Remedy.OTHER_PORT, fault) for fault in (STUCK, PORT, FAR, CURED)] == [
        True,
        True,
        False,
        False,
    ]
