"""Time spans of a scenario, in seconds once they are read."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from msgspec import Struct

from tsfc.core import duration

LIMIT_SECONDS = 1e9
"Longest span: about 32 years."


class Span(float):
    """A time span in seconds, written as a number or as text such as `2h 30min`."""

    __slots__ = ()
    minimum: ClassVar[float] = 0


class Period(Span):
    """A time span between repetitions.

    With shorter ones, a simulation might never end.
    """

    __slots__ = ()
    minimum: ClassVar[float] = 1


class Range(Struct, frozen=True, forbid_unknown_fields=True):
    """A span that is drawn at random, evenly distributed, each time it is needed."""

    min: Span
    max: Span


class PeriodRange(Range, frozen=True, forbid_unknown_fields=True):
    """A range of spans between repetitions: at least one second."""

    min: Period
    max: Period


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


def default_period(seconds: float) -> Period:
    """Return the default value of a field; a plain float, like `default`."""
    return cast("Period", seconds)


def span_range(low: float, high: float) -> Range:
    """Return a range of two numbers of seconds."""
    return Range(default(low), default(high))


def period_range(low: float, high: float) -> PeriodRange:
    """Return a range of two numbers of seconds, at least 1."""
    return PeriodRange(default_period(low), default_period(high))


def parse(value: object, kind: type[Span] = Span) -> Span:
    """Parse a span of a kind. Raise `ValueError` with what was expected."""
    seconds = _seconds(value)
    if seconds is None or not kind.minimum <= seconds <= LIMIT_SECONDS:
        raise ValueError(
            f"Expected seconds ({kind.minimum:g} to {LIMIT_SECONDS:g})"
            " or a time span such as 90s, 2h 30min, 1d"
        )
    return kind(seconds)


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        return duration.parse(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return cast("float", value) if is_number else None


def json_schema(kind: type[Span] = Span) -> dict[str, Any]:
    """Return a new JSON Schema of a kind of span: msgspec adds defaults to it."""
    number = {"type": "number", "minimum": kind.minimum, "maximum": LIMIT_SECONDS}
    low = f", at least {kind.minimum:g}s" if kind.minimum else ""
    text = {
        "description": f"a time span such as 90s, 2h 30min, 1d{low}",
        "type": "string",
        "pattern": f"^{duration.PATTERN}$",
    }
    return {"anyOf": [number, text]}
