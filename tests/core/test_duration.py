"""Durations, as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsfc.core.duration import MAX_SECONDS, duration, parse, parse_whole


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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5min", 300),
        ("1h 30min", 5400),
        ("2d", 172800),
        ("90", 90),
        ("0", 0),
        ("0.5", 0.5),
        ("1min 30", 90),
        ("1min30s ", 90),
        ("1.1h", 3960),
        ("2 weeks", 1209600),
        ("1m5sec", 65),
        ("250 us", 0.00025),
        ("0.001ms", 0.000001),
    ],
)
def test_a_time_span_is_its_seconds(text: str, seconds: float) -> None:
    assert parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", " 1s", "s", "1e3", ".5", "1.", "-1s", "+1", "1 1", "1s,2s", "1M", "1y", "5S"),
        *("nan", "inf", "1_0", "\N{ARABIC-INDIC DIGIT THREE}s", "1s\n", "1.5us", "1234567s"),
        "1s" * 9,
    ],
)
def test_another_text_is_no_time_span(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10min", 600),
        ("1.5min", 90),
        ("0", 0),
        (str(MAX_SECONDS), MAX_SECONDS),
        ("999999w", None),
        ("1.5s", None),
        ("soon", None),
    ],
)
def test_whole_seconds_have_no_fraction_and_a_limit(text: str, seconds: int | None) -> None:
    assert parse_whole(text) == seconds


@given(st.integers(0, MAX_SECONDS))
def test_a_printed_duration_can_be_typed(seconds: int) -> None:
    assert parse(duration(seconds, 4)) == seconds
