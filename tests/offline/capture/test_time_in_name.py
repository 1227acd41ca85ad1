"""The names of files carry times in many forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsfc.offline.capture.time_in_name import time_in_name

AT = 1_795_438_800
"2026-11-23 13:00:00 UTC."

NAMES = {
    "20261123-130000": AT,
    "20261123130000": AT,
    "20261123T130000": AT,
    "20261123T130000Z": AT,
    "20261123_130000": AT,
    "20261123-1300": AT,
    "202611231300": AT,
    "2026-11-23T13:00:00": AT,
    "2026-11-23T13:00:00Z": AT,
    "2026-11-23T13:00": AT,
    "2026-11-23T13.00.00": AT,
    "2026-11-23_13-00-00": AT,
    "2026-11-23-13-00-00": AT,
    "2026-11-23 13:00:00": AT,
    "2026-11-23 13:00:00 UTC": AT,
    "2026.11.23_13.00.00": AT,
    "2026_11_23_13_00_00": AT,
    # Fractions
    "2026-11-23T13:00:00.250Z": AT + 0.25,
    "2026-11-23T13:00:00,5": AT + 0.5,
    "20261123T130000.522548716Z": AT + 0.522548716,
    # Zones
    "2026-11-23T14:00:00+01:00": AT,
    "2026-11-23T14:00:00+01": AT,
    "20261123T140000+0100": AT,
    "20261123T080000-0500": AT,
    "20261123-184500+0545": AT,
    "2026-11-23T13:00:00+00:00": AT,
    "2026-11-23 14:00:00 +0100": AT,
    "2026-11-23T13:00:00.5-00:30": AT + 1800.5,
    # A number follows, and no zone
    "20261123-130000-0001": AT,
    "20261123-130000-05": AT,
    "20261123-130000-123456": AT,
    "20261123-130000-9900": AT,
    # Unix time
    "1795438800": AT,
    "1795438800.25": AT + 0.25,
    "1795438800250": AT + 0.25,
    "1795438800250125": AT + 0.250125,
    "1795438800250125999": AT + 0.250125999,
}


@pytest.mark.parametrize("before", ["", "status-", "nas01_", "v1.102.3-", "status", "100.64.0.2-"])
@pytest.mark.parametrize(
    "after", ["", ".json", ".json.gz", ".json.zst", "-nas.json", ".status.json"]
)
def test_a_time_is_found_in_each_form_and_at_each_place(before: str, after: str) -> None:
    for name, at in NAMES.items():
        assert time_in_name(before + name + after) == pytest.approx(at, abs=1e-6), name


@pytest.mark.parametrize(
    "name",
    [
        "status.json",
        "1.json",
        "000123.json",
        "2026-11-23.json",
        "20261123.json",
        "2026-11-23-nas.json",
        "2026-13-23T13:00:00.json",
        "2026-02-30T13:00:00.json",
        "2026-11-23T25:00:00.json",
        "202611231300000.json",
        "100.101.102.103.json",
        "fd7a-115c-a1e0-ab12-4843-cd96-6265-6c41.json",
        "v1.102.3-t53a0d659a.json",
        "12345678901.json",
        "0123456789.json",
        "١٧٩٥٤٣٨٨٠٠.json",
    ],
)
def test_other_numbers_are_no_time(name: str) -> None:
    assert time_in_name(name) is None


def test_the_first_date_and_time_counts() -> None:
    assert time_in_name("1795438801-20261123T130000Z-20261123T140000Z.json") == AT
    assert time_in_name("20261323T130000Z-1795438800.json") == AT


@given(st.text(alphabet="0123456789-+:._TZ ", max_size=40))
def test_any_name_has_a_time_of_this_era_or_none(name: str) -> None:
    at = time_in_name(name)
    assert at is None or 0 < at < 10_000_000_000
