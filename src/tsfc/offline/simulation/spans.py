"""Time spans of a scenario, in seconds once they are read."""

from __future__ import annotations

import re
from typing import Any, cast

from msgspec import Struct

LIMIT_SECONDS = 1e9
"Largest span that may be written as a number: about 32 years."
_PATTERN = r"^ *([0-9]+(\.[0-9]+)? *(s|min|h|d) *)+$"
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Span(float):
    """A time span in seconds, written as a number or as text such as `2h 30min`."""

    __slots__ = ()


class Range(Struct, frozen=True, forbid_unknown_fields=True):
    """A span that is drawn at random, evenly distributed, each time it is needed."""

    min: Span
    max: Span


class Length:
    """How long an event lasts: a range, or one span, which is a range of one value."""

    __slots__ = ("range",)

    def __init__(self, limits: Range) -> None:
        self.range = limits


def default(seconds: float) -> Span:
    """Return the default value of a field.

    It stays a plain float: msgspec cannot encode a subclass into the JSON Schema.
    """
    return cast("Span", seconds)


def span_range(low: float, high: float) -> Range:
    """Return a range of two numbers of seconds."""
    return Range(default(low), default(high))


def parse(value: object) -> Span:
    """Parse a span. Raise `ValueError` with what was expected."""
    if isinstance(value, str) and re.search(_PATTERN, value):
        parts = re.findall(r"([0-9.]+) *(s|min|h|d)", value)
        return Span(sum(float(number) * _UNITS[unit] for number, unit in parts))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and 0 <= cast("float", value) <= LIMIT_SECONDS:
        return Span(cast("float", value))
    raise ValueError(
        f"Expected seconds (0 to {LIMIT_SECONDS:g}) or a time span such as 90s, 2h 30min, 1d"
    )


def json_schema() -> dict[str, Any]:
    """Return a new JSON Schema of a span: msgspec adds defaults to it."""
    number = {"type": "number", "minimum": 0, "maximum": LIMIT_SECONDS}
    text = {
        "description": "a time span such as 90s, 2h 30min, 1d",
        "type": "string",
        "pattern": _PATTERN,
    }
    return {"anyOf": [number, text]}
