"""Metrics as data: what a job says, before it is text.

Names and kinds follow https://prometheus.io/docs/practices/naming/. `tailscaled_*` belongs to tailscaled itself
(`tailscale metrics print`), everything here is `tailscale_*`.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

NO_LABELS: dict[str, str] = {}


class Kind(StrEnum):
    """What a family's numbers do over time; the word behind `# TYPE`."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Sample(Struct, frozen=True):
    """One number, and the labels that tell it from its family's others."""

    labels: dict[str, str]
    value: float


class Family(Struct, frozen=True):
    """One metric: all its samples, in the order in which they are written."""

    name: str
    "The whole name, `_total` of a counter included."
    kind: Kind
    help: str
    "One sentence; stable, for node_exporter refuses two texts for one name."
    samples: tuple[Sample, ...]


def gauge(name: str, text: str, value: float) -> Family:
    """Returns a gauge of one sample without labels."""
    return Family(name, Kind.GAUGE, text, (Sample(NO_LABELS, value),))


def counter(name: str, text: str, value: float) -> Family:
    """Returns a counter of one sample without labels."""
    return Family(name, Kind.COUNTER, text, (Sample(NO_LABELS, value),))


def duration(job: str, seconds: float) -> Family:
    """Returns the gauge in which the job `job` (as on the command line) says how long its run took."""
    return gauge(
        f"tailscale_{job.replace('-', '_')}_duration_seconds",
        f"Duration of the last {job} run in seconds.",
        round(seconds, 6),
    )
