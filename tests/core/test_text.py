from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import names
from tsfc.core.text import REPLACEMENT, one_line, printable

R = REPLACEMENT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("rpi3", "rpi3", id="plain"),
        pytest.param("my phone", "my phone", id="space"),
        pytest.param("café \U0001f369", "café \U0001f369", id="beyond-ascii"),
        pytest.param("a\nb\r\tc", f"a{R}b{R}{R}c", id="white-space"),
        pytest.param("\0\x1b[31m\x7f\x9b", f"{R}{R}[31m{R}{R}", id="control"),
        pytest.param("\u2028\u2029\u202e\u200b\ufeff\u00a0", R * 6, id="format"),
        pytest.param("\ud800", R, id="surrogate"),
        pytest.param("1234567890", "1234567890", id="at-the-limit"),
        pytest.param("12345678901", "1234567890", id="over-the-limit"),
        pytest.param("\n" * 11, R * 10, id="both"),
    ],
)
def test_printable_replaces_unprintable_characters_and_cuts(text: str, expected: str) -> None:
    assert printable(text, 10) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("one", "one", id="plain"),
        pytest.param(" one \n\t two\r\n", "one two", id="folded"),
        pytest.param("a\x1b[0mb", f"a{R}[0mb", id="escape"),
        pytest.param("1234567890", "1234567890", id="at-the-limit"),
        pytest.param("12345678901", "1234567890…", id="over-the-limit"),
        pytest.param("12345 6789 0", "12345 6789…", id="folded-over"),
        pytest.param("1" * 10_240, "1111111111…", id="long"),
        pytest.param("\u2028one\u2029two\x85three", "one two th…", id="unicode-space"),
    ],
)
def test_one_line_collapses_whitespace_and_marks_a_cut(text: str, expected: str) -> None:
    """An ellipsis marks the cut."""
    assert one_line(text, 10) == expected


@given(names() | st.text(), st.integers(0, 40))
def test_the_result_is_printable_and_within_the_limit(text: str, limit: int) -> None:
    assert printable(text, limit).isprintable()
    assert len(printable(text, limit)) <= limit
    assert one_line(text, limit).isprintable()
    assert len(one_line(text, limit)) <= limit + len("…")
    assert printable(printable(text, limit), limit) == printable(text, limit)
