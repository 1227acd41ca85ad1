"""The table of `tsfc peers`, for people."""

from __future__ import annotations

import os
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.ping import PingResult
from tsfc.core.text import one_line
from tsfc.core.watchdog.state import last_restart
from tsfc.core.watchdog.track import Reason
from tsfc.shell.console import STDOUT
from tsfc.view.model import SILENT_SECONDS, Row, View, counts, health, quantity, span, via_text

STYLES = {
    Path.DIRECT: "green",
    Path.PEER_RELAY: "yellow",
    Path.DERP: "red",
    Path.IDLE: "cyan",
    Path.OFFLINE: "dim",
}
BAD = frozenset({Reason.RESTART, Reason.COOLDOWN})
UNBOUNDED = 100_000
"Columns, where nobody looks at them on a terminal: nothing is cut."
NARROW, MIDDLE = 80, 110
"Columns of a terminal below which bytes are left out, and handshakes and latencies' paths as well."
NAME_WIDTH = 32
"Columns of a name on a terminal; what is longer is cut there."


def drawn(view: View, *, is_terminal: bool, height: int | None = None) -> str:
    """Returns the table with its header as text; coloured, and as wide as the terminal, where it is for one.

    With a `height` it has so many lines at most, and the calmest peers are left out.
    """
    written = StringIO()
    width = _columns() if is_terminal else UNBOUNDED
    console = Console(
        file=written,
        force_terminal=is_terminal,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for line in header_lines(view):
        console.print(Text(line), overflow="fold")
    room = len(view.rows) if height is None else max(1, height - written.getvalue().count("\n") - 3)
    if view.rows:
        console.print(_table(view, view.rows[:room], width, is_terminal=is_terminal))
    if len(view.rows) > room:
        console.print(Text(f"… and {len(view.rows) - room} more"))
    return "\n".join(line.rstrip() for line in written.getvalue().split("\n"))


def header_lines(view: View) -> list[str]:
    """Returns what is said of the node itself, of the watchdog, and of what could not be read."""
    status = view.status
    by_path = ", ".join(
        f"{number} {path.value.replace('_', '-')}" for path, number in counts(view).items()
    )
    peers = f": {len(view.rows)} peers ({by_path})" if view.rows else ""
    state = one_line(status.backend_state, 40)
    return [
        f"{view.name} is {state}, tailscaled {one_line(status.version.partition('-')[0], 40)}{peers}",
        *(f"health: {message}" for message in health(status)),
        *_watchdog_lines(view),
        *view.unread,
    ]


def _watchdog_lines(view: View) -> list[str]:
    memory, ahead = view.memory, view.forecast
    if memory is None:
        return []
    state = memory.state
    ran = view.at - (state.last_run.unix if state.last_run else 0)
    restarted = last_restart(state)
    last = "no restart" if restarted is None else f"last restart {span(view.at - restarted)} ago"
    silent = (
        " (it is silent: does its timer run?)"
        if ran > SILENT_SECONDS
        else ""
        if memory.saw_peers
        else " (and could not see the peers)"
    )
    lines = [f"watchdog: last run {span(ran)} ago{silent}; {last}, {state.restarts} in all"]
    if ahead is not None and ahead.restart_seconds is not None:
        when = (
            "at its next run" if ahead.restart_seconds == 0 else f"in {span(ahead.restart_seconds)}"
        )
        lines.append(f"watchdog: next restart {when}, because of {ahead.restart_peer}")
    return lines


def _table(view: View, rows: tuple[Row, ...], width: int, *, is_terminal: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    is_pinged = any(row.latency is not None for row in view.rows)
    table.add_column(
        "peer",
        no_wrap=True,
        overflow="ellipsis",
        max_width=min(NAME_WIDTH, width // 3) if is_terminal else None,
    )
    table.add_column("path", no_wrap=True, overflow="ellipsis")
    table.add_column("since", no_wrap=True)
    if width >= NARROW:
        table.add_column("handshake", no_wrap=True, justify="right")
    if width >= MIDDLE:
        table.add_column("received", no_wrap=True, justify="right")
        table.add_column("sent", no_wrap=True, justify="right")
    if is_pinged:
        table.add_column("ping", no_wrap=True, justify="right")
    table.add_column(
        "watchdog",
        no_wrap=True,
        overflow="ellipsis",
        min_width=min(width // 4, max((len(row.next) for row in rows), default=0)),
    )
    for row in rows:
        cells = [
            Text(row.peer),
            Text(_path(view, row), STYLES[row.path]),
            Text("" if row.relay_since is None else f"{span(view.at - row.relay_since)}"),
        ]
        if width >= NARROW:
            cells.append(
                Text(
                    "-" if row.handshake_seconds_ago is None else span(row.handshake_seconds_ago, 1)
                )
            )
        if width >= MIDDLE:
            cells += [Text(quantity(row.rx_bytes)), Text(quantity(row.tx_bytes))]
        if is_pinged:
            cells.append(Text("" if row.latency is None else _latency(row.latency)))
        cells.append(Text(row.next, "bold red" if row.verdict in BAD else ""))
        table.add_row(*cells)
    return table


def _path(view: View, row: Row) -> str:
    if row.path is Path.OFFLINE and row.last_seen is not None:
        return f"offline {span(view.at - row.last_seen, 1)}"
    return via_text(row)


def _latency(answer: PingResult) -> str:
    if answer.latency_seconds is None:
        return answer.outcome.value.replace("_", " ")
    return f"{answer.latency_seconds * 1000:.1f} ms"


def _columns() -> int:
    try:
        return max(20, os.get_terminal_size(STDOUT).columns)
    except OSError:
        return NARROW
