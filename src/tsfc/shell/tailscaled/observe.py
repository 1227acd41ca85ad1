"""The status, from tailscaled or from a file, as the command line selects."""

from __future__ import annotations

import os
from collections.abc import Callable

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.faults import Fault, Unusable
from tsfc.core.tailscale.json_input import to_utf8
from tsfc.core.tailscale.status import Status, decode
from tsfc.shell.console import STDIN
from tsfc.shell.defaults import SOCKET
from tsfc.shell.tailscaled import source as tailscaled
from tsfc.shell.tailscaled.response import RESPONSE_LIMIT
from tsfc.shell.tailscaled.source import Source

STANDARD_INPUT = "-"

FindSource = Callable[[], Source]


class RunOptions(Struct, frozen=True):
    """Command-line options that all jobs share."""

    source: str = "auto"
    "`auto`, `localapi` or `cli`."
    socket: str | None = None
    "Path of tailscaled's socket; None for the default."
    tailscale: str | None = None
    "Path of the `tailscale` program; None to search PATH."
    timeout: float = 10.0
    "Timeout of one call to tailscaled, in seconds."
    status_file: str | None = None
    "File to read the status from, instead of tailscaled."
    metrics_file: str | None = None
    "File to read tailscaled's own metrics from, instead of tailscaled."
    now: float | None = None
    "Unix time of the run; None for the wall clock."
    metrics_path: str | None = None
    "File to write the metrics to; None to write none."
    labels: dict[str, str] = {}
    "Labels to add to each series."


def source(options: RunOptions) -> Source:
    """Return the source that the options select."""
    return tailscaled.from_options(
        options.source, socket=options.socket, tailscale=options.tailscale
    )


async def raw_status(options: RunOptions, find: FindSource | None = None) -> Result[bytes, Fault]:
    """Return the status as JSON in UTF-8, from the status file or from tailscaled.

    `find` finds the source, if the options alone do not tell.
    """
    raw = (
        await tailscaled.status(find() if find else source(options), timeout=options.timeout)
        if options.status_file is None
        else read_input(options.status_file)
    )
    return raw.map(to_utf8)


async def observe(options: RunOptions, find: FindSource | None = None) -> Result[Status, Fault]:
    """Return the status, from the status file or from tailscaled; see `raw_status`."""
    raw = await raw_status(options, find)
    if isinstance(raw, Failure):
        return Failure(raw.failure())
    return decode(raw.unwrap())


def tailscaled_start(options: RunOptions) -> int | None:
    """Return the Unix time when tailscaled started; None if its socket is missing.

    A tailscaled that starts creates its socket (`safesocket.listen`, v1.102.3), and the
    time of that change cannot be set.
    """
    path = options.socket or SOCKET
    try:
        return int(os.stat(path).st_ctime)
    except (OSError, ValueError):
        return None


async def raw_usermetrics(
    options: RunOptions, find: FindSource | None = None
) -> Result[bytes, Fault]:
    """Return tailscaled's own metrics, from the metrics file or from tailscaled.

    `find` is as for `raw_status`.
    """
    if options.metrics_file is not None:
        return read_input(options.metrics_file)
    return await tailscaled.usermetrics(
        find() if find else source(options), timeout=options.timeout
    )


def read_input(path: str) -> Result[bytes, Fault]:
    """Return the contents of a file, or of standard input for `-`.

    The size is limited like that of a response of tailscaled.
    """
    is_stdin = path == STANDARD_INPUT
    action = f"reading {'standard input' if is_stdin else path}"
    try:
        with open(STDIN if is_stdin else path, "rb", closefd=not is_stdin) as file:
            raw = file.read(RESPONSE_LIMIT + 1)
    except OSError as error:
        return Failure(
            Unusable(
                f"{action}: {error.strerror}; "
                "specify a file that can be read, or - for standard input"
            )
        )
    if len(raw) > RESPONSE_LIMIT:
        return Failure(
            Unusable(
                f"{action}: it is larger than {RESPONSE_LIMIT // 2**20} MiB; is it the right file?"
            )
        )
    return Success(raw)
