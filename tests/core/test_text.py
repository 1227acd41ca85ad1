from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import names
from tsfc.core.text import (
    REPLACEMENT,
    counted,
    natural_key,
    one_line,
    printable,
    printable_json,
)

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
        pytest.param("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800", R * 8, id="blank"),
        pytest.param("\u26a0\ufe0f", "\u26a0\ufe0f", id="emoji"),
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


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"a": [1, None, "b c"]}, '{"a":[1,null,"b c"]}', id="plain"),
        pytest.param("café \U0001f369", '"café \U0001f369"', id="beyond-ascii"),
        pytest.param("a\n\x1b", r'"a\n\u001b"', id="control"),
        pytest.param("\x7f\x9b\u202e\u3164", r'"\u007f\u009b\u202e\u3164"', id="format"),
        pytest.param("\U000e0001", r'"\udb40\udc01"', id="beyond-16-bits"),
        pytest.param({"\u202e": 1}, r'{"\u202e":1}', id="key"),
    ],
)
def test_unprintable_characters_are_escaped_in_json(value: object, expected: str) -> None:
    assert printable_json(value) == expected


@given(names() | st.text(st.characters(exclude_categories=["Cs"])))
def test_escaped_json_is_printable_and_has_the_same_value(text: str) -> None:
    assert printable_json({text: text}).isprintable()
    assert json.loads(printable_json({text: text})) == {text: text}


def test_texts_are_sorted_as_people_do() -> None:
    texts = ["host10", "Host2", "host2", "host02", "host", "10", "9", "a1b10", "a1b9", "1" * 5000]
    expected = [
        "9",
        "10",
        "1" * 5000,
        "a1b9",
        "a1b10",
        "host",
        "Host2",
        "host02",
        "host2",
        "host10",
    ]
    assert sorted(texts, key=natural_key) == expected


@given(st.permutations(["a1", "A1", "a01", "a", "1", "1a", "a1b", "a1b1", "", "é2", "é10"]))
def test_the_order_of_texts_is_total(texts: list[str]) -> None:
    expected = ["", "1", "1a", "a", "A1", "a01", "a1", "a1b", "a1b1", "é2", "é10"]
    assert sorted(texts, key=natural_key) == expected


def test_a_noun_has_its_number() -> None:
    assert [counted(number, "peer") for number in (0, 1, 2)] == ["0 peers", "1 peer", "2 peers"]
