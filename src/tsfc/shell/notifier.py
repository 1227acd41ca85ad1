"""Tell people, through a program of theirs, what the watchdog did."""

from __future__ import annotations

import os
import socket
import time

from msgspec import Struct
from returns.result import Failure

from tsfc.core.text import PATH_LIMIT, printable
from tsfc.core.watchdog.notices import Notice, encode
from tsfc.shell import program
from tsfc.shell.program import StartError, TimedOut
from tsfc.shell.unix_stream import connect, send

TIMEOUT_SECONDS = 10.0
"Maximum run time of the program, and maximum time to hand over the notices."


class Program(Struct, frozen=True):
    """A program to start. Its standard input is the notices."""

    path: str


class Listener(Struct, frozen=True):
    """A Unix socket on which systemd starts the program for each connection."""

    path: str


Notifier = Program | Listener


async def notify(notifier: Notifier, notices: tuple[Notice, ...]) -> str | None:
    """Hand over the notices as lines of JSON; return a line about what went wrong."""
    data = encode(notices)
    problem = (
        await _run(notifier.path, data)
        if isinstance(notifier, Program)
        else await _send(notifier.path, data)
    )
    return problem and f"notifying with {printable(notifier.path, PATH_LIMIT)}: {problem}"


async def _run(path: str, data: bytes) -> str | None:
    # A file, unlike a pipe, holds any number of notices before the program reads them.
    descriptor = os.memfd_create("notices")
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        ran = await program.run((path,), timeout=TIMEOUT_SECONDS, stdin=descriptor)
    finally:
        os.close(descriptor)
    if isinstance(ran, Failure):
        problem: TimedOut | StartError = ran.failure()
        match problem:
            case TimedOut(seconds=seconds):
                return f"it was ended after {seconds:g} s; make it quicker"
            case StartError(detail=detail):
                return f"{detail}; correct --notify-exec"
    if ran.unwrap().status:
        return f"{ran.unwrap().summary()}; run it by hand for details"
    return None


async def _send(path: str, data: bytes) -> str | None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            await connect(connection, path, deadline)
            await send(connection, data, deadline)
    except TimeoutError:
        return f"not taken within {TIMEOUT_SECONDS:g} s; see `systemctl list-units '*notify*'`"
    except OSError as error:
        return f"{error.strerror or error}; is the socket unit started?"
    return None
