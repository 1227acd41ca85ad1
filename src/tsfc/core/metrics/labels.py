"""Labels of the operator, which a job adds to each of its series.

They distinguish the series of several tailscaleds on one host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.metrics.families import Family, Sample
from tsfc.core.text import printable

VALUE_LIMIT = 1000
"Maximum length of a value, in characters."
OF_SERIES = frozenset(
    {
        *("peer", "path", "kind", "state", "reason", "result"),
        *("version", "short_version"),
        *("id", "hostname", "dns_name", "os", "relay", "user", "tags", "ip"),
        *("cause", "remedy", "outcome"),  # of the guarded policy
        "command",  # of the agent
        *("type", "service"),  # of tailscaled's own metrics
        *("le", "quantile"),
    }
)
"Names of labels that series of the jobs have, or that the text format reserves."
OF_PROMETHEUS = frozenset({"instance", "job", "alertname", "alertstate", "severity", "unit"})
"Names of labels that Prometheus or the alert rules set."
_NAME = re.compile("[a-zA-Z_][a-zA-Z0-9_]*")
_SERIES = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?')
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\]|\\.)*"')


def problem(name: str, value: str) -> str | None:
    """Return why `name` and `value` are not a label to add; None if they are one."""
    if not _NAME.fullmatch(name):
        return "the name must be letters, digits and _, and not begin with a digit"
    if name.startswith("__"):
        return "Prometheus reserves names that begin with __"
    if name in OF_SERIES:
        return f"series of the jobs have a label {name} already"
    if name in OF_PROMETHEUS:
        return f"Prometheus or the alert rules set the label {name}"
    if not value:
        return "the value is empty, which means no label"
    if printable(value, VALUE_LIMIT) != value:
        return f"the value must be printable and have at most {VALUE_LIMIT} characters"
    return None


def add(families: Iterable[Family], labels: Mapping[str, str]) -> Iterator[Family]:
    """Yield the families, each sample with `labels` as well."""
    for family in families:
        if labels:
            samples = (
                Sample({**each.labels, **labels}, each.value, each.suffix)
                for each in family.samples
            )
            yield replace(family, samples=tuple(samples))
        else:
            yield family


def add_to_text(text: str, labels: Mapping[str, str]) -> Result[str, str]:
    """Return a valid exposition, each sample with `labels` as well.

    All else stays as it is, to the byte. prometheus_client cannot do this: it renders a
    counter `a` as `a_total`, and rounds large values.

    Fails if a sample already has one of the labels.
    """
    if not labels:
        return Success(text)
    added = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    lines: list[str] = []
    for line in text.split("\n"):
        series = _SERIES.match(line)
        if series is None:  # a comment, or empty
            lines.append(line)
            continue
        name, block = series[1], series[2]
        present = labels.keys() & set(_LABEL.findall(block or ""))
        if present:
            return Failure(f"{name} has the label {min(present)} already")
        rest = "}" if block is None else f",{block[1:]}" if block != "{}" else "}"
        lines.append(f"{name}{{{added}{rest}{line[series.end() :]}")
    return Success("\n".join(lines))


def _escaped(value: str) -> str:
    """Escape a label value of the text format; a printable one has no newline."""
    return value.replace("\\", r"\\").replace('"', r"\"")
