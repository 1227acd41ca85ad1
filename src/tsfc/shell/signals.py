"""SIGTERM, SIGINT and SIGHUP as an exception.

Every `finally` runs, so no child, temporary file or lock is left behind.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

LONGEST_WAIT_SECONDS = 1.0
"""Longest single wait for a descriptor; callers wait again until their deadline.

A signal can arrive after Python's check for signals and before the system call that
waits. It does not interrupt that call and is handled only when the wait is over.
"""


class Terminated(BaseException):
    """A signal asked the run to end.

    Not an `Exception`, so that code that handles failures does not catch it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def install() -> None:
    """Make SIGTERM, SIGINT and SIGHUP raise `Terminated` once; ignore later ones."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` sets SIGHUP
            signal.signal(number, _end)


def uninstall() -> None:
    """Restore the default actions, after there is nothing left to clean up."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def deferred_signals() -> Generator[None, None, None]:
    """Defer the signals until the block ends.

    For steps that must not be interrupted, such as starting a child and recording it.
    """
    arrived: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        arrived.append(number)

    previous = {number: signal.getsignal(number) for number in ENDING}
    for number in ENDING:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


def _end(number: int, _: FrameType | None) -> None:
    for other in ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise Terminated(number)
