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


def span(low: float, high: float, limits: str) -> Callable[[str], float]:
    """Type of a time span such as `1h 30min` or `90`: seconds from `low` to `high`.

    `limits` says in an error what is allowed.
    """

    def parse(text: str) -> float:
        from tsfc.core import duration

        seconds = duration.parse(text)
        if seconds is None or not low <= seconds <= high:
            raise ArgumentTypeError(
                f"{text!r} is not a time span {limits}, such as {duration.EXAMPLES}"
            )
        return seconds

    return parse


timeout = span(0.001, 86400, "from 1ms to 1d")
"Seconds of a time span that a person waits for."
period = span(0.001, 999_999_999, "from 1ms to 999999999")
"Seconds of any other time span."
interval = span(1, 999_999_999, "from 1s to 999999999")
"Seconds between two runs of a job."


def whole_seconds(text: str) -> int:
    """Seconds of a time span without a fraction of a second; can be 0."""
    from tsfc.core import duration

    seconds = duration.parse_whole(text)
    if seconds is None:
        raise ArgumentTypeError(
            f"{text!r} is not a time span of whole seconds up to {duration.MAX_SECONDS}, such as "
            f"{duration.EXAMPLES}"
        )
    return seconds


def days(text: str) -> float:
    """Days in a number of days, or in a time span with units; at most ten years."""
    if re.fullmatch("[0-9.]+", text):
        return _number(text, 0.001, 3660, "a number of days from 0.001 to 3660")
    return span(86.4, 3660 * 86400, "from 0.001d to 3660d")(text) / 86400


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

    It has no "-", so that no name of a unit can belong to two instances, and is not the
    name of a helper of the watchdog.
    """
    if not re.fullmatch("[A-Za-z0-9_]{1,32}", text) or text in {"restart", "notify"}:
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


COLUMNS = ("peer", "path", "since", "handshake", "received", "sent", "ping", "watchdog")
"Columns of `tsfc peers`."
paths = names(
    ("direct", "peer-relay", "relay", "idle", "offline", "no-path"),
    "a list of direct, peer-relay, relay, idle, offline and no-path, each once",
)
"Paths of peers, from a list such as `relay,no-path`."


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
