"""The columns of `tsfc peers` that fit a terminal, and their widths."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from tsfc.view.cells import (
    HANDSHAKE,
    PATH,
    PEER,
    PING,
    RECEIVED,
    SENT,
    SINCE,
    WATCHDOG,
    Column,
)

GAP = 2
"Blanks between two columns."
MIN_WIDTH = 20
"Columns of the narrowest terminal; on a narrower one, lines are cut."


class Step(Struct, frozen=True):
    """One way to make the table narrower."""

    column: Column
    width: int = 0
    "Columns that are left to it at least; 0 to drop it."


STEPS = (
    Step(PATH, 28),
    Step(SENT),
    Step(RECEIVED),
    Step(HANDSHAKE),
    Step(WATCHDOG, 21),
    Step(PATH, 12),
    Step(PEER, 20),
    Step(SINCE),
    Step(PING),
    Step(PATH, 8),
    Step(WATCHDOG, 10),
    Step(PEER, 8),
    Step(PATH),
)
"""What is done until the table fits, the least harmful first.

28 columns show each direct IPv4 address. 12 columns show the kind of path and the
region, 21 columns nearly all verdicts.
"""
WIDENED = (PEER, WATCHDOG, PATH)
"Columns that get what a dropped column leaves, in this order."


def layout(wanted: Mapping[Column, int], width: int) -> dict[Column, int]:
    """Return the columns to show, in the given order, each with its width.

    `wanted` has the width that each column would like. The table is at most as wide as
    `width`, which is at least `MIN_WIDTH`.
    """
    widths = dict(wanted)
    for step in STEPS:
        excess = _total(widths) - width
        if excess <= 0:
            break
        present = widths.get(step.column, 0)
        if step.width == 0:
            widths.pop(step.column, None)
        elif present > step.width:
            widths[step.column] = max(step.width, present - excess)
    for column in WIDENED:
        if column in widths:
            spare = width - _total(widths)
            widths[column] = min(wanted[column], widths[column] + spare)
    return widths


def _total(widths: Mapping[Column, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)
