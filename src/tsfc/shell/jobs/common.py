"""What the jobs have in common: what they are told, where their input comes from, how they report."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.families import Family, duration
from tsfc.core.faults import Fault, Unusable
from tsfc.core.status import Status, decode
from tsfc.shell import tailscaled, textfile
from tsfc.shell.atomic import write_all
from tsfc.shell.localapi import ANSWER_LIMIT
from tsfc.shell.tailscaled import Source

STANDARD_INPUT = "-"
STDIN, STDOUT, STDERR = 0, 1, 2


class Common(Struct, frozen=True):
    """What every job is told on the command line."""

    source: str = "auto"
    "`auto`, `localapi` or `cli`."
    socket: str | None = None
    tailscale: str | None = None
    timeout: float = 10.0
    "Seconds that bound one call to tailscaled."
    status_file: str | None = None
    "Where to read the status instead of asking for it."
    now: float | None = None
    "Unix time, where it is not the clock's."
    metrics_path: str | None = None


def source(common: Common) -> Source:
    """Returns where tailscaled is to be asked."""
    return tailscaled.choose(common.source, socket=common.socket, tailscale=common.tailscale)


def observe(common: Common) -> Result[Status, Fault]:
    """Returns the status: from the file that was given, else from tailscaled."""
    raw = tailscaled.status(source(common), timeout=common.timeout) if common.status_file is None else read_input(common.status_file)
    if isinstance(raw, Failure):
        return Failure(raw.failure())
    return decode(raw.unwrap())


def read_input(path: str) -> Result[bytes, Fault]:
    """Returns what a file, or standard input (`-`), holds, bounded like an answer of tailscaled."""
    name = "standard input" if path == STANDARD_INPUT else path
    try:
        with open(STDIN if path == STANDARD_INPUT else path, "rb", closefd=path != STANDARD_INPUT) as file:
            raw = file.read(ANSWER_LIMIT + 1)
    except OSError as error:
        return Failure(Unusable(f"reading {name}: {error.strerror}; give a file that can be read, or - for standard input"))
    if len(raw) > ANSWER_LIMIT:
        return Failure(Unusable(f"reading {name}: it is larger than {ANSWER_LIMIT // 2**20} MiB; is it the right file?"))
    return Success(raw)


def report(job: str, common: Common, families: Iterable[Family], *, started: float, before: str = "") -> int:
    """Writes the metrics, if a place was given for them, behind the text `before`; returns the exit status of that.

    The duration of the run, since `started` (monotonic), comes last; a run outside real time has none.
    """
    if common.metrics_path is None:
        return 0
    from tsfc.core.exposition import render  # noqa: PLC0415 - prometheus_client is half of a start, and a keepalive without metrics needs none

    own = () if common.now is not None else (duration(job, time.monotonic() - started),)
    written = textfile.write(common.metrics_path, before + render((*families, *own)))
    if isinstance(written, Failure):
        complain(job, written.failure())
        return 1
    return 0


def complain(job: str, line: str) -> None:
    """Says what is wrong, as one line on standard error."""
    say(STDERR, f"tsfc {job}: {line}")


def say(descriptor: int, line: str) -> None:
    """Says a line. A run goes on if nobody listens: a full or closed journal must not keep a peer on relay."""
    try:
        write_all(descriptor, os.fsencode(line + "\n"))
    except OSError:
        return


def write_out(text: str | bytes) -> None:
    """Writes to standard output; where nobody reads it any more (`| head`), or it is full, that is the end."""
    try:
        write_all(STDOUT, text.encode() if isinstance(text, str) else text)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        say(STDERR, f"tsfc: writing to standard output: {error.strerror}; see to the disk")
        sys.exit(1)
