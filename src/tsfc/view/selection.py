"""Which peers `tsfc peers` shows, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable

from msgspec import Struct

from tsfc.core.tailscale.paths import Path
from tsfc.core.text import counted, natural_key, one_line
from tsfc.view.cells import HANDSHAKE, PATH, PEER, PING, RECEIVED, SENT, SINCE, WATCHDOG
from tsfc.view.model import PATH_ORDER, Row, View, severity_key

PATHS = {
    "direct": Path.DIRECT,
    "peer-relay": Path.PEER_RELAY,
    "relay": Path.DERP,
    "idle": Path.IDLE,
    "offline": Path.OFFLINE,
    "no-path": Path.NONE,
}
"Paths by their names on the command line, which are the words of the table."
FILTERED = (PEER, PATH, WATCHDOG)
"Columns in which a text is searched for."


class Selection(Struct, frozen=True):
    """The options that select and sort peers."""

    sort: str = WATCHDOG.title
    "Title of a column, in `KEYS`."
    only: tuple[str, ...] = ()
    "Names in `PATHS`; empty for all."
    text: str = ""
    "A part of a cell in one of `FILTERED`; case is ignored."


EVERYTHING = Selection()


def _largest_first(number: Callable[[Row], float | None]) -> Callable[[Row], object]:
    """Return the key that sorts by a number; peers without one come last."""

    def key(row: Row) -> float:
        value = number(row)
        return math.inf if value is None else -value

    return key


KEYS: dict[str, Callable[[Row], object]] = {
    PEER.title: lambda _: 0,
    PATH.title: lambda row: PATH_ORDER.index(row.path),
    SINCE.title: _largest_first(lambda row: row.relay_seconds),
    HANDSHAKE.title: _largest_first(lambda row: row.handshake_seconds_ago),
    RECEIVED.title: _largest_first(lambda row: row.rx_bytes),
    SENT.title: _largest_first(lambda row: row.tx_bytes),
    PING.title: _largest_first(lambda row: None if row.ping is None else row.ping.latency_seconds),
    WATCHDOG.title: severity_key,
}
"Sort key of each column; peers with equal keys are sorted by name."


def select(view: View, selection: Selection) -> tuple[Row, ...]:
    """Return the selected rows in their order."""
    paths = {PATHS[name] for name in selection.only} or set(Path)
    text = selection.text.casefold()
    key = KEYS[selection.sort]
    chosen = (row for row in view.rows if row.path in paths and _has_text(view, row, text))
    if key is severity_key:  # the rows of a view have this order
        return tuple(chosen)
    return tuple(sorted(chosen, key=lambda row: (key(row), natural_key(row.peer))))


def selection_lines(view: View, rows: tuple[Row, ...], selection: Selection) -> list[str]:
    """Return the line that says how many peers are selected; none if all may be."""
    options = [
        *([f"--only {','.join(selection.only)}"] if selection.only else []),
        *([f"--filter {one_line(selection.text, 40)}"] if selection.text else []),
    ]
    if not options:
        return []
    return [f"shown: {len(rows)} of {counted(len(view.rows), 'peer')}; {' '.join(options)}"]


def _has_text(view: View, row: Row, text: str) -> bool:
    return not text or any(text in column.cell(view, row).casefold() for column in FILTERED)
