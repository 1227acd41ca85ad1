"""Output of `replay` and `simulate`: log lines with their times, then the statistics.

The output is text, or one JSON object. Both are written piece by piece, so that memory
does not grow with the number of lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, to_builtins

from tsfc.core.evaluation import summary
from tsfc.core.evaluation.statistics import Statistics, peers_at_end
from tsfc.core.text import printable_json


class Log(Struct):
    """What was returned of the lines so far. Updated in place."""

    is_json: bool
    is_first: bool = True
    "No run had lines yet."
    line: str | None = None
    "The only line of the last run; None if it had none or several."
    repeated: int = 0
    "Number of runs after it that had only this line, too."
    repeated_at: int = 0
    "Unix time of the last one."


def opening(kind: str, name: str, *, is_json: bool, has_header: bool) -> str:
    """Return what goes before the lines. `kind` is "capture" or "scenario"."""
    if is_json:
        return f'{{"{kind}":{printable_json(name)},"lines":['
    return f"== {name}\n" if has_header else ""


def log_lines(log: Log, unix: int, lines: Sequence[str]) -> str:
    """Return the lines of one run.

    The text of a line that several runs in a row repeat is returned once, and later the
    number of repetitions: call this for runs without lines too, and `last_lines` at the
    end.
    """
    if log.is_json:
        if not lines:
            return ""
        objects = ",".join([printable_json({"at": unix, "line": line}) for line in lines])
        separator = "" if log.is_first else ","
        log.is_first = False
        return separator + objects
    only = lines[0] if len(lines) == 1 else None
    if only is not None and only == log.line:
        log.repeated, log.repeated_at = log.repeated + 1, unix
        return ""
    repetitions = last_lines(log)
    log.line = only
    if not lines:
        return repetitions
    at = summary.utc(unix)
    return repetitions + "".join([f"{at} {line}\n" for line in lines])


def last_lines(log: Log) -> str:
    """Return what is left to say about the last line: how often it was repeated."""
    times, log.repeated = log.repeated, 0
    if not times:
        return ""
    text = log.line if times == 1 else f"last line repeated {times} times"
    return f"{summary.utc(log.repeated_at)} {text}\n"


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
