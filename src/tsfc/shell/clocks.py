"""The clocks, read once per run."""

from __future__ import annotations

import time

from tsfc.core.clock import Boot, Instant

BOOT_ID = "/proc/sys/kernel/random/boot_id"


def unix_time(override: float | None) -> float:
    """Return the Unix time in seconds; `override` (`--now`) replaces the wall clock."""
    return time.time() if override is None else override  # noqa: TID251 - the one place


def instant(override: float | None) -> Instant:
    """Return the time in whole seconds, with the boot clock if there is one.

    With `override` (`--now`), there is no reading of the boot clock.
    """
    if override is not None:
        return Instant(int(override))
    return Instant(int(unix_time(None)), _boot())


def time_of_day(unix_time: float) -> str:
    """Return a time as a clock of this host shows it: `22:14:05`."""
    return time.strftime("%H:%M:%S", time.localtime(unix_time))


def _boot() -> Boot | None:
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            boot_id = file.read().strip()
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME)
        monotonic = time.clock_gettime(time.CLOCK_MONOTONIC)
    except (OSError, ValueError, AttributeError):
        return None
    return Boot(boot_id, int(seconds), int(monotonic))
