"""Durations, as people write and read them: `30s`, `5min`, `1h 30min`, `2d`.

All options, scenarios and units use this one language, which is a part of
systemd.time(7). `nix/types.nix` has the same pattern.
"""

from __future__ import annotations

import re

_SECONDS = {
    **dict.fromkeys(("us", "usec"), 1e-6),
    **dict.fromkeys(("ms", "msec"), 0.001),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604800.0),
}
"Seconds of each unit."
_UNITS = "msec|ms|seconds|second|sec|s|minutes|minute|min|m|hours|hour|hr|h|days|day|d|weeks|week|w"
PATTERN = (
    rf"(([0-9]{{1,6}} *(usec|us)|[0-9]{{1,6}}([.][0-9]{{1,3}})? *({_UNITS})) *){{0,8}}"
    r"([0-9]{1,9}([.][0-9]{1,6})?)?"
)
"""Numbers with units, the last one also without: seconds. Also matches blank text.

It limits the digits, so that systemd accepts each span and rounds none to 0.
"""
EXAMPLES = '30s, 5min, "1h 30min", 2d, or 90 (seconds)'
"Spans to show in error messages."
MAX_SECONDS = 999_999_999
"Longest duration that an option accepts, about 31 years."


def parse(text: str) -> float | None:
    """Return the seconds of a time span such as `1h 30min`; None if it is not one.

    The result is finite, at least 0, and exact to the microsecond.
    """
    if re.fullmatch(PATTERN, text) is None or not text.strip():
        return None
    parts = re.findall("([0-9.]+) *([a-z]*)", text)
    return round(sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts), 6)


def parse_whole(text: str) -> int | None:
    """Return the integer seconds of a time span up to `MAX_SECONDS`, else None."""
    seconds = parse(text)
    if seconds is None or seconds > MAX_SECONDS or seconds != int(seconds):
        return None
    return int(seconds)


def duration(seconds: float, parts: int = 2) -> str:
    """Format a duration in its largest units: `3d 4h`, `4m 10s`, `0s`.

    Seconds are rounded down; a negative duration is `0s`. `parts` is the maximum number
    of units. `parse` reads the result.
    """
    left = max(0, int(seconds))
    words: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or words or size == 1:
            words.append(f"{number}{unit}")
    words = words[:parts]
    while len(words) > 1 and words[-1].startswith("0"):
        words.pop()
    return " ".join(words)
