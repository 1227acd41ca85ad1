"""The columns that fit a terminal, and their widths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsfc.view.cells import COLUMNS, HANDSHAKE, PATH, PEER, PING, SINCE, WATCHDOG, Column
from tsfc.view.layout import GAP, MIN_WIDTH, layout

USUAL = dict(zip(COLUMNS, (16, 28, 7, 9, 9, 9, 8, 21), strict=True))
"Widths of a usual tailnet."
DROPPED = [column.title for column in COLUMNS]


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (200, "peer path since handshake received sent ping watchdog"),
        (121, "peer path since handshake received sent ping watchdog"),
        (120, "peer path since handshake received ping watchdog"),
        (109, "peer path since handshake ping watchdog"),
        (98, "peer path since ping watchdog"),
        (80, "peer path since ping watchdog"),
        (50, "peer path watchdog"),
        (40, "peer path watchdog"),
        (MIN_WIDTH, "peer watchdog"),
    ],
)
def test_the_least_needed_columns_are_dropped_first(width: int, titles: str) -> None:
    assert [column.title for column in layout(USUAL, width)] == titles.split()


def test_names_shrink_last() -> None:
    wanted = {PEER: 30, PATH: 40, SINCE: 7, HANDSHAKE: 9, WATCHDOG: 40}
    assert layout(wanted, 80) == {PEER: 30, PATH: 16, SINCE: 7, WATCHDOG: 21}
    assert layout(wanted, 72) == {PEER: 26, PATH: 12, SINCE: 7, WATCHDOG: 21}
    assert layout(wanted, 44) == {PEER: 20, PATH: 8, WATCHDOG: 12}


def test_a_dropped_column_leaves_its_room_to_the_others() -> None:
    wanted = {PEER: 30, PATH: 28, SINCE: 7, PING: 8, WATCHDOG: 21}
    assert layout(wanted, 73) == {PEER: 26, PATH: 12, PING: 8, WATCHDOG: 21}


WIDTHS = st.dictionaries(st.sampled_from(COLUMNS), st.integers(1, 300))


@given(WIDTHS, st.integers(MIN_WIDTH, 400))
def test_the_table_fits_and_wastes_no_room(widths: dict[Column, int], width: int) -> None:
    wanted = {PEER: 4, WATCHDOG: 8} | widths
    shown = layout(wanted, width)
    total = sum(shown.values()) + GAP * (len(shown) - 1)
    assert total <= width
    assert {PEER, WATCHDOG} <= shown.keys()
    assert list(shown) == [column for column in wanted if column in shown]
    assert all(shown[column] <= wanted[column] for column in shown)
    if any(shown[column] < wanted[column] for column in (PEER, WATCHDOG)):
        assert total == width
