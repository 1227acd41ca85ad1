"""Rendering of metric families in the Prometheus text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

from msgspec import Struct
from msgspec.structs import replace
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample as TextSample
from prometheus_client.utils import (
    floatToGoString,  # pyright: ignore[reportUnknownVariableType] - it has no types
)

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


class _Kept(Struct):
    """What was rendered of a family."""

    head: str
    "Its lines HELP and TYPE."
    series: dict[_Values, str]
    "What comes before the value of each series."


class Renderer:
    """Renders families again and again, and keeps what it rendered of their series.

    What changes from run to run are values. prometheus_client renders the name of a
    series and its labels once, as long as each run has the series.
    """

    def __init__(self) -> None:
        self._kept: dict[_Names, _Kept] = {}

    def render(self, families: Iterable[Family]) -> str:
        """Return the same text as the function `render`."""
        return "".join(map(self._family, families))

    def _family(self, family: Family) -> str:
        samples = family.samples
        names = tuple(samples[0].labels) if samples else ()
        is_uniform = all(tuple(one.labels) == names and not one.suffix for one in samples)
        key = (family.name, family.help, *names) if is_uniform else (family.name,)
        kept = self._kept.get(key)
        if kept is None:
            kept = _Kept(render((replace(family, samples=()),)), {})
            self._kept[key] = kept
        keys = [
            tuple(one.labels.values())
            if is_uniform
            else (one.suffix, *one.labels, *one.labels.values())
            for one in samples
        ]
        new = {
            key: replace(sample, value=0)
            for key, sample in zip(keys, samples, strict=True)
            if key not in kept.series
        }
        if new:
            _, _, *lines, _ = render((replace(family, samples=tuple(new.values())),)).split("\n")
            kept.series |= zip(new, (line.removesuffix(_ZERO) for line in lines), strict=True)
        if len(kept.series) > len(keys):
            kept.series = {key: kept.series[key] for key in keys}
        series = kept.series
        return kept.head + "".join(
            [
                f"{series[key]}{_number(sample.value)}\n"
                for key, sample in zip(keys, samples, strict=True)
            ]
        )


_Names = tuple[str, ...]
"""The name of a family, its help, and the names of its labels.

The name alone if its series do not have the same labels, as in a histogram.
"""
_Values = tuple[str, ...]
"The values of these labels. In such a family, suffix and names are before them."
_number = cast("Callable[[float], str]", floatToGoString)
_ZERO = _number(0)


def render(families: Iterable[Family]) -> str:
    """Return families as text: one block each, in the given order."""
    return generate_latest(_Families(families)).decode()
