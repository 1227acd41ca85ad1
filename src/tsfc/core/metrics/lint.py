"""A linter for expositions that tsfc did not write.

It is as strict as node_exporter, which rejects a whole file for one bad line.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from returns.result import Failure, Result, Success

from tsfc.core.text import one_line

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'(?!__name__\b)[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
_NUMBER = r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?|Inf)|NaN"
_SAMPLE = re.compile(
    rf"(?P<name>{_NAME})(?:\{{(?:{_LABEL}(?:, ?{_LABEL})*,?)?\}})?"
    rf"[ \t]+(?P<value>{_NUMBER})(?P<timestamp>[ \t]+-?\d+)?",
    re.ASCII,
)
_HELP = re.compile(rf"# HELP (?P<name>{_NAME})(?: (?:[^\\]|\\[\\n])*)?", re.ASCII)
_TYPE = re.compile(
    rf"# TYPE (?P<name>{_NAME}) (?P<type>counter|gauge|histogram|summary|untyped)", re.ASCII
)
_DESCRIPTION = re.compile(r"\s*#\s*(?:HELP|TYPE)(?:\s|$)")
_SUFFIXES = {
    "_sum": {"summary", "histogram"},
    "_count": {"summary", "histogram"},
    "_bucket": {"histogram"},
}
"Suffixes of samples, by the types of the metric that has the name without the suffix."


def check(text: str) -> Result[tuple[str, ...], str]:
    """Check an exposition; return the sorted names of its metrics, or what is wrong.

    prometheus_client's parser "is a laxer parser than the main Go parser, so successful
    parsing does not imply that the parsed text meets the specification". So each line
    is matched against the grammar first. Timestamps are rejected as well: node_exporter
    allows none in a textfile (`collector/textfile.go`).
    """
    # Match each line by itself.
    parts: list[re.Match[str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        part = _TYPE.fullmatch(line) or _HELP.fullmatch(line) or _SAMPLE.fullmatch(line)
        problem = _line_problem(line, part)
        if problem is not None:
            return Failure(f"line {number} {problem}: {one_line(line, 80)!r}")
        if part is not None:
            parts.append(part)
    if text and not text.endswith("\n"):
        return Failure("the last line does not end with a newline")

    # Check what depends on several lines: labels, order, duplicates.
    try:
        samples = [
            sample for metric in text_string_to_metric_families(text) for sample in metric.samples
        ]
    except ValueError as error:
        return Failure(one_line(str(error)) or "a label is malformed")
    problem = _order_problem(parts) or _series_problem(samples)
    if problem is not None:
        return Failure(problem)
    return Success(tuple(sorted({part["name"] for part in parts})))


def _line_problem(line: str, part: re.Match[str] | None) -> str | None:
    if part is None:
        if _DESCRIPTION.match(line):
            return "is not a valid HELP or TYPE"
        return None if not line or line.startswith("#") else "is not a valid sample"
    if part.re is not _SAMPLE:
        return None
    if part["timestamp"]:
        return "has a timestamp, which a textfile must not have"
    if math.isinf(float(part["value"])) and "Inf" not in part["value"]:
        return "has a value out of range"
    return None


def _order_problem(parts: Iterable[re.Match[str]]) -> str | None:
    """Return what is wrong with the order of the lines.

    Lines are assigned to metrics as in node_exporter's parser (`expfmt/text_parse.go`).
    """
    types: dict[str, str] = {}
    described: set[tuple[str, str]] = set()
    sampled: set[str] = set()
    metrics: set[str] = set()
    current = None
    for part in parts:
        # All lines of a metric must follow each other.
        metric = _metric_of(part["name"], metrics, types)
        if metric != current and metric in metrics:
            return f"the lines of {metric} are not in one block"
        current = metric
        metrics.add(metric)

        # HELP and TYPE must be there at most once, TYPE before the samples.
        if part.re is _SAMPLE:
            sampled.add(metric)
            continue
        word = "TYPE" if part.re is _TYPE else "HELP"
        if (metric, word) in described:
            return f"duplicate {word} of {metric}"
        described.add((metric, word))
        if part.re is _TYPE:
            if metric in sampled:
                return f"the TYPE of {metric} comes after its samples"
            types[metric] = part["type"]
    return None


def _metric_of(name: str, metrics: set[str], types: Mapping[str, str]) -> str:
    if name in metrics:
        return name
    for suffix, kinds in _SUFFIXES.items():
        base = name.removesuffix(suffix)
        if base != name and types.get(base) in kinds:
            return base
    return name


def _series_problem(samples: list[Sample]) -> str | None:
    series = Counter((sample.name, frozenset(sample.labels.items())) for sample in samples)
    for (name, labels), times in series.items():
        if times > 1:
            shared = one_line(str(dict(sorted(labels))), 80)
            return f"{name} has duplicate samples with the labels {shared}"
        for label, value in labels:
            if label in {"le", "quantile"} and not re.fullmatch(_NUMBER, value, re.ASCII):
                return f"the label {label} of {name} is not a number"
    return None
