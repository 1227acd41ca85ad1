"""Standard output and standard error."""

from __future__ import annotations

import os
import select
import sys
import time

from msgspec import Struct, field

from tsfc.core.text import printable
from tsfc.shell.atomic import write_all

STDIN, STDOUT, STDERR = 0, 1, 2
PATIENCE_SECONDS = 1.0
"Time that a process waits for the readers of its lines, in total."
_LINE_LIMIT = 10_000
"Characters of an error line. A path has at most 4,096 bytes."
_PIECE = select.PIPE_BUF
"Bytes that a descriptor accepts at once if `poll` calls it writable."


class _Lines(Struct):
    """What happened to the lines that this process printed."""

    patience: float = PATIENCE_SECONDS
    "Seconds left to wait for readers."
    dropped: int = 0
    "Number of lines that are missing, or incomplete."
    torn: set[int] = field(default_factory=set[int])
    "Descriptors whose last line is incomplete."


_lines = _Lines()


def print_error(job: str, line: str) -> None:
    """Print an error or a warning of a job on standard error; see `error_line`."""
    say(STDERR, error_line(job, line))


def error_line(job: str, line: str) -> str:
    """Return an error or a warning of a job as one printable line.

    Paths and names from the command line can have any characters.
    """
    return f"tsfc {job}: {printable(line, _LINE_LIMIT)}"


def say(descriptor: int, line: str) -> None:
    """Print a line; drop it if its reader does not accept it in time; ignore errors.

    A run continues if its output is full, closed or blocked: a journal that is full or
    stopped must not keep a peer on relay.
    """
    try:
        if not _write_soon(descriptor, os.fsencode(line + "\n")):
            _lines.dropped += 1
    except OSError:
        return


def print_dropped() -> None:
    """Print how many lines were dropped, if any."""
    if _lines.dropped:
        number, _lines.dropped = _lines.dropped, 0
        say(
            STDERR,
            f"tsfc: printing: {number} lines were dropped, because their reader blocked for "
            f"{PATIENCE_SECONDS:g} s; check what reads the output",
        )


def write_out(text: str | bytes) -> None:
    """Write to standard output; exit with status 1 if that fails.

    No message is printed if the reader has closed the pipe (`| head`).
    """
    try:
        write_all(STDOUT, text.encode() if isinstance(text, str) else text)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        say(STDERR, f"tsfc: writing to standard output: {error.strerror}; check disk space")
        sys.exit(1)


def _write_soon(descriptor: int, data: bytes) -> bool:
    """Write all of `data`, unless that blocks for too long."""
    rest = b"\n" + data if descriptor in _lines.torn else data
    while rest and _is_writable(descriptor):
        write_all(descriptor, rest[:_PIECE])
        rest = rest[_PIECE:]
        _lines.torn.add(descriptor)
    if not rest:
        _lines.torn.discard(descriptor)
    return not rest


def _is_writable(descriptor: int) -> bool:
    """Whether a piece can be written without blocking; wait for that.

    `O_NONBLOCK` would affect all processes that share the pipe or the terminal.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    started = time.monotonic()
    is_writable = bool(poll.poll(_lines.patience * 1000))
    _lines.patience = max(0.0, _lines.patience - (time.monotonic() - started))
    return is_writable
