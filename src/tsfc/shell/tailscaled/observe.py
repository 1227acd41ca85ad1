"""What is asked of tailscaled, and where the answer comes from."""

from __future__ import annotations

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.faults import Fault, Unusable
from tsfc.core.tailscale.status import Status, decode
from tsfc.shell.console import STDIN
from tsfc.shell.tailscaled import source as tailscaled
from tsfc.shell.tailscaled.localapi import ANSWER_LIMIT
from tsfc.shell.tailscaled.source import Source

STANDARD_INPUT = "-"


class RunOptions(Struct, frozen=True):
    """What every job is told on the command line."""

    source: str = "auto"
    "`auto`, `localapi` or `cli`."
    socket: str | None = None
    tailscale: str | None = None
    timeout: float = 10.0
    "Seconds that bound one call to tailscaled."
    status_file: str | None = None
    "Where to read the status instead of asking for it."
    metrics_file: str | None = None
    "Where to read tailscaled's own metrics, instead of asking for them."
    now: float | None = None
    "Unix time, where it is not the clock's."
    metrics_path: str | None = None


def source(common: RunOptions) -> Source:
    """Returns where tailscaled is to be asked."""
    return tailscaled.choose(common.source, socket=common.socket, tailscale=common.tailscale)


def raw_status(common: RunOptions) -> Result[bytes, Fault]:
    """Returns the status as JSON: from the file that was given, else from tailscaled."""
    if common.status_file is not None:
        return read_input(common.status_file)
    return tailscaled.status(source(common), timeout=common.timeout)


def observe(common: RunOptions) -> Result[Status, Fault]:
    """Returns the status: from the file that was given, else from tailscaled."""
    raw = raw_status(common)
    if isinstance(raw, Failure):
        return Failure(raw.failure())
    return decode(raw.unwrap())


def raw_usermetrics(options: RunOptions) -> Result[bytes, Fault]:
    """Tailscaled's own metrics: from the file that was given, else from tailscaled."""
    if options.metrics_file is not None:
        return read_input(options.metrics_file)
    return tailscaled.usermetrics(source(options), timeout=options.timeout)


def read_input(path: str) -> Result[bytes, Fault]:
    """Returns what a file, or standard input (`-`), holds, bounded like an answer of tailscaled."""
    name = "standard input" if path == STANDARD_INPUT else path
    try:
        with open(
            STDIN if path == STANDARD_INPUT else path, "rb", closefd=path != STANDARD_INPUT
        ) as file:
            raw = file.read(ANSWER_LIMIT + 1)
    except OSError as error:
        return Failure(
            Unusable(
                f"reading {name}: {error.strerror}; give a file that can be read, or - for standard input"
            )
        )
    if len(raw) > ANSWER_LIMIT:
        return Failure(
            Unusable(
                f"reading {name}: it is larger than {ANSWER_LIMIT // 2**20} MiB; is it the right file?"
            )
        )
    return Success(raw)
