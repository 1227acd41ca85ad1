"""What a run tells people: its lines that say something new, as JSON."""

from __future__ import annotations

from typing import assert_never

import msgspec
from msgspec import Struct

from tsfc.core.watchdog.effects import Apply, Log, Warn
from tsfc.core.watchdog.run import Run

REPEATED = frozenset({"WAITING", "COOLDOWN", "EXCLUDED", "HELD", "CONFIRMING"})
"Kinds of lines that each run repeats."
FAILED = "FAILED"
"Kind of the notice about a remedy whose command failed: its line has none."


class Notice(Struct, frozen=True):
    """A line of the watchdog. Its fields are stable; new ones may be added."""

    at: int
    "Unix time of the run."
    kind: str
    "The first word of the line in the journal, such as RESTART, or `FAILED`."
    line: str
    "The line as in the journal."


def notices(run: Run) -> tuple[Notice, ...]:
    """Return what is new in a run: its lines that are not repeated, and what failed."""
    told: list[Notice] = []
    is_applied = False
    for effect in run.effects:
        match effect:
            case Apply():
                is_applied = True
            case Log(line=line):
                kind = line.partition(":")[0]
                if kind not in REPEATED:
                    told.append(Notice(run.now.unix, kind, line))
            case Warn(line=line):
                if is_applied:
                    told.append(Notice(run.now.unix, FAILED, line))
            case _ as never:
                assert_never(never)
    return tuple(told)


def encode(told: tuple[Notice, ...]) -> bytes:
    """Return the notices as JSON, one on each line."""
    return msgspec.json.Encoder().encode_lines(told)
