"""`tsfc peers` and `tsfc explain`: who is on which path, since when, and what the watchdog will do about it."""

from __future__ import annotations

import os
import time

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.clock import Instant
from tsfc.core.keepalive import overall_result, pings
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.ping import PingResult
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.snapshot import Snapshot, decode
from tsfc.shell import textfile
from tsfc.shell.clocks import unix_time
from tsfc.shell.console import STDOUT, print_error, write_out
from tsfc.shell.host import System
from tsfc.shell.tailscaled.observe import RunOptions, observe
from tsfc.view import document, sentences, table
from tsfc.view.model import View, view

PEERS, EXPLAIN = "peers", "explain"
LIMIT = 64 * 2**20
"Bytes of the watchdog's metrics; ten thousand peers make four million."
CLEAR = "\x1b[H\x1b[2J"
"Moves to the top of a terminal and clears it (ECMA-48: CUP, ED)."


class Options(Struct, frozen=True):
    """What it is told on the command line, beside what every job is told."""

    watchdog_metrics: str
    is_pinging: bool = False
    ping_timeout: float = 5.0
    refresh_seconds: float | None = None
    "Seconds from one drawing to the next; None for a single one."
    is_json: bool = False


def run(common: RunOptions, options: Options) -> int:
    """Shows the peers; returns the exit status."""
    while True:
        looked = _look(PEERS, common, options)
        if isinstance(looked, Failure):
            print_error(PEERS, looked.failure())
            if options.refresh_seconds is None:
                return 1
        else:
            shown = looked.unwrap()
            write_out(
                document.encoded(shown)
                if options.is_json
                else _drawn(shown, is_again=options.refresh_seconds is not None)
            )
        if options.refresh_seconds is None:
            return 0
        time.sleep(options.refresh_seconds)


def explain(common: RunOptions, options: Options, peer: str) -> int:
    """Explains one peer; returns the exit status."""
    looked = _look(EXPLAIN, common, options)
    if isinstance(looked, Failure):
        print_error(EXPLAIN, looked.failure())
        return 1
    explained = sentences.explained(looked.unwrap(), peer)
    if isinstance(explained, Failure):
        print_error(EXPLAIN, explained.failure())
        return 1
    write_out("".join(f"{line}\n" for line in explained.unwrap()))
    return 0


def _look(tool: str, common: RunOptions, options: Options) -> Result[View, str]:
    observed = observe(common)
    if isinstance(observed, Failure):
        return Failure(observed.failure().detail)
    status = observed.unwrap()
    memory = _memory(options.watchdog_metrics)
    latencies = _latencies(tool, common, status, options.ping_timeout) if options.is_pinging else {}
    unread = (memory.failure(),) if isinstance(memory, Failure) else ()
    known = None if isinstance(memory, Failure) else memory.unwrap()
    return Success(
        view(
            status,
            known,
            now=Instant(int(unix_time(common.now))),
            latencies=latencies,
            unread=unread,
        )
    )


def _memory(metrics_path: str) -> Result[Snapshot, str]:
    """Read the watchdog's snapshot, which lies beside its metrics."""
    path = textfile.snapshot_path(metrics_path)
    advice = "the watchdog's verdicts are unknown; run it, or give its --watchdog-metrics"
    try:
        with open(path, "rb") as file:
            raw = file.read(LIMIT)
    except OSError as error:
        return Failure(f"reading {path}: {error.strerror}; {advice}")
    snapshot = decode(raw)
    if isinstance(snapshot, Failure):
        return Failure(f"reading {path}: {snapshot.failure()}; {advice}")
    return snapshot


def _latencies(
    tool: str, common: RunOptions, status: Status, timeout: float
) -> dict[str, PingResult]:
    """Pings each peer once, all at the same time."""
    if not statuses.is_running(status):
        return {}
    round_ = System(tool, common).ping(pings(status), count=1, timeout=timeout)
    if round_.error is not None:
        print_error(tool, round_.error)
    return {peer: overall_result(answers) for peer, answers in round_.results.items()}


def _drawn(shown: View, *, is_again: bool) -> str:
    if not os.isatty(STDOUT):
        return table.drawn(shown, is_terminal=False)
    return (
        CLEAR + table.drawn(shown, is_terminal=True, height=os.get_terminal_size(STDOUT).lines)
        if is_again
        else table.drawn(shown, is_terminal=True)
    )
