"""Rendering of metric families in the Prometheus text format 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from msgspec.structs import replace
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample as TextSample
from prometheus_client.utils import floatToGoString

from tsfc.core.metrics.families import Family, Kind, Sample


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


class Renderer:
    """Renders families again and again, and keeps what it rendered of their series.

    What changes from run to run are values. prometheus_client renders the name of a
    series and its labels once, as long as each run has the series.
    """

    def __init__(self) -> None:
        self._heads: dict[Family, str] = {}
        self._series: dict[_Series, str] = {}

    def render(self, families: Iterable[Family]) -> str:
        """Return the same text as the function `render`."""
        heads: dict[Family, str] = {}
        series: dict[_Series, str] = {}
        lines: list[str] = []
        for family in families:
            head = replace(family, samples=())
            heads[head] = self._heads.get(head) or render((head,))
            lines.append(heads[head])
            keys = [_key(family, sample) for sample in family.samples]
            series.update(self._texts(family, keys))
            lines += [
                f"{series[key]}{_number(sample.value)}\n"
                for key, sample in zip(keys, family.samples, strict=True)
            ]
        self._heads, self._series = heads, series
        return "".join(lines)

    def _texts(self, family: Family, keys: list[_Series]) -> dict[_Series, str]:
        """What comes before the values of series."""
        texts = {key: self._series.get(key) for key in keys}
        new = {
            key: replace(sample, value=0)
            for key, sample in zip(keys, family.samples, strict=True)
            if texts[key] is None
        }
        zeros = replace(family, samples=tuple(new.values()))
        lines = iter(render((zeros,)).split("\n")[2:] if new else ())
        return {
            key: next(lines).removesuffix(_ZERO) if text is None else text
            for key, text in texts.items()
        }


_Series = tuple[str, ...]
"The name of a series, the names of its labels, and their values."
_number: Callable[[float], str] = floatToGoString
_ZERO = _number(0)


def _key(family: Family, sample: Sample) -> _Series:
    return (family.name + sample.suffix, *sample.labels, *sample.labels.values())


def render(families: Iterable[Family]) -> str:
    """Return families as text: one block each, in the given order."""
    return generate_latest(_Families(families)).decode()
