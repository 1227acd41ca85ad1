"""Types of option values, for `type=` of argparse.

Each function parses a value, or raises `ArgumentTypeError` if it is invalid.
"""

from __future__ import annotations

import math
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence

MAX_UNIX_TIME = 253402300799
"The last second of the year 9999."


def seconds(text: str) -> float:
    """Duration in seconds, from a millisecond to a day."""
    return _number(text, 0.001, 86400, "a number of seconds from 0.001 to 86400")


def days(text: str) -> float:
    """Duration in days, at most ten years."""
    return _number(text, 0.001, 3660, "a number of days from 0.001 to 3660")


def span(text: str) -> float:
    """Seconds in a time span such as `10s`, `5min`, `1h`, `7d` or `30` (seconds)."""
    match = re.fullmatch(r"([0-9.]{1,12}) *([a-z]*)", text)
    unit = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}.get(match[2]) if match else None
    if match is None or unit is None:
        raise ArgumentTypeError(f"{text!r} is not a time span such as 10s, 5min, 1h or 7d")
    return _number(match[1], 0.001, 1e9, "a number") * unit


def unix_time(text: str) -> float:
    """Unix time in seconds."""
    return _number(text, 0, MAX_UNIX_TIME, "a Unix time in seconds")


def time(text: str) -> float:
    """Unix time of an ISO 8601 time (UTC without an offset), or a Unix time itself."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        what = "a Unix time in seconds, or a time such as 2026-11-25T06:30:00Z"
        return _number(text, 0, MAX_UNIX_TIME, what)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def size(text: str) -> int:
    """Number of bytes in a size such as `500k`, `100M` or `2G`."""
    from tsfc.offline.capture import record

    number = record.size(text)
    if number is None:
        raise ArgumentTypeError(f"{text!r} is not a size such as 500k, 100M or 2G")
    return number


def speed(text: str) -> float:
    """Factor by which time runs faster."""
    return _number(text, 0.001, 1e6, "a number from 0.001 to 1000000")


_SECONDS = {
    **dict.fromkeys(("us", "usec"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 0.001),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604800.0),
}
"Units of time spans, as in systemd.time(7)."
_UNITS = "|".join(sorted(_SECONDS, key=len, reverse=True))
_SPAN = re.compile(rf"([0-9]{{1,9}}(?:[.][0-9]{{1,3}})?) *({_UNITS})? *", re.ASCII)


def time_span(text: str) -> float:
    """Seconds from a time span, such as `30s`, `1min 30s`, or `90`."""
    seconds, at = 0.0, 0
    while at < len(text):
        part = _SPAN.match(text, at)
        if part is None:
            break
        seconds += float(part[1]) * _SECONDS[part[2] or "s"]
        at = part.end()
    if at < len(text) or not 1 <= seconds <= 10**9:
        raise ArgumentTypeError(f'{text!r} is not a time span from 1s, such as "30s" or "1min 30s"')
    return seconds


def names(allowed: Sequence[str], what: str) -> Callable[[str], tuple[str, ...]]:
    """Type of a list such as `exporter,keepalive`: allowed names, each once.

    `what` says in an error what the list has to be.
    """

    def parse(text: str) -> tuple[str, ...]:
        given = tuple(text.split(","))
        if len(set(given)) < len(given) or not set(given) <= set(allowed):
            raise ArgumentTypeError(f"{text!r} is not {what}")
        return given

    return parse


def instance(text: str) -> str:
    """Name of one of several tailscaleds.

    It has no "-", so that no name of a unit can belong to two instances.
    """
    if not re.fullmatch("[A-Za-z0-9_]{1,32}", text) or text == "restart":
        raise ArgumentTypeError(
            f"{text!r} is not up to 32 letters, digits and underscores, such as 'work'"
        )
    return text


def arguments(text: str) -> list[str]:
    """Arguments of a program, from one text as in a shell."""
    import shlex

    try:
        return shlex.split(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} are not arguments as in a shell: {error}") from None


def integer(text: str, low: int = 0, high: int = 10**9) -> int:
    """Integer from `low` to `high`, in ASCII digits."""
    if not (text.isascii() and text.isdigit() and low <= int(text[:11]) <= high):
        raise ArgumentTypeError(f"{text!r} is not an integer from {low} to {high}")
    return int(text)


def positive_integer(text: str) -> int:
    """Integer from 1 to a billion, in ASCII digits."""
    return integer(text, low=1)


def budget(text: str) -> int:
    """Number of remedies in a day; the state keeps no more than 24 attempts."""
    return integer(text, high=24)


remedies = names(("restart", "other-port"), "restart, other-port, or restart,other-port")
"Names of remedies, each once, from a list such as `restart,other-port`."


def unit_name(text: str) -> str:
    """Name of a systemd unit."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9:_.@\\-]*", text):
        raise ArgumentTypeError(f"{text!r} is not the name of a systemd unit")
    return text


def label(text: str) -> tuple[str, str]:
    """Name and value of a label to add to series, from `NAME=VALUE`."""
    from tsfc.core.metrics import labels

    name, equals, value = text.partition("=")
    problem = labels.problem(name, value) if equals else "it has no ="
    if problem is not None:
        raise ArgumentTypeError(
            f"{text!r} is not a label NAME=VALUE such as tailscaled=work: {problem}"
        )
    return name, value


def _number(text: str, low: float, high: float, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:  # false for NaN, too
        raise ArgumentTypeError(f"{text!r} is not {what}")
    return number
