"""The commands `tsfc peers`, `tsfc explain` and `tsfc doctor`: query, ping, print."""

from __future__ import annotations

import os

from msgspec import Struct
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.keepalive import overall_result, pings
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale import whois
from tsfc.core.tailscale.peers import address
from tsfc.core.tailscale.ping import PingResult
from tsfc.core.tailscale.status import Status
from tsfc.core.tailscale.whois import NO_NET_INFO, NetInfo
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.policy import pause_file
from tsfc.core.watchdog.snapshot import Snapshot, decode
from tsfc.shell import regular, signals, textfile, waiting
from tsfc.shell.console import STDOUT, print_error, write_out
from tsfc.shell.system import System
from tsfc.shell.tailscaled import source as tailscaled
from tsfc.shell.tailscaled.observe import RunOptions, observe, source
from tsfc.view import doctor, document, sentences
from tsfc.view.cells import header_lines
from tsfc.view.model import Row, View, make_view, without_hidden
from tsfc.view.selection import EVERYTHING, Selection, select, selection_lines

PEERS, EXPLAIN, DOCTOR = "peers", "explain", "doctor"
SNAPSHOT_LIMIT = 64 * 2**20
"Bytes. The snapshot of 10,000 peers on relay has 0.5 MB."


CLEAR = "\x1b[H\x1b[2J"
"Moves the cursor to the top left and clears the terminal (ECMA-48: CUP, ED)."


class Options(Struct, frozen=True):
    """Options of these commands, in addition to those of all jobs."""

    watchdog_metrics: str
    "Path of the watchdog's metrics."
    is_pinging: bool = False
    ping_timeout: float = 5.0
    "Seconds."
    refresh_seconds: float | None = None
    "None: print once."
    is_json: bool = False
    shows_all: bool = False
    "Show the peers that `tailscale status` hides, too."
    selection: Selection = EVERYTHING


def run(common: RunOptions, options: Options) -> int:
    """Print the peers, once or until terminated, and return the exit status."""
    exit_status = _print_peers(common, options)
    while options.refresh_seconds is not None:
        signals.sleep(options.refresh_seconds)
        _print_peers(common, options)
    return exit_status


def explain(common: RunOptions, options: Options, peer: str) -> int:
    """Print the sentences about one peer, and return the exit status."""
    view = _view(EXPLAIN, common, options)
    lines = view if isinstance(view, Failure) else sentences.explain(view.unwrap(), peer)
    if isinstance(lines, Failure):
        print_error(EXPLAIN, lines.failure())
        return 1
    write_out("".join(f"{line}\n" for line in lines.unwrap()))
    return 0


def diagnose(common: RunOptions, options: Options) -> int:
    """Print what is wrong with the node, and return the exit status."""
    made = _view(DOCTOR, common, options)
    if isinstance(made, Failure):
        print_error(DOCTOR, made.failure())
        return 1
    view = without_hidden(made.unwrap())
    found = doctor.findings(view, _own_net_info(common, view.status))
    write_out(doctor.render(view, found))
    return 0


def _print_peers(common: RunOptions, options: Options) -> int:
    made = _view(PEERS, common, options)
    if isinstance(made, Failure):
        print_error(PEERS, made.failure())
        return 1
    view = made.unwrap() if options.shows_all else without_hidden(made.unwrap())
    rows = select(view, options.selection)
    if options.is_json:
        write_out(document.encode(replace(view, rows=rows)))
    else:
        is_refreshed = options.refresh_seconds is not None
        write_out(_text(view, rows, options.selection, is_refreshed=is_refreshed))
    return 0


def _text(view: View, rows: tuple[Row, ...], selection: Selection, *, is_refreshed: bool) -> str:
    from tsfc.view import table  # noqa: PLC0415 - its import costs more than all others

    lines = [*header_lines(view), *selection_lines(view, rows, selection)]
    if not os.isatty(STDOUT):
        return table.render(view, rows, lines, is_terminal=False)
    if not is_refreshed:
        return table.render(view, rows, lines, is_terminal=True)
    height = os.get_terminal_size(STDOUT).lines
    return CLEAR + table.render(view, rows, lines, is_terminal=True, height=height)


def _view(tool: str, common: RunOptions, options: Options) -> Result[View, str]:
    """Observe the node as the watchdog does, so that both come to the same verdicts."""
    system = System(tool, common)
    read = waiting.run(observe(common))
    if isinstance(read, Failure):
        return Failure(read.failure().detail)
    status = read.unwrap()
    snapshot = _snapshot(options.watchdog_metrics)
    has_snapshot = not isinstance(snapshot, Failure)
    file = pause_file(snapshot.unwrap().policy) if has_snapshot else None
    observed = Observed(
        status, system.tailscaled_start(), is_paused=file is not None and system.is_paused(file)
    )
    now = system.now()
    results = _ping(system, status, options.ping_timeout) if options.is_pinging else {}
    return Success(
        make_view(
            observed,
            snapshot.unwrap() if has_snapshot else None,
            now=now,
            pings=results,
            warnings=() if has_snapshot else (snapshot.failure(),),
        )
    )


def _own_net_info(common: RunOptions, status: Status) -> NetInfo:
    """Return what the control server says of this node's network.

    Nothing if it says nothing, or if the status comes from a file: the report is
    evidence, never a condition.
    """
    ip = address(status.self_)
    if common.status_file is not None or ip is None:
        return NO_NET_INFO
    raw = waiting.run(tailscaled.whois(source(common), ip, timeout=common.timeout))
    if isinstance(raw, Failure):
        return NO_NET_INFO
    return whois.decode(raw.unwrap()).value_or(NO_NET_INFO)


def _snapshot(metrics_path: str) -> Result[Snapshot, str]:
    """Read the watchdog's snapshot, which lies beside its metrics."""
    path = textfile.snapshot_path(metrics_path)
    raw = regular.read_unlinked(path, SNAPSHOT_LIMIT)
    snapshot = raw if isinstance(raw, Failure) else decode(raw.unwrap())
    if not isinstance(snapshot, Failure):
        return snapshot
    return Failure(
        f"reading {path}: {snapshot.failure()}, so the watchdog's verdicts are unknown; "
        "run the watchdog, or set --watchdog-metrics"
    )


def _ping(system: System, status: Status, timeout: float) -> dict[str, PingResult]:
    """Ping each peer once, all at the same time."""
    if not statuses.is_running(status):
        return {}
    round_ = waiting.run(system.ping(pings(status), count=1, timeout=timeout))
    if round_.error is not None:
        print_error(system.job, round_.error)
    return {peer: overall_result(results) for peer, results in round_.results.items()}
