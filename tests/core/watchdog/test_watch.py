"""Breaks of the watch, and reasons to hold a restart back."""

from __future__ import annotations

import pytest

from support.statuses import decoded
from tsfc.core.clock import Boot, Instant
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.watch import Hold, break_before, hold

from .worlds import NOW, T0, make_state


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param({"Online": True}, None, id="online"),
        pytest.param({}, None, id="a release that does not say"),
        pytest.param({"Online": False}, Hold.NO_CONTROL, id="offline"),
        pytest.param({"Online": True, "Expired": True}, Hold.EXPIRED_KEY, id="expired"),
        pytest.param(
            {"Online": True, "KeyExpiry": "2023-11-14T22:13:20Z"}, Hold.EXPIRED_KEY, id="now"
        ),
        pytest.param({"Online": True, "KeyExpiry": "2023-11-14T22:13:21Z"}, None, id="later"),
        pytest.param({"Online": True, "KeyExpiry": "0001-01-01T00:00:00Z"}, None, id="never"),
        pytest.param({"Online": False, "Expired": True}, Hold.NO_CONTROL, id="both"),
    ],
)
def test_a_node_that_is_cut_off_is_a_reason_to_hold(
    own: dict[str, object], expected: Hold | None
) -> None:
    assert hold(decoded(Self=own), NOW) is expected


def test_before_the_first_observation_there_is_no_break() -> None:
    state = State(blind_since=0, tailscaled_start=1)
    assert break_before(state, NOW, 2, "documented") is None


def test_a_break_by_time_is_named_before_one_by_the_clocks() -> None:
    seen = Instant(T0 - 900, Boot("b1", 10, 10))
    state = make_state(last_success=seen, blind_since=T0 - 800, tailscaled_start=1)
    now = Instant(T0, Boot("b2", 10, 10))
    assert break_before(state, now, 2, "documented") == "no peer could be observed for 800s"


def test_a_clock_that_is_set_is_no_suspend() -> None:
    """`CLOCK_BOOTTIME` and `CLOCK_MONOTONIC` cannot be set."""
    state = make_state(last_success=Instant(T0 - 60, Boot("b1", 10, 10)))
    assert break_before(state, Instant(T0 + 86_400, Boot("b1", 70, 70)), None, "documented") is None
