"""Time as an argument.

The core reads no clock. The shell reads both clocks once per run; a capture records
only the wall clock.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MAX_NUMBER = 2**53
"""Largest integer up to which a float64 sample represents every integer.

Larger numbers in a state file are rejected.
"""
Seconds = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]


class Boot(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A reading of the boot clock (`CLOCK_BOOTTIME`).

    It starts at boot, runs during suspend and cannot be set.
    """

    id: str
    """Identifier of the boot (`/proc/sys/kernel/random/boot_id`).

    Only readings of the same boot can be compared.
    """
    seconds: Seconds
    monotonic: Seconds | None = None
    """Reading of `CLOCK_MONOTONIC`, which stops during suspend; otherwise as `seconds`.

    None in captures of tsfc before 0.2.
    """


class Instant(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A reading of the clocks, in whole seconds; fractions are cut off."""

    unix: Seconds
    "Unix time of the wall clock, which can be set forward and back."
    boot: Boot | None = None
    "None if the time comes from `--now` or a capture, or if there is no boot clock."


STEP_SECONDS = 5
"""Largest difference between the two clocks, in seconds, that is not a step.

Cutting off fractions contributes up to 2, slewing 0.03 per minute (500 ppm, the
kernel's limit).
"""


def step_between(before: Instant | None, now: Instant) -> int:
    """Return how many seconds the wall clock was set forward between two readings.

    Negative if it was set back. 0 if it was not set, or if the boot clock is
    unavailable.
    """
    if before is None or before.boot is None or now.boot is None or before.boot.id != now.boot.id:
        return 0
    step = (now.unix - before.unix) - (now.boot.seconds - before.boot.seconds)
    return step if abs(step) > STEP_SECONDS else 0


def suspended_between(before: Instant, now: Instant) -> int | None:
    """Return how many seconds the host was suspended between two readings.

    None if that is unknown: without the boot clock, or after a reboot.
    """
    if (
        before.boot is None
        or now.boot is None
        or before.boot.id != now.boot.id
        or before.boot.monotonic is None
        or now.boot.monotonic is None
    ):
        return None
    awake = now.boot.monotonic - before.boot.monotonic
    return max(0, now.boot.seconds - before.boot.seconds - awake)
