"""What time it is, as an argument.

The core never asks. The shell reads both clocks once a run; a recording has the wall clock only.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MAX_NUMBER = 2**53
"Where a float, which is what a Prometheus sample is, stops counting by ones; a file with more is not one of ours."
Seconds = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]


class Boot(Struct, frozen=True, forbid_unknown_fields=True):
    """The clock that nobody sets: it runs from boot, suspend included (`CLOCK_BOOTTIME`)."""

    id: str
    "Which boot (`/proc/sys/kernel/random/boot_id`); two readings compare only within one."
    seconds: Seconds


class Instant(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One reading of the clocks, in whole seconds: a fraction is cut off where it enters."""

    unix: Seconds
    "Wall clock, Unix time. It can be set, forward and back."
    boot: Boot | None = None
    "Absent where the time was given (`--now`, a recording) and on systems without such a clock."


STEP_SECONDS = 5
"""How far the two clocks may drift apart between two readings before that is a step.

Cutting off fractions alone makes up to 2, slewing 0.03 a minute (500 ppm, the kernel's limit).
"""


def step_between(before: Instant | None, now: Instant) -> int:
    """Returns by how many seconds the wall clock was set between two readings; 0 where it was not, or nobody can tell."""
    if before is None or before.boot is None or now.boot is None or before.boot.id != now.boot.id:
        return 0
    step = (now.unix - before.unix) - (now.boot.seconds - before.boot.seconds)
    return step if abs(step) > STEP_SECONDS else 0
