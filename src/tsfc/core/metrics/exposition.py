"""Rendering of metric families in the Prometheus text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample as TextSample

from tsfc.core.metrics.families import Family, Kind


class _Families(Collector):
    """A collector that converts families for prometheus_client.

    It converts one at a time: a large tailnet has 130,000 samples.
    """

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            is_counter = family.kind is Kind.COUNTER
            metric = Metric(
                family.name.removesuffix("_total") if is_counter else family.name,
                family.help,
                family.kind.value,
            )
            metric.samples = [
                TextSample(family.name + sample.suffix, sample.labels, sample.value)
                for sample in family.samples
            ]
            yield metric


def render(families: Iterable[Family]) -> str:
    """Return families as text: one block each, in the given order."""
    return generate_latest(_Families(families)).decode()
