"""Child processes: run with limits on time and output, and always reaped."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.text import one_line
from tsfc.shell import signals
from tsfc.shell.waiting import Wait, select_ready, until

OUTPUT_LIMIT = 256 * 2**20
"Maximum output of a program in bytes; a program that prints more is terminated."
GRACE_SECONDS = 1.0
"Time between SIGTERM and SIGKILL."
_PIECE = 2**18
"Bytes per read."


class Completed(Struct, frozen=True):
    """A program that has ended by itself."""

    status: int
    "Exit status; negative if a signal ended the program."
    stdout: bytes
    stderr: bytes

    def summary(self) -> str:
        """Return how the program ended and what it printed, as one line."""
        status = (
            f"exit status {self.status}"
            if self.status >= 0
            else f"ended by {signal.Signals(-self.status).name}"
        )
        output = (self.stderr.strip() or self.stdout.strip())[:1200]
        text = one_line(output.decode(errors="replace"))
        return f"{status}: {text}" if text else status


class TimedOut(Struct, frozen=True):
    """A program that was terminated because it exceeded its timeout."""

    seconds: float


class StartError(Struct, frozen=True):
    """A program that could not be started, or that printed too much."""

    detail: str
    "What is wrong, as one line."


def problem_of(failure: TimedOut | StartError) -> str:
    """Return why a program gave no result, as one line."""
    match failure:
        case TimedOut(seconds=seconds):
            return f"timed out after {seconds:g} s"
        case StartError(detail=detail):
            return detail


async def run(
    argv: Sequence[str], *, timeout: float, stdin: int = subprocess.DEVNULL
) -> Result[Completed, TimedOut | StartError]:
    """Run a program to its end; its standard input is empty, or the descriptor `stdin`.

    After `timeout` seconds or `OUTPUT_LIMIT` bytes, the program and its descendants are
    terminated.
    """
    deadline = time.monotonic() + timeout
    with ended_children() as children:
        try:
            child = start(argv, children, stderr=subprocess.PIPE, stdin=stdin)
        except OSError as error:
            return Failure(StartError(error.strerror or str(error)))

        # Read both streams to their ends. A descendant may hold them open.
        outputs, unfinished = await collect(
            [stream.fileno() for stream in (child.stdout, child.stderr) if stream],
            deadline=deadline,
        )
        stdout, stderr = outputs.values()
        if len(stdout) + len(stderr) > OUTPUT_LIMIT:
            return Failure(StartError(f"it printed more than {OUTPUT_LIMIT // 2**20} MiB"))
        if unfinished:
            return Failure(TimedOut(timeout))

        # A program may close its streams long before it ends.
        if not await _end(child, deadline):
            return Failure(TimedOut(timeout))
        return Success(Completed(child.wait(), bytes(stdout), bytes(stderr)))


@contextmanager
def ended_children() -> Generator[list[subprocess.Popen[bytes]], None, None]:
    """Yield a list for `start`; when the block ends, end all children in it.

    A signal that ends this process ends them, too.
    """
    children: list[subprocess.Popen[bytes]] = []
    with signals.cleaning_up(lambda: _terminate(children)):
        try:
            yield children
        finally:
            _end_all(children)


def start(
    argv: Sequence[str],
    children: list[subprocess.Popen[bytes]],
    *,
    stderr: int,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program in its own process group and append it to `children`.

    A signal cannot separate the two steps, so no child is ever forgotten.
    """
    with signals.deferred():
        child = subprocess.Popen(
            argv, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, process_group=0
        )
        children.append(child)
    return child


async def collect(
    descriptors: Sequence[int], *, deadline: float
) -> tuple[dict[int, bytearray], set[int]]:
    """Read all descriptors concurrently, each to its end.

    Reading stops at `deadline` (monotonic) or after `OUTPUT_LIMIT` bytes.

    Returns:
        The bytes of each descriptor, and the descriptors that had not ended.
    """
    outputs = {descriptor: bytearray() for descriptor in descriptors}
    total = 0
    with selectors.EpollSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        unfinished = set(descriptors)

        while unfinished and total <= OUTPUT_LIMIT and time.monotonic() < deadline:
            for key in await select_ready(selector, deadline):
                piece = os.read(key.fd, _PIECE)
                outputs[key.fd] += piece
                total += len(piece)
                if not piece:
                    selector.unregister(key.fd)
                    unfinished.discard(key.fd)
        return outputs, unfinished


async def _end(child: subprocess.Popen[bytes], deadline: float) -> bool:
    """Wait for the end of a child; return whether it came before the deadline."""
    descriptor = os.pidfd_open(child.pid)
    try:
        return await until(Wait(descriptor, deadline))
    finally:
        os.close(descriptor)


def _end_all(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminate and reap all children, and close our ends of their pipes."""
    _terminate(children)
    for child in children:
        child.wait()
        for stream in (child.stdout, child.stderr):
            if stream:
                stream.close()


def _terminate(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminate all running children, with their descendants.

    They get SIGTERM, and SIGKILL after `GRACE_SECONDS`. They are not reaped: until then
    the kernel does not reuse the number of a process group. A signal handler calls
    this, possibly during `wait`, so it takes no lock of `Popen`.
    """
    running = [child for child in children if child.returncode is None]
    _signal_groups(running, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and not all(_has_ended(child) for child in running):
        time.sleep(0.005)
    _signal_groups(running, signal.SIGKILL)


def _signal_groups(children: Sequence[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for child in children:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether the child has ended; it is not reaped."""
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # a signal has interrupted `wait` after it reaped the child
        return True
