"""The table of `tsfc peers`."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import StringIO
from typing import Literal

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.peers import Hidden
from tsfc.core.text import one_line
from tsfc.core.watchdog.guarded import WORDS
from tsfc.core.watchdog.state import last_restart
from tsfc.core.watchdog.track import Reason
from tsfc.shell.console import STDOUT
from tsfc.view.model import Row, View, byte_size, duration, health, peers_by_path, why_held

PATH_WORDS = {Path.PEER_RELAY: "peer-relay", Path.NONE: "no path"}
"Words for paths, where they differ from the metric's label."
STYLES = {
    Path.DIRECT: "green",
    Path.PEER_RELAY: "yellow",
    Path.DERP: "red",
    Path.IDLE: "cyan",
    Path.OFFLINE: "dim",
    Path.NONE: "bold red",
}
HIDDEN = {
    Hidden.MULLVAD: "Mullvad exit node",
    Hidden.FUNNEL: "Funnel ingress node",
    Hidden.SHAREE: "sharee",
}
"Kinds of hidden peers, in the singular."
ALARMING = frozenset({Reason.RESTART, Reason.COOLDOWN})
"Verdicts in bold red."
OVERDUE_SECONDS = 180
"Age of the last run from which the watchdog is overdue; its interval is a minute."
UNLIMITED = 100_000
"Width, in columns, of output that does not go to a terminal: nothing is truncated."
DEFAULT_WIDTH = 80
"Columns of a terminal that does not say its width."
NAME_WIDTH = 32
"Columns of the longest name on a terminal; longer names are truncated."


class Column(Struct, frozen=True):
    """A column of the table."""

    title: str
    cell: Callable[[View, Row], Text]
    justify: Literal["left", "right"] = "left"
    min_width: int = 0
    "Columns of the narrowest terminal that shows it."


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
    for line in _header_lines(view):
        console.print(Text(line), overflow="fold")

    # Three lines are for the titles, the number of omitted peers and the cursor.
    room = len(view.rows) if height is None else max(1, height - text.getvalue().count("\n") - 3)
    if view.rows:
        console.print(_table(view, view.rows[:room], width, is_terminal=is_terminal))
    if len(view.rows) > room:
        console.print(Text(f"… and {len(view.rows) - room} more"))
    return "\n".join(line.rstrip() for line in text.getvalue().split("\n"))


def _header_lines(view: View) -> list[str]:
    """Return the lines about the node, its health, the watchdog, and the warnings."""
    state = one_line(view.status.backend_state, 40)
    version = one_line(view.status.version.partition("-")[0], 40)
    tailscaled = f", tailscaled {version}" if version else ""
    by_path = ", ".join(
        f"{number} {PATH_WORDS.get(path, path.value)}"
        for path, number in peers_by_path(view).items()
    )
    peers = f": {len(view.rows)} peers ({by_path})" if view.rows else ""
    hidden = ", ".join(
        f"{number} {HIDDEN[kind]}{'' if number == 1 else 's'}"
        for kind, number in view.hidden.items()
    )
    return [
        f"{view.name or 'this node'} is {state}{tailscaled}{peers}",
        *([f"hidden: {hidden}; --all shows them"] if hidden else []),
        *(f"health: {message}" for message in health(view.status)),
        *_watchdog_lines(view),
        *view.warnings,
    ]


def _watchdog_lines(view: View) -> list[str]:
    snapshot, forecast = view.snapshot, view.forecast
    if snapshot is None:
        return []

    # What the watchdog has done:
    state = snapshot.state
    age = view.at - (state.last_run.unix if state.last_run else 0)
    if age > OVERDUE_SECONDS:
        note = " (overdue; is its timer active?)"
    elif not snapshot.saw_peers:
        note = " (it could not observe the peers)"
    else:
        note = ""
    at = last_restart(state)
    restart = "no restart" if at is None else f"last restart {duration(view.at - at)} ago"
    past = f"last run {duration(age)} ago{note}; {restart}, {state.restarts} in total"
    if forecast is not None and forecast.hold is not None:
        why = why_held(forecast.hold, snapshot.policy)
        return [f"watchdog: {past}", f"watchdog: no restart now: {why}"]
    if forecast is None or forecast.due is None:
        return [f"watchdog: {past}"]

    # What it will do:
    due = forecast.due
    when = "in the next run" if due.at == view.at else f"in {duration(due.at - view.at)}"
    future = f"next {WORDS[due.remedy]} {when}, because of {due.peer}"
    return [f"watchdog: {past}", f"watchdog: {future}"]


def _table(view: View, rows: tuple[Row, ...], width: int, *, is_terminal: bool) -> Table:
    is_pinged = any(row.ping is not None for row in view.rows)
    columns = [
        column
        for column in COLUMNS
        if width >= column.min_width and (column is not PING or is_pinged)
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.title, no_wrap=True, justify=column.justify)
    for row in rows:
        table.add_row(*(column.cell(view, row) for column in columns))

    # On a narrow terminal, a long name must not displace the verdict.
    if is_terminal:
        table.columns[0].max_width = min(NAME_WIDTH, width // 3)
    longest = max((len(row.next) for row in rows), default=0)
    table.columns[-1].min_width = min(width // 4, longest)
    return table


def _path(view: View, row: Row) -> Text:
    """Path as `tailscale status` prints it: `direct 192.0.2.7:41641`, `relay fra`.

    For an offline peer that packets are sent to: `offline 3d, active: relay fra`.
    """
    style = STYLES[row.path]
    active = "" if row.active_path is None else _active_path(row.active_path, row.via)
    if row.path is not Path.OFFLINE:
        return Text(active or row.path.value, style)
    seen = "" if row.last_seen is None else f" {duration(view.at - row.last_seen, 1)}"
    return Text(f"offline{seen}{f', active: {active}' if active else ''}", style)


def _active_path(path: Path, via: str) -> str:
    word = {Path.DERP: "relay"}.get(path, PATH_WORDS.get(path, path.value))
    return f"{word} {via}".rstrip()


def _since(view: View, row: Row) -> Text:
    return Text("" if row.relay_since is None else duration(view.at - row.relay_since))


def _handshake(_: View, row: Row) -> Text:
    seconds = row.handshake_seconds_ago
    return Text("-" if seconds is None else duration(seconds, 1))


def _ping(_: View, row: Row) -> Text:
    if row.ping is None:
        return Text("")
    if row.ping.latency_seconds is None:
        return Text(row.ping.outcome.value.replace("_", " "))
    return Text(f"{row.ping.latency_seconds * 1000:.1f} ms")


def _verdict(_: View, row: Row) -> Text:
    return Text(row.next, "bold red" if row.verdict in ALARMING else "")


PING = Column("ping", _ping, justify="right")
COLUMNS = (
    Column("peer", lambda _, row: Text(row.peer)),
    Column("path", _path),
    Column("since", _since),
    Column("handshake", _handshake, justify="right", min_width=80),
    Column("received", lambda _, row: Text(byte_size(row.rx_bytes)), "right", min_width=110),
    Column("sent", lambda _, row: Text(byte_size(row.tx_bytes)), "right", min_width=110),
    PING,
    Column("watchdog", _verdict),
)


def _terminal_width() -> int:
    try:
        return max(20, os.get_terminal_size(STDOUT).columns)
    except OSError:
        return DEFAULT_WIDTH
