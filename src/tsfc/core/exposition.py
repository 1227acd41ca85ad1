"""Families to the Prometheus text format 0.0.4, and a check of text that others wrote. The only importer of prometheus_client.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample as TextSample
from returns.result import Failure, Result, Success

from tsfc.core.families import Family, Kind
from tsfc.core.text import one_line

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'(?!__name__\b)[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
_NUMBER = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?|Inf)|NaN"
_SAMPLE = re.compile(rf"(?P<name>{_NAME})(?:\{{(?:{_LABEL}(?:, ?{_LABEL})*,?)?\}})?[ \t]+(?P<value>{_NUMBER})(?P<timestamp>[ \t]+-?\d+)?", re.ASCII)
_DESCRIPTION = re.compile(rf"# (?:HELP {_NAME}(?: (?:[^\\]|\\[\\n])*)?|TYPE {_NAME} (?:counter|gauge|histogram|summary|untyped))", re.ASCII)
_DESCRIBES = re.compile(r"\s*#\s*(?:HELP|TYPE)(?:\s|$)")


class _Once(Collector):
    """Families as prometheus_client wants them. One at a time, for a large tailnet has 130,000 samples."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            is_counter = family.kind is Kind.COUNTER
            metric = Metric(family.name.removesuffix("_total") if is_counter else family.name, family.help, family.kind.value)
            metric.samples = [TextSample(family.name, dict(sample.labels), sample.value) for sample in family.samples]
            yield metric


def render(families: Iterable[Family]) -> str:
    """Returns families as text: one block each, in the order given."""
    return generate_latest(_Once(families)).decode()


def check(text: str) -> Result[tuple[str, ...], str]:
    """Reads an exposition as strictly as node_exporter does, which refuses a file as a whole. Returns its metric names.

    prometheus_client's parser "is a laxer parser than the main Go parser, so successful parsing does not imply that the
    parsed text meets the specification". So each line is held against the grammar first. A failure says which line or
    series is at fault, and how. Refused too is what a textfile may not have: client timestamps
    (`collector/textfile.go` of node_exporter).
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if (problem := _line_problem(line)) is not None:
            return Failure(f"line {number} {problem}: {one_line(line, 80)!r}")
    if text and not text.endswith("\n"):
        return Failure("the last line has no end")
    try:
        metrics = list(text_string_to_metric_families(text))
    except ValueError as error:
        return Failure(one_line(str(error)) or "a label is malformed")
    problem = _described_twice(text) or _scattered(metrics) or _bad_series([sample for metric in metrics for sample in metric.samples])
    if problem is not None:
        return Failure(problem)
    return Success(tuple(sorted({sample.name for metric in metrics for sample in metric.samples})))


def _line_problem(line: str) -> str | None:
    if _DESCRIBES.match(line):
        return None if _DESCRIPTION.fullmatch(line) else "is no valid HELP or TYPE"
    if not line or line.startswith("#"):
        return None
    sample = _SAMPLE.fullmatch(line)
    if sample is None:
        return "is no valid sample"
    if sample["timestamp"]:
        return "has a timestamp, which a textfile must not have"
    if math.isinf(float(sample["value"])) and "Inf" not in sample["value"]:
        return "has a value out of range"
    return None


def _described_twice(text: str) -> str | None:
    descriptions = Counter(" ".join(line.split()[1:3]) for line in text.split("\n") if _DESCRIBES.match(line))
    return next((f"there is a second {description}" for description, times in descriptions.items() if times > 1), None)


def _scattered(metrics: list[Metric]) -> str | None:
    # The parser gives each sample without a TYPE as a metric of its own, so neighbours of one name are one block.
    blocks = [name for name, _ in itertools.groupby(metric.name for metric in metrics)]
    return next((f"the samples of {name} are scattered over the file" for name, times in Counter(blocks).items() if times > 1), None)


def _bad_series(samples: list[TextSample]) -> str | None:
    series = Counter((sample.name, frozenset(sample.labels.items())) for sample in samples)
    for (name, labels), times in series.items():
        if times > 1:
            return f"{name} has two samples with the labels {one_line(str(dict(sorted(labels))), 80)}"
        for label, value in labels:
            if label in {"le", "quantile"} and not re.fullmatch(_NUMBER, value, re.ASCII):
                return f"{name} has the label {label} with no number in it"
    return None
