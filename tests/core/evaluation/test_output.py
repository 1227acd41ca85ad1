"""The pieces of the output are one text or one JSON object."""

from __future__ import annotations

import json

import pytest

from core.evaluation.evaluated import counted
from support.captures import START, seen
from support.statuses import peer
from tsfc.core.evaluation import output, summary

STATISTICS = counted([seen(START, peer("nas", "derp")), seen(START + 60, peer("nas", "derp"))])


def _output(*, is_json: bool, extra: dict[str, int], notes: tuple[str, ...]) -> str:
    """Return the output of three runs; the second one has no lines."""
    log = output.Log(is_json)
    return "".join(
        [
            output.opening("capture", 'a"b', is_json=is_json, has_header=True),
            output.log_lines(log, START, ("one", "two")),
            output.log_lines(log, START + 1, ()),
            output.log_lines(log, START + 2, ("three",)),
            output.closing(STATISTICS, extra, notes, is_json=is_json),
        ]
    )


def test_text_has_lines_with_times_then_the_summary_then_notes() -> None:
    assert _output(is_json=False, extra={"seed": 1, "other": 2}, notes=("read this",)) == (
        '== a"b\n'
        "2027-01-15T08:00:00Z one\n"
        "2027-01-15T08:00:00Z two\n"
        "2027-01-15T08:00:02Z three\n"
        "\n" + summary.text(STATISTICS, "seed 1, other 2\n") + "note: read this\n"
    )


def _text(*runs: tuple[str, ...]) -> list[str]:
    """Return the text of runs that are one second apart, without their common day."""
    log = output.Log(is_json=False)
    pieces = [output.log_lines(log, START + at, lines) for at, lines in enumerate(runs)]
    text = "".join([*pieces, output.last_lines(log)])
    return [line.removeprefix("2027-01-15T08:00:") for line in text.splitlines()]


def test_a_line_that_runs_repeat_is_one_line_and_a_number() -> None:
    down = ("down",)
    assert _text(*[down] * 60, ("up",)) == [
        "00Z down",
        "59Z last line repeated 59 times",
        "2027-01-15T08:01:00Z up",
    ]
    assert _text(*[down] * 3) == ["00Z down", "02Z last line repeated 2 times"]
    assert _text(down, down, (), down) == ["00Z down", "01Z down", "03Z down"]
    assert _text(down, down, ("down", "other"), ("other",)) == [
        "00Z down",
        "01Z down",
        "02Z down",
        "02Z other",
        "03Z other",
    ]


def test_json_has_each_line_that_runs_repeat() -> None:
    log = output.Log(is_json=True)
    pieces = [output.log_lines(log, START + at, ("down",)) for at in range(3)]
    lines = json.loads(f"[{''.join(pieces)}{output.last_lines(log)}]")
    assert [line["at"] for line in lines] == [START, START + 1, START + 2]


def test_text_without_header_extra_counts_and_notes_has_none_of_them() -> None:
    assert output.opening("capture", "a", is_json=False, has_header=False) == ""
    assert output.closing(STATISTICS, {}, (), is_json=False) == f"\n{summary.text(STATISTICS)}"


@pytest.mark.parametrize(
    ("extra", "notes"),
    [
        pytest.param({"seed": 1}, ("a note",), id="extra-counts-and-notes"),
        pytest.param({}, (), id="neither"),
    ],
)
def test_json_is_one_object_on_one_line(extra: dict[str, int], notes: tuple[str, ...]) -> None:
    text = _output(is_json=True, extra=extra, notes=notes)
    assert text.count("\n") == 1
    assert text.endswith("}\n")
    assert json.loads(text) == {
        "capture": 'a"b',
        "lines": [
            {"at": START, "line": "one"},
            {"at": START, "line": "two"},
            {"at": START + 2, "line": "three"},
        ],
        **summary.counts(STATISTICS),
        **extra,
        "peers": {
            "nas": {
                "relay_seconds": 60,
                "episodes": 1,
                "longest_seconds": 60,
                "restarts_caused": 0,
            }
        },
        "notes": list(notes),
    }
