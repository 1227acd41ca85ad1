"""SIGTERM, SIGINT and SIGHUP: clean up, then end the process.

The handler does both, and never returns to the interrupted code. It raises no
exception, because a library can swallow one, for example in a weakref callback, or
crash from it.
A second signal has its default action: it ends the process at once.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

LONGEST_WAIT_SECONDS = 1.0
"""Longest single wait for a descriptor; callers wait again until their deadline.

A signal can arrive after Python's check for signals and before the system call that
waits. It does not interrupt that call and is handled only when the wait is over.
"""

_STDERR = 2
_LINE_MILLISECONDS = 100
"Time that standard error has to accept the last line."

_clean_ups: list[Callable[[], object]] = []
"What the handler calls, the last one first."
_blocks: list[None] = []
"One element per block of `deferred` that is being executed."
_ending: list[tuple[int, str]] = []
"Exit status and last line of this process, after its first signal."


def install() -> None:
    """Make the signals end the process with status 128 + N and a line.

    An ignored signal stays ignored: `nohup` starts a program with SIGHUP ignored.
    """
    _install(_interrupt)


def install_for_server() -> None:
    """Make the signals end the process with status 0: a server has no other end."""
    _install(_stop)


def end_quietly_on_interrupt() -> None:
    """Make SIGINT end the process with status 0: Ctrl-C leaves a screen."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _stop)


def restore_defaults() -> None:
    """Restore the default actions, which end the process without cleaning up."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def cleaning_up(action: Callable[[], object]) -> Generator[None, None, None]:
    """Call `action` if a signal ends the process during the block.

    It is called between any two steps of the block. It must not import anything or wait
    for a lock that the block takes. Its `OSError` is ignored.
    """
    _clean_ups.append(action)
    try:
        yield
    finally:
        _clean_ups.remove(action)


@contextmanager
def deferred() -> Generator[None, None, None]:
    """Defer the first signal until the block ends.

    For steps that belong together, such as starting a child and recording it.
    """
    _blocks.append(None)
    try:
        yield
    finally:
        _blocks.pop()
        if _ending and not _blocks:
            _end(*_ending[0])


def sleep(seconds: float) -> None:
    """Sleep, and wake up for a signal within `LONGEST_WAIT_SECONDS`."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, LONGEST_WAIT_SECONDS))


def _install(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _interrupt(number: int, _: FrameType | None) -> None:
    name = signal.Signals(number).name
    _handle(number, 128 + number, f"tsfc: ended by {name} before it was done\n")


def _stop(number: int, _: FrameType | None) -> None:
    _handle(number, 0, "")


def _handle(number: int, status: int, line: str) -> None:
    # The first signal must not restore the default actions: Python drops a signal that
    # has arrived already, and prints a traceback.
    if _ending:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _ending.append((status, line))
    if not _blocks:
        _end(status, line)


def _end(status: int, line: str) -> None:
    try:
        for clean_up in reversed(_clean_ups):
            with suppress(OSError):
                clean_up()
        _print(line)
    finally:
        os._exit(status)


def _print(line: str) -> None:
    """Print a line on standard error, unless that blocks."""
    poll = select.poll()
    poll.register(_STDERR, select.POLLOUT)
    if line and poll.poll(_LINE_MILLISECONDS):
        with suppress(OSError):
            os.write(_STDERR, line.encode())


def _forget() -> None:
    """Leave the clean-up to the parent process."""
    _clean_ups.clear()
    if any(signal.getsignal(number) in {_interrupt, _stop} for number in ENDING):
        restore_defaults()


os.register_at_fork(after_in_child=_forget)
