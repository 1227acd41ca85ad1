"""The time in a file name, in the forms that people and tools write.

| form | examples |
|---|---|
| date and time | `20261123-130000`, `2026-11-23T13:00`, `2026-11-23_13-00-00.250` |
| without separators | `20261123130000` |
| with a zone | `2026-11-23T13:00:00+01:00`, `20261123-130000-0500` |
| Unix time | `1795438800`, `1795438800.25`; in ms, µs or ns if it has more digits |

Without a zone, the time is UTC: the host that wrote the name may be elsewhere.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_DATE_AND_TIME = re.compile(
    r"""
    (?<![0-9])
    (?P<year>20[0-9]{2}) [-._]? (?P<month>[0-9]{2}) [-._]? (?P<day>[0-9]{2})
    [T_. -]?
    (?P<hour>[0-9]{2}) [-:._]? (?P<minute>[0-9]{2})
    (?: [-:._]? (?P<second>[0-9]{2}) (?: [.,] (?P<fraction>[0-9]+) )? )?
    (?![0-9])
    (?: [_ ]? (?P<sign>[+-]) (?P<hours>0[0-9]|1[0-4]) :? (?P<minutes>00|15|30|45) (?![0-9])
      | [_ ]? [+] (?P<only_hours>0[0-9]|1[0-4]) (?![0-9]) )?
    """,
    re.VERBOSE,
)
"""A date and a time, perhaps with an offset from UTC.

An offset in hours alone needs a plus sign: a `-05` at the end is more likely a number.
A `Z` needs no group, since UTC is the default.
"""
_UNIX = re.compile(
    r"(?<![0-9])([1-9][0-9]{9})(?:\.([0-9]+)|([0-9]{3}|[0-9]{6}|[0-9]{9}))?(?![0-9])"
)
"Seconds since 1970, from the year 2001 on, and a fraction with or without its point."


def time_in_name(name: str) -> float | None:
    """Return the Unix time in the name of a file; None if it has none.

    A date without a time does not count. If there are several times, the first date
    and time counts, before any Unix time.
    """
    for found in _DATE_AND_TIME.finditer(name):
        at = _unix(found)
        if at is not None:
            return at
    unix = _UNIX.search(name)
    return None if unix is None else float(f"{unix[1]}.{unix[2] or unix[3] or 0}")


def _unix(found: re.Match[str]) -> float | None:
    """Return the Unix time of a date and a time; None if there is no such date."""
    year, month, day, hour, minute, second = (
        int(found[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second")
    )
    hours = int(found["hours"] or found["only_hours"] or 0)
    east = timedelta(hours=hours, minutes=int(found["minutes"] or 0))
    zone = timezone(-east if found["sign"] == "-" else east) if east else UTC
    try:
        at = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None
    return at.timestamp() + float(f"0.{found['fraction'] or 0}")
