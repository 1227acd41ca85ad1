"""The commands `tsfc peers`, `tsfc explain` and `tsfc doctor`.

Each imports only what it draws with: rich costs more than all else.
"""

from __future__ import annotations

import os
import time

from msgspec import Struct
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.keepalive import overall_result
from tsfc.core.tailscale.peers import unwatched
from tsfc.core.tailscale.ping import PingResult
from tsfc.shell import signals, terminal, waiting
from tsfc.shell.console import STDOUT, print_error, write_out
from tsfc.shell.tailscaled.observe import RunOptions
from tsfc.view.cells import header_lines
from tsfc.view.look import Pinging, look, own_net_info, ping_peer
from tsfc.view.model import Row, View, without_hidden
from tsfc.view.selection import EVERYTHING, Selection, select, selection_lines

PEERS, EXPLAIN, DOCTOR = "peers", "explain", "doctor"
PATIENCE_SECONDS = 2.0
"Time that an answer may take before `--watch` says that there is none, without pings."


class Options(Struct, frozen=True):
    """Options of these commands, in addition to those of all jobs."""

    watchdog_metrics: str
    "Path of the watchdog's metrics."
    pinging: Pinging | None = None
    "None: send no pings."
    refresh_seconds: float | None = None
    "None: print once."
    is_json: bool = False
    shows_all: bool = False
    "Show the peers that `tailscale status` hides, too."
    selection: Selection = EVERYTHING


def run(common: RunOptions, options: Options) -> int:
    """Print the peers, once or until terminated, and return the exit status."""
    seconds = options.refresh_seconds
    if seconds is not None and not options.is_json and terminal.can_fill_screen():
        return _watch(common, options, seconds)
    exit_status = _print_peers(common, options)
    while seconds is not None:
        signals.sleep(seconds)
        _print_peers(common, options)
    return exit_status


def explain(common: RunOptions, options: Options, name: str) -> int:
    """Print the sentences about one peer or this node, and return the exit status."""
    explained = waiting.run(_explained(common, options, name))
    if isinstance(explained, Failure):
        print_error(EXPLAIN, explained.failure())
        return 1
    write_out(explained.unwrap())
    return 0


async def _explained(common: RunOptions, options: Options, name: str) -> Result[str, str]:
    """Return what `explain` prints."""
    from tsfc.view import document, sentences  # noqa: PLC0415

    made = await look(EXPLAIN, common, options.watchdog_metrics)
    if isinstance(made, Failure):
        return Failure(made.failure())
    view = made.unwrap()
    found = sentences.subject(view, name)
    if isinstance(found, Failure):
        return Failure(found.failure())
    peer, own = found.unwrap(), view.status.self_
    is_peer = peer.status is not own

    # The node itself is not pinged.
    pings: tuple[PingResult, ...] = ()
    if options.pinging is not None and is_peer:
        pings, warnings = await ping_peer(EXPLAIN, common, peer, options.pinging)
        view = replace(view, warnings=(*view.warnings, *warnings))
    lines = sentences.explain(view, peer, pings)
    if not options.is_json:
        return Success("".join(f"{line}\n" for line in lines))
    row = sentences.row_of(view, peer) if is_peer else None
    return Success(
        document.encode_explanation(
            view,
            row if row is None or not pings else replace(row, ping=overall_result(pings)),
            lines,
            why=unwatched(peer.status, own.tailscale_ips or ()) if is_peer else None,
            alternatives=() if row is None else sentences.alternatives(view, row),
            pings=pings,
        )
    )


def diagnose(common: RunOptions, options: Options) -> int:
    """Print what is wrong with the node, and return the exit status."""
    from tsfc.view import doctor  # noqa: PLC0415

    made = waiting.run(look(DOCTOR, common, options.watchdog_metrics))
    if isinstance(made, Failure):
        print_error(DOCTOR, made.failure())
        return 1
    view = without_hidden(made.unwrap())
    found = doctor.findings(view, waiting.run(own_net_info(common, view.status)))
    write_out(doctor.render(view, found))
    return 0


async def _peers(common: RunOptions, options: Options) -> Result[tuple[View, tuple[Row, ...]], str]:
    """Return the node and the selected peers."""
    made = await look(PEERS, common, options.watchdog_metrics, options.pinging)
    if isinstance(made, Failure):
        return Failure(made.failure())
    view = made.unwrap() if options.shows_all else without_hidden(made.unwrap())
    return Success((view, select(view, options.selection)))


def _print_peers(common: RunOptions, options: Options) -> int:
    made = waiting.run(_peers(common, options))
    if isinstance(made, Failure):
        print_error(PEERS, made.failure())
        return 1
    view, rows = made.unwrap()
    write_out(_json(view, rows) if options.is_json else _text(view, rows, options.selection))
    return 0


def _json(view: View, rows: tuple[Row, ...]) -> str:
    from tsfc.view import document  # noqa: PLC0415

    return document.encode(replace(view, rows=rows))


def _text(view: View, rows: tuple[Row, ...], selection: Selection) -> str:
    from tsfc.view import table  # noqa: PLC0415

    lines = _lines(view, rows, selection)
    return table.render(view, rows, lines, is_terminal=os.isatty(STDOUT))


def _lines(view: View, rows: tuple[Row, ...], selection: Selection) -> list[str]:
    """Return the lines above the table."""
    return [*header_lines(view), *selection_lines(view, rows, selection)]


def _watch(common: RunOptions, options: Options, interval: float) -> int:
    from tsfc.view import table  # noqa: PLC0415
    from tsfc.view.screen import Answer, Screen  # noqa: PLC0415
    from tsfc.view.watch import watch  # noqa: PLC0415

    async def ask() -> Result[Answer, str]:
        made = await _peers(common, options)
        if isinstance(made, Failure):
            return Failure(made.failure())
        view, rows = made.unwrap()
        lines = _lines(view, rows, options.selection)
        return Success(Answer(tuple(lines), table.cells(view, rows)))

    pings = 0.0 if options.pinging is None else options.pinging.timeout
    return watch(
        ask,
        Screen(interval, PATIENCE_SECONDS + pings, time.monotonic()),
        now=common.now,
    )
