"""The clocks, read once a run."""

from __future__ import annotations

import time

from tsfc.core.clock import Boot, Instant

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def unix_time(given: float | None) -> float:
    """Returns the time in Unix seconds: the one that was given (`--now`), else the wall clock's."""
    return time.time() if given is None else given  # noqa: TID251 - the one place


def instant(given: float | None) -> Instant:
    """Returns the time in whole seconds, and the boot clock's beside it where the time was not given and the system has one."""
    if given is not None:
        return Instant(int(given))
    return Instant(int(unix_time(None)), _boot())


def _boot() -> Boot | None:
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return Boot(file.read().strip(), int(time.clock_gettime(time.CLOCK_BOOTTIME)))
    except (OSError, AttributeError):
        return None
