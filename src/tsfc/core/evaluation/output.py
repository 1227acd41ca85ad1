"""Output of `replay` and `simulate`: log lines with their times, then the statistics.

The output is text, or one JSON object. Both are written piece by piece, so that memory
does not grow with the number of lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import to_builtins

from tsfc.core.evaluation import summary
from tsfc.core.evaluation.statistics import Statistics, peers_at_end
from tsfc.core.text import printable_json


def opening(kind: str, name: str, *, is_json: bool, has_header: bool) -> str:
    """Return what goes before the lines. `kind` is "capture" or "scenario"."""
    if is_json:
        return f'{{"{kind}":{printable_json(name)},"lines":['
    return f"== {name}\n" if has_header else ""


def log_lines(unix: int, lines: Sequence[str], *, is_json: bool, is_first: bool) -> str:
    """Return the lines of one run. `is_first` is true if no run before had any."""
    if not lines:
        return ""
    if is_json:
        objects = ",".join([printable_json({"at": unix, "line": line}) for line in lines])
        return objects if is_first else f",{objects}"
    at = summary.utc(unix)
    return "".join([f"{at} {line}\n" for line in lines])


def closing(
    statistics: Statistics, extra: Mapping[str, int], notes: Sequence[str], *, is_json: bool
) -> str:
    """Return what goes after the lines: the statistics and the notes.

    `extra` has the counts that only a simulation can know.
    """
    if is_json:
        numbers = {
            **summary.counts(statistics),
            **extra,
            "peers": to_builtins(peers_at_end(statistics)),
            "notes": list(notes),
        }
        return f"],{printable_json(numbers)[1:]}\n"
    extra_text = ", ".join(f"{name} {value}" for name, value in extra.items())
    text = summary.text(statistics, f"{extra_text}\n" if extra else "")
    return f"\n{text}" + "".join(f"note: {note}\n" for note in notes)
