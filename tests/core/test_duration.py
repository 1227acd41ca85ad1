"""Durations, as people read them."""

from __future__ import annotations

import pytest

from tsfc.core.duration import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (250, "4m 10s"),
        (3600, "1h"),
        (7261, "2h 1m"),
        (86400, "1d"),
        (97200, "1d 3h"),
        (266400, "3d 2h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: int, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (61, "1m"), (3 * 86400 + 5, "3d")])
def test_a_duration_of_one_part_has_its_largest_unit(seconds: int, text: str) -> None:
    assert duration(seconds, 1) == text
