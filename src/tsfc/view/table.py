"""The table of `tsfc peers`."""

from __future__ import annotations

import os
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tsfc.core.tailscale.paths import Path
from tsfc.core.watchdog.track import Reason
from tsfc.shell.console import STDOUT
from tsfc.view.cells import PATH, WATCHDOG, Column, columns, header_lines
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
NAME_WIDTH = 32
"Columns of the longest name on a terminal; longer names are truncated."


def render(view: View, *, is_terminal: bool, height: int | None = None) -> str:
    """Render the header and the table.

    For a terminal, the text has colors and is as wide as the terminal. With a `height`,
    it has at most that many lines; the last peers are left out.
    """
    # Rich writes into a string, as if it were the terminal.
    text = StringIO()
    width = _terminal_width() if is_terminal else UNLIMITED
    console = Console(
        file=text,
        force_terminal=is_terminal,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    # Long lines of the header are wrapped; those of the table are truncated.
    for line in header_lines(view):
        console.print(Text(line), overflow="fold")

    # Three lines are for the titles, the number of omitted peers and the cursor.
    room = len(view.rows) if height is None else max(1, height - text.getvalue().count("\n") - 3)
    if view.rows:
        console.print(_table(view, view.rows[:room], width, is_terminal=is_terminal))
    if len(view.rows) > room:
        console.print(Text(f"… and {len(view.rows) - room} more"))
    return "\n".join(line.rstrip() for line in text.getvalue().split("\n"))


def _table(view: View, rows: tuple[Row, ...], width: int, *, is_terminal: bool) -> Table:
    shown = [column for column in columns(view) if width >= column.min_width]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in shown:
        table.add_column(
            column.title, no_wrap=True, justify="right" if column.is_number else "left"
        )
    for row in rows:
        table.add_row(*(Text(column.cell(view, row), _style(column, row)) for column in shown))

    # On a narrow terminal, a long name must not displace the verdict.
    if is_terminal:
        table.columns[0].max_width = min(NAME_WIDTH, width // 3)
    longest = max((len(row.next) for row in rows), default=0)
    table.columns[-1].min_width = min(width // 4, longest)
    return table


def _style(column: Column, row: Row) -> str:
    if column is PATH:
        return STYLES[row.path]
    return "bold red" if column is WATCHDOG and row.verdict in ALARMING else ""


def _terminal_width() -> int:
    try:
        return max(20, os.get_terminal_size(STDOUT).columns)
    except OSError:
        return DEFAULT_WIDTH
