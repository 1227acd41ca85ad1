"""The moments at which the wall clock is set, or the host resumes.

timerfd_create(2): a timer with `TFD_TIMER_CANCEL_ON_SET` is canceled when the real-time
clock makes a discontinuous change. The kernel counts the end of a suspend as one
(`timerfd_resume`, Linux 5.15). Python has the call only since version 3.13.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress

_CLOCK_REALTIME = 0
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_ABSTIME_CANCEL_ON_SET = 1 | 2
_NEVER = 2**31 - 1
"Unix time at which the timer would expire; it is set again before."


class _Spec(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


@contextmanager
def descriptor() -> Generator[int | None]:
    """Yield a descriptor that is readable after a change; None if there is none."""
    libc = ctypes.CDLL(None)
    timer: int = libc.timerfd_create(_CLOCK_REALTIME, _FLAGS)
    if timer < 0:
        yield None
        return
    try:
        arm(timer)
        yield timer
    finally:
        os.close(timer)


def arm(timer: int) -> None:
    """Make a descriptor wait for the next change."""
    with suppress(OSError):
        os.read(timer, 8)
    spec = _Spec(0, 0, _NEVER, 0)
    ctypes.CDLL(None).timerfd_settime(timer, _ABSTIME_CANCEL_ON_SET, ctypes.byref(spec), None)
