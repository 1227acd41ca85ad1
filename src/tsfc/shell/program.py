"""Other programs: run with a bound on their time and on what they say, and reaped."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.text import one_line
from tsfc.shell.signals import LONGEST_WAIT_SECONDS, deferred_signals

OUTPUT_LIMIT = 256 * 2**20
"Bytes that a program may print, past which it is ended."
GRACE_SECONDS = 1.0
"Between SIGTERM and SIGKILL for a program that has to go."
_PIECE = 2**18


class Completed(Struct, frozen=True):
    """A program that ended by itself."""

    status: int
    stdout: bytes
    stderr: bytes

    def complaint(self) -> str:
        """Returns how it ended and what it said of it, as one line."""
        ended = (
            f"exit status {self.status}"
            if self.status >= 0
            else f"ended by {signal.Signals(-self.status).name}"
        )
        said = one_line(
            (self.stderr.strip() or self.stdout.strip())[:1200].decode(errors="replace")
        )
        return f"{ended}: {said}" if said else ended


class TimedOut(Struct, frozen=True):
    """A program that did not end in time, and was ended."""

    seconds: float


class StartError(Struct, frozen=True):
    """A program that could not be started, or that said too much; why, as one line."""

    detail: str


def run(argv: Sequence[str], *, timeout: float) -> Result[Completed, TimedOut | StartError]:
    """Runs a program without standard input to its end; past `timeout` seconds or `OUTPUT_LIMIT` bytes it is ended, with all it started."""
    deadline = time.monotonic() + timeout
    children: list[subprocess.Popen[bytes]] = []
    try:
        try:
            child = start(argv, children, stderr=subprocess.PIPE)
        except OSError as error:
            return Failure(StartError(error.strerror or str(error)))
        outputs, unfinished = collect(
            [stream.fileno() for stream in (child.stdout, child.stderr) if stream],
            deadline=deadline,
        )
        stdout, stderr = outputs.values()
        if len(stdout) + len(stderr) > OUTPUT_LIMIT:
            return Failure(StartError(f"it printed more than {OUTPUT_LIMIT // 2**20} MiB"))
        if unfinished:
            return Failure(TimedOut(timeout))
        return Success(
            Completed(
                child.wait(max(0.0, deadline - time.monotonic())), bytes(stdout), bytes(stderr)
            )
        )
    except subprocess.TimeoutExpired:
        return Failure(TimedOut(timeout))
    finally:
        end_all(children)


def start(
    argv: Sequence[str], children: list[subprocess.Popen[bytes]], *, stderr: int
) -> subprocess.Popen[bytes]:
    """Starts a program in a process group of its own and notes it in `children`, both or neither, whatever signal comes."""
    with deferred_signals():
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, process_group=0
        )
        children.append(child)
    return child


def collect(
    descriptors: Sequence[int], *, deadline: float
) -> tuple[dict[int, bytearray], set[int]]:
    """Reads from all at once, each to its end. Returns what each gave, and which had not ended by `deadline` (or at `OUTPUT_LIMIT`)."""
    outputs = {descriptor: bytearray() for descriptor in descriptors}
    total = 0
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        unfinished = set(descriptors)
        while (
            unfinished and total <= OUTPUT_LIMIT and (remaining := deadline - time.monotonic()) > 0
        ):
            for key, _ in selector.select(min(remaining, LONGEST_WAIT_SECONDS)):
                piece = os.read(key.fd, _PIECE)
                outputs[key.fd] += piece
                total += len(piece)
                if not piece:
                    selector.unregister(key.fd)
                    unfinished.discard(key.fd)
        return outputs, unfinished


def end_all(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends every child that was not waited for, with all that it started, and waits for it: SIGTERM, then SIGKILL.

    A child is waited for last of all: until then its process group's number is not given to anybody else.
    """
    running = [child for child in children if child.returncode is None]
    _signal_groups(running, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and not all(_has_ended(child) for child in running):
        time.sleep(0.005)
    _signal_groups(running, signal.SIGKILL)
    for child in running:
        child.wait()
    for child in children:
        for stream in (child.stdout, child.stderr):
            if stream:
                stream.close()


def _signal_groups(children: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for child in children:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
