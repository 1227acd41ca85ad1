from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import names
from tsfc.core.text import REPLACEMENT, one_line, printable

R = REPLACEMENT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("rpi3", "rpi3"),
        ("my phone", "my phone"),
        ("café \U0001f369", "café \U0001f369"),
        ("a\nb\r\tc", f"a{R}b{R}{R}c"),
        ("\0\x1b[31m\x7f\x9b", f"{R}{R}[31m{R}{R}"),
        ("\u2028\u2029\u202e\u200b\ufeff\u00a0", R * 6),
        ("\ud800", R),
        ("1234567890", "1234567890"),
        ("12345678901", "1234567890"),
        ("\n" * 11, R * 10),
    ],
    ids=[
        "empty",
        "plain",
        "space",
        "beyond-ascii",
        "white-space",
        "control",
        "format",
        "surrogate",
        "at-the-limit",
        "over-the-limit",
        "both",
    ],
)
def test_printable_replaces_and_cuts(text: str, shown: str) -> None:
    """Every character that cannot be shown is replaced by one that says so; nothing else is changed but the length."""
    assert printable(text, 10) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("one", "one"),
        (" one \n\t two\r\n", "one two"),
        ("a\x1b[0mb", f"a{R}[0mb"),
        ("1234567890", "1234567890"),
        ("12345678901", "1234567890…"),
        ("12345 6789 0", "12345 6789…"),
        ("1" * 10_240, "1111111111…"),
        ("\u2028one\u2029two\x85three", "one two th…"),
    ],
    ids=[
        "empty",
        "plain",
        "folded",
        "escape",
        "at-the-limit",
        "over-the-limit",
        "folded-over",
        "long",
        "unicode-space",
    ],
)
def test_one_line_folds_and_says_that_it_cut(text: str, shown: str) -> None:
    """Any text becomes one line; an ellipsis says that there was more."""
    assert one_line(text, 10) == shown


@given(names() | st.text(), st.integers(0, 40))
def test_both_are_printable_and_within_the_limit(text: str, limit: int) -> None:
    """Whatever comes in, a line goes out, of a length that was asked for."""
    assert printable(text, limit).isprintable()
    assert len(printable(text, limit)) <= limit
    assert one_line(text, limit).isprintable()
    assert len(one_line(text, limit)) <= limit + len("…")
    assert printable(printable(text, limit), limit) == printable(text, limit)
