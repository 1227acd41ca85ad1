"""Label matchers for every query of the mixin, such as `job="node"`.

They keep the queries apart from other exporters with metrics of the same names.
Syntax: <https://prometheus.io/docs/prometheus/latest/querying/basics/>.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from returns.result import Failure, Result, Success

from tsfc.core.metrics.labels import OF_SERIES
from tsfc.core.text import printable

LIMIT = 10_000
"Maximum length of a selector, in characters."
NOT_COMMON = OF_SERIES | {
    *("alertname", "alertstate", "severity", "unit"),  # of alerts
    "file",  # of the textfiles
}
"Names of labels that only some of the selected series have."
_MATCHER = re.compile(
    r"\s*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)\s*(?P<operator>=~|!~|!=|=)\s*"
    r'(?P<value>"(?:[^"\\]|\\["\\])*")\s*'
)
_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"'
    r"|(?P<metric>\b(?:tailscaled?_[\w:]+|node_textfile_\w+|ALERTS)\b)(?P<brace>\{)?"
)
"""A string, or the name of series that our queries use, from `tailscale` on.

No other word of a query has such a prefix.
"""


class Matcher(NamedTuple):
    """Condition on one label."""

    name: str
    operator: str
    "`=`, `!=`, `=~` or `!~`."
    value: str
    'As in PromQL, with its quotes; the only escapes are `\\"` and `\\\\`.'

    def __str__(self) -> str:
        return "".join(self)


def parse(text: str) -> Result[tuple[Matcher, ...], str]:
    """Return the matchers of a text such as `job="node",instance=~"web.*"`.

    Fails with the reason if the text could be anything but matchers of labels that
    every series has. Prometheus checks the regular expressions.
    """
    if printable(text, LIMIT) != text:
        return Failure(f"it must be printable and have at most {LIMIT} characters")
    matchers: list[Matcher] = []
    position = 0
    while True:
        found = _MATCHER.match(text, position)
        if found is None:
            return Failure(f'{text[position:]!r} does not begin with LABEL="VALUE"')
        matcher = Matcher(**found.groupdict())
        if matcher.name in NOT_COMMON or matcher.name.startswith("__"):
            return Failure(f"not every series has a label {matcher.name}")
        matchers.append(matcher)
        position = found.end()
        if position == len(text):
            return Success(tuple(matchers))
        if text[position] != ",":
            return Failure(f"{text[position:]!r} does not begin with a comma")
        position += 1


def select(query: str, matchers: tuple[Matcher, ...]) -> str:
    """Return a query of the mixin with matchers in each selector of series."""
    if not matchers:
        return query
    text = ",".join(map(str, matchers))

    def selected(token: re.Match[str]) -> str:
        if token["metric"] is None:
            return token[0]
        return f"{token['metric']}{{{text}{',' if token['brace'] else '}'}"

    return _TOKEN.sub(selected, query)
