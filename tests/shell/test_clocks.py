"""The clocks: whole seconds, and no boot clock where there is none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tsfc.core.clock import Instant
from tsfc.shell import clocks


def test_an_override_replaces_all_clocks() -> None:
    assert clocks.unix_time(1.75) == 1.75
    assert clocks.unix_time(0.0) == 0.0
    assert clocks.instant(1.75) == Instant(1)
    assert clocks.instant(0.0) == Instant(0)


def test_an_instant_has_the_readings_of_all_clocks() -> None:
    before = _readings()
    instant = clocks.instant(None)
    after = _readings()
    assert instant.boot is not None
    assert instant.boot.monotonic is not None
    assert before[0] <= instant.unix <= after[0]
    assert before[1] <= instant.boot.seconds <= after[1]
    assert before[2] <= instant.boot.monotonic <= after[2]
    assert instant.boot.id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _readings() -> tuple[int, int, int]:
    return (
        int(clocks.unix_time(None)),
        int(time.clock_gettime(time.CLOCK_BOOTTIME)),
        int(time.clock_gettime(time.CLOCK_MONOTONIC)),
    )


@pytest.mark.parametrize("content", [None, b"\xff"], ids=["no file", "no text"])
def test_without_a_boot_id_there_is_no_boot_clock(
    box: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    if content is not None:
        (box / "boot_id").write_bytes(content)
    monkeypatch.setattr(clocks, "BOOT_ID", str(box / "boot_id"))
    assert clocks.instant(None).boot is None


def test_without_the_boot_clock_of_linux_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has `time.CLOCK_BOOTTIME` on Linux only."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert clocks.instant(None).boot is None


def test_the_time_of_day_is_that_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")
    time.tzset()
    try:
        assert clocks.time_of_day(1_800_000_000) == "10:00:00"
    finally:
        monkeypatch.undo()
        time.tzset()
