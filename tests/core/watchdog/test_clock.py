"""When two readings of the clocks show that the wall clock was set between them."""

from __future__ import annotations

import pytest

from tsfc.core.clock import Boot, Instant, step_between

BEFORE = Instant(10_000, Boot("b1", 500))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, BEFORE, 0),
        (BEFORE, BEFORE, 0),
        (BEFORE, Instant(10_060, Boot("b1", 560)), 0),
        (BEFORE, Instant(10_065, Boot("b1", 560)), 0),
        (BEFORE, Instant(10_055, Boot("b1", 560)), 0),
        (BEFORE, Instant(10_066, Boot("b1", 560)), 6),
        (BEFORE, Instant(10_054, Boot("b1", 560)), -6),
        (BEFORE, Instant(13_660, Boot("b1", 560)), 3600),
        (BEFORE, Instant(6_460, Boot("b1", 560)), -3600),
        (BEFORE, Instant(13_660, Boot("b2", 560)), 0),
        (BEFORE, Instant(13_660), 0),
        (Instant(10_000), Instant(13_660, Boot("b1", 560)), 0),
    ],
    ids=[
        "first run",
        "same reading",
        "alike",
        "5 s",
        "-5 s",
        "6 s",
        "-6 s",
        "forward",
        "back",
        "another boot",
        "no boot clock",
        "no boot clock before",
    ],
)
def test_step_between(before: Instant | None, now: Instant, expected: int) -> None:
    """A step is what the wall clock gained on the boot clock, if it is more than 5 s and the same boot."""
    assert step_between(before, now) == expected
