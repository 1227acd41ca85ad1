"""A signal that ends a run, as an exception: every `finally` runs, so no child, no temporary file and no lock is left."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

LONGEST_WAIT_SECONDS = 1.0
"""No wait for a descriptor is longer; after it, the wait begins again.

A signal that comes after Python has looked for signals and before the system call waits is noted, and interrupts
nothing: it is seen when the wait is over.
"""


class Terminated(BaseException):
    """The run was asked to end. No `Exception`: nothing that expects a failure may take it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def install() -> None:
    """Makes the signals that ask a process to end raise `Terminated`, once; those that follow change nothing any more."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` leaves SIGHUP
            signal.signal(number, _end)


def uninstall() -> None:
    """Gives the signals their default meaning again: from here on there is nothing to clean up."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def deferred_signals() -> Generator[None, None, None]:
    """Puts the signals off until the block is left: for a step that must be whole, such as to start a child and note that it runs."""
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
