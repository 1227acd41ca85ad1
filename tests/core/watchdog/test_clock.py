"""Steps of the wall clock between two readings of both clocks."""

from __future__ import annotations

import pytest

from tsfc.core.clock import Boot, Instant, step_between

BEFORE = Instant(10_000, Boot("b1", 500))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        pytest.param(None, BEFORE, 0, id="first run"),
        pytest.param(BEFORE, BEFORE, 0, id="same reading"),
        pytest.param(BEFORE, Instant(10_060, Boot("b1", 560)), 0, id="no difference"),
        pytest.param(BEFORE, Instant(10_065, Boot("b1", 560)), 0, id="5 s"),
        pytest.param(BEFORE, Instant(10_055, Boot("b1", 560)), 0, id="-5 s"),
        pytest.param(BEFORE, Instant(10_066, Boot("b1", 560)), 6, id="6 s"),
        pytest.param(BEFORE, Instant(10_054, Boot("b1", 560)), -6, id="-6 s"),
        pytest.param(BEFORE, Instant(13_660, Boot("b1", 560)), 3600, id="forward"),
        pytest.param(BEFORE, Instant(6_460, Boot("b1", 560)), -3600, id="back"),
        pytest.param(BEFORE, Instant(13_660, Boot("b2", 560)), 0, id="another boot"),
        pytest.param(BEFORE, Instant(13_660), 0, id="no boot clock"),
        pytest.param(
            Instant(10_000), Instant(13_660, Boot("b1", 560)), 0, id="no boot clock before"
        ),
    ],
)
def test_a_clock_step_is_over_5_s_against_the_same_boots_clock(
    before: Instant | None, now: Instant, expected: int
) -> None:
    """It is the change of wall clock against boot clock, if over 5 s in one boot."""
    assert step_between(before, now) == expected
