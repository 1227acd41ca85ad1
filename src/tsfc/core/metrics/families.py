"""Metrics as data.

Names and kinds follow https://prometheus.io/docs/practices/naming/. All names begin
with `tailscale_`: `tailscaled_*` are tailscaled's own metrics (`tailscale metrics
print`).
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

NO_LABELS: dict[str, str] = {}


class Kind(StrEnum):
    """Type of a metric, as in its `# TYPE` line."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Sample(Struct, frozen=True):
    """A value with its labels."""

    labels: dict[str, str]
    value: float
    suffix: str = ""
    "What follows the name of the family: `_bucket`, `_count` or `_sum` of a histogram."


class Family(Struct, frozen=True):
    """A metric family: all samples of one metric, in the order of the text."""

    name: str
    "Name of the metric; for a counter, with `_total`."
    kind: Kind
    help: str
    "One sentence. Must not vary: node_exporter rejects two HELP texts for one metric."
    samples: tuple[Sample, ...]


def gauge(name: str, text: str, value: float) -> Family:
    """Return a gauge with one sample and no labels."""
    return Family(name, Kind.GAUGE, text, (Sample(NO_LABELS, value),))


def counter(name: str, text: str, value: float) -> Family:
    """Return a counter with one sample and no labels."""
    return Family(name, Kind.COUNTER, text, (Sample(NO_LABELS, value),))


def duration(job: str, seconds: float) -> Family:
    """Return the duration of a run as a gauge; `job` is the name of the command."""
    return gauge(
        f"tailscale_{job.replace('-', '_')}_duration_seconds",
        f"Duration of the last {job} run in seconds.",
        round(seconds, 6),
    )
