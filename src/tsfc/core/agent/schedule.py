"""When the jobs of the agent run.

Times are seconds of one clock that cannot be set and that runs during suspend
(`CLOCK_BOOTTIME`).
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from math import floor, inf

from msgspec import Struct
from msgspec.structs import replace


class Entry(Struct, frozen=True):
    """A job and its next run."""

    job: str
    interval: float
    "Seconds between the starts of two runs; more than 0."
    due: float


Schedule = tuple[Entry, ...]


class Plan(Struct, frozen=True):
    """What to do at a moment."""

    due: tuple[str, ...]
    "Jobs to start now."
    skipped: tuple[str, ...]
    "Jobs that are due, but whose last run has not ended."
    schedule: Schedule
    wake: float
    "When the next job is due; infinity without jobs."


def begin(intervals: Mapping[str, float], now: float) -> Schedule:
    """Return the schedule of jobs that all start now.

    Jobs whose intervals are multiples of each other keep meeting, so that one status
    serves them all.
    """
    return tuple(Entry(job, interval, now) for job, interval in intervals.items())


def plan(schedule: Schedule, now: float, running: AbstractSet[str]) -> Plan:
    """Return what is due.

    A run that was missed, for example during a suspend, is not made up for: the job
    runs once, and then again at its usual times.
    """
    due = [entry.job for entry in schedule if entry.due <= now]
    moved = tuple(_moved(entry, now) if entry.due <= now else entry for entry in schedule)
    return Plan(
        tuple(job for job in due if job not in running),
        tuple(job for job in due if job in running),
        moved,
        min((entry.due for entry in moved), default=inf),
    )


def all_due(schedule: Schedule, now: float) -> Schedule:
    """Return the schedule with every job due now: after a suspend, or a clock step."""
    return tuple(replace(entry, due=min(entry.due, now)) for entry in schedule)


def _moved(entry: Entry, now: float) -> Entry:
    """The entry with its next time after `now`."""
    passed = floor((now - entry.due) / entry.interval) + 1
    due = entry.due + passed * entry.interval
    return replace(entry, due=due if due > now else now + entry.interval)
