"""Whether text that others wrote is an exposition: as strictly as node_exporter reads it, which refuses a file as a whole."""

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
    rf"(?P<name>{_NAME})(?:\{{(?:{_LABEL}(?:, ?{_LABEL})*,?)?\}})?[ \t]+(?P<value>{_NUMBER})(?P<timestamp>[ \t]+-?\d+)?",
    re.ASCII,
)
_HELP = re.compile(rf"# HELP (?P<name>{_NAME})(?: (?:[^\\]|\\[\\n])*)?", re.ASCII)
_TYPE = re.compile(
    rf"# TYPE (?P<name>{_NAME}) (?P<type>counter|gauge|histogram|summary|untyped)", re.ASCII
)
_DESCRIBES = re.compile(r"\s*#\s*(?:HELP|TYPE)(?:\s|$)")
_SUFFIXES = {
    "_sum": {"summary", "histogram"},
    "_count": {"summary", "histogram"},
    "_bucket": {"histogram"},
}
"Of samples that belong to a metric of that type without the suffix."


def check(text: str) -> Result[tuple[str, ...], str]:
    """Reads an exposition, and returns the names that it speaks of.

    prometheus_client's parser "is a laxer parser than the main Go parser, so successful parsing does not imply that the
    parsed text meets the specification". So each line is held against the grammar first. A failure says which line or
    series is at fault, and how. Refused too is what a textfile may not have: client timestamps
    (`collector/textfile.go` of node_exporter).
    """
    parts: list[re.Match[str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        part = _TYPE.fullmatch(line) or _HELP.fullmatch(line) or _SAMPLE.fullmatch(line)
        problem = _line_problem(line, part)
        if problem is not None:
            return Failure(f"line {number} {problem}: {one_line(line, 80)!r}")
        if part is not None:
            parts.append(part)
    if text and not text.endswith("\n"):
        return Failure("the last line has no end")
    try:
        samples = [
            sample for metric in text_string_to_metric_families(text) for sample in metric.samples
        ]
    except ValueError as error:
        return Failure(one_line(str(error)) or "a label is malformed")
    problem = _badly_arranged(parts) or _bad_series(samples)
    if problem is not None:
        return Failure(problem)
    return Success(tuple(sorted({part["name"] for part in parts})))


def _line_problem(line: str, part: re.Match[str] | None) -> str | None:
    if part is None:
        if _DESCRIBES.match(line):
            return "is no valid HELP or TYPE"
        return None if not line or line.startswith("#") else "is no valid sample"
    if part.re is not _SAMPLE:
        return None
    if part["timestamp"]:
        return "has a timestamp, which a textfile must not have"
    if math.isinf(float(part["value"])) and "Inf" not in part["value"]:
        return "has a value out of range"
    return None


def _badly_arranged(parts: Iterable[re.Match[str]]) -> str | None:
    """Returns what is wrong with the order of the lines; which metric one belongs to is told as node_exporter's parser does (`expfmt/text_parse.go`)."""
    types: dict[str, str] = {}
    described: set[tuple[str, str]] = set()
    sampled: set[str] = set()
    seen: set[str] = set()
    current = None
    for part in parts:
        metric = _metric_of(part["name"], seen, types)
        if metric != current and metric in seen:
            return f"what is said of {metric} is scattered over the file"
        current = metric
        seen.add(metric)
        if part.re is _SAMPLE:
            sampled.add(metric)
            continue
        word = "TYPE" if part.re is _TYPE else "HELP"
        if (metric, word) in described:
            return f"there is a second {word} {metric}"
        described.add((metric, word))
        if part.re is _TYPE:
            if metric in sampled:
                return f"the TYPE of {metric} comes after its samples"
            types[metric] = part["type"]
    return None


def _metric_of(name: str, seen: set[str], types: Mapping[str, str]) -> str:
    if name in seen:
        return name
    for suffix, kinds in _SUFFIXES.items():
        base = name.removesuffix(suffix)
        if base != name and types.get(base) in kinds:
            return base
    return name


def _bad_series(samples: list[Sample]) -> str | None:
    series = Counter((sample.name, frozenset(sample.labels.items())) for sample in samples)
    for (name, labels), times in series.items():
        if times > 1:
            return (
                f"{name} has two samples with the labels {one_line(str(dict(sorted(labels))), 80)}"
            )
        for label, value in labels:
            if label in {"le", "quantile"} and not re.fullmatch(_NUMBER, value, re.ASCII):
                return f"{name} has the label {label} with no number in it"
    return None
