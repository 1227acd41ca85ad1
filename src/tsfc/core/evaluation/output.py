"""Output of replay and simulate: log lines with their times, then the statistics.

The output is text or one JSON object. Lines are written as they come, so neither form
is held in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import to_builtins

from tsfc.core.evaluation import summary
from tsfc.core.evaluation.statistics import Statistics, peers_at_end


def opening(what: str, name: str, *, is_json: bool, has_header: bool) -> str:
    """Return the text before the first line. `what` is `capture` or `scenario`."""
    if is_json:
        return f'{{"{what}":{_json(name)},"lines":['
    return f"== {name}\n" if has_header else ""


def said(unix: int, lines: Sequence[str], *, is_json: bool, is_first: bool) -> str:
    """Return the lines of one run. `is_first` is true for the first run with lines."""
    if not lines:
        return ""
    if is_json:
        return ("" if is_first else ",") + ",".join(
            [_json({"at": unix, "line": line}) for line in lines]
        )
    at = summary.utc(unix)
    return "".join([f"{at} {line}\n" for line in lines])


def closing(
    statistics: Statistics, extra: Mapping[str, int], notes: Sequence[str], *, is_json: bool
) -> str:
    """Return the text after the last line: statistics and notes.

    `extra` has the numbers that only a simulation knows.
    """
    if is_json:
        numbers = {
            **summary.counts(statistics),
            **extra,
            "peers": to_builtins(peers_at_end(statistics)),
            "notes": list(notes),
        }
        return f"],{_json(numbers)[1:]}\n"
    more = f"{', '.join(f'{name} {value}' for name, value in extra.items())}\n" if extra else ""
    return f"\n{summary.text(statistics, more)}" + "".join(f"note: {note}\n" for note in notes)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
