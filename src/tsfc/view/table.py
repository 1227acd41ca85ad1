"""The table of `tsfc peers`."""

from __future__ import annotations

import os
from io import StringIO
from typing import IO

from msgspec import Struct
from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tsfc.core.tailscale.paths import Path
from tsfc.core.watchdog.track import Reason
from tsfc.shell.console import STDOUT
from tsfc.view.cells import PATH, WATCHDOG, Column, columns
from tsfc.view.layout import GAP, MIN_WIDTH, layout
from tsfc.view.model import Row, View

STYLES = {
    Path.DIRECT: "green",
    Path.PEER_RELAY: "yellow",
    Path.DERP: "red",
    Path.IDLE: "cyan",
    Path.OFFLINE: "dim",
    Path.NONE: "bold red",
}
ALARMING = frozenset({Reason.RESTART, Reason.COOLDOWN})
"Verdicts in bold red."
UNLIMITED = 100_000
"Width, in columns, of output that does not go to a terminal: nothing is truncated."
DEFAULT_WIDTH = 80
"Columns of a terminal that does not say its width."


class Cells(Struct, frozen=True):
    """The texts of a table."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    texts: tuple[tuple[str, ...], ...]
    "One for each column, for each row."
    widths: dict[Column, int]
    "Of the longest text of each column."


def cells(view: View, rows: tuple[Row, ...]) -> Cells:
    """Return the texts of these rows, and measure them."""
    shown = columns(view)
    texts = tuple(tuple(column.cell(view, row) for column in shown) for row in rows)
    widths = {
        column: max(cell_len(text) for text in (column.title, *(row[place] for row in texts)))
        for place, column in enumerate(shown)
    }
    return Cells(shown, rows, texts, widths)


def render(view: View, rows: tuple[Row, ...], lines: list[str], *, is_terminal: bool) -> str:
    """Render the lines above the table, and the table of these rows.

    For a terminal, the text has colors and is as wide as the terminal.
    """
    # Rich writes into a string, as if it were the terminal.
    text = StringIO()
    width = _terminal_width() if is_terminal else UNLIMITED
    output = console(text, is_terminal=is_terminal, width=width)
    # Long lines above the table are wrapped; those of the table are truncated.
    output.print(paragraphs(lines))
    if rows:
        output.print(table(cells(view, rows), width))
    return "\n".join(line.rstrip() for line in text.getvalue().split("\n"))


def console(file: IO[str], *, is_terminal: bool, width: int | None = None) -> Console:
    """Return a console that prints texts as they are."""
    return Console(
        file=file,
        force_terminal=is_terminal,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def paragraphs(lines: list[str]) -> Group:
    """Return lines that are wrapped."""
    return Group(*(Text(line, overflow="fold") for line in lines))


def table(content: Cells, width: int, first: int = 0, end: int | None = None) -> Table:
    """Return the table that fits a width, with the rows from `first` up to `end`."""
    widths = layout(content.widths, max(MIN_WIDTH, width))
    drawn = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, column_width in widths.items():
        drawn.add_column(
            column.title,
            no_wrap=True,
            width=column_width,
            justify="right" if column.is_number else "left",
        )
    for row, texts in zip(content.rows[first:end], content.texts[first:end], strict=True):
        drawn.add_row(
            *(
                Text(text, _style(column, row))
                for column, text in zip(content.columns, texts, strict=True)
                if column in widths
            )
        )
    return drawn


def _style(column: Column, row: Row) -> str:
    if column is PATH:
        return STYLES[row.path]
    return "bold red" if column is WATCHDOG and row.verdict in ALARMING else ""


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(STDOUT).columns or DEFAULT_WIDTH
    except OSError:
        return DEFAULT_WIDTH
