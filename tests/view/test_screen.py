"""The screens of `tsfc peers --watch`."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import ConsoleDimensions
from rich.segment import Segment

from support.statuses import decoded, peer
from tsfc.core.clock import Instant
from tsfc.core.tailscale import status as statuses
from tsfc.core.watchdog import snapshot
from tsfc.core.watchdog.events import Observed
from tsfc.view import table
from tsfc.view.cells import header_lines
from tsfc.view.keys import Key
from tsfc.view.model import View, make_view, without_hidden
from tsfc.view.screen import Answer, Screen, draw, silence

FIXTURES = Path(__file__).parent.parent / "fixtures"
SCREENS = Path(__file__).parent / "screens"
ERROR = (
    "asking tailscaled for status over /run/tailscale/tailscaled.sock: Connection refused; is "
    "tailscaled running? see `systemctl status tailscaled`, or set --socket"
)
SCREEN = Screen(interval=2.0, patience=2.0, answered=100.0)


def _answer(view: View) -> Answer:
    return Answer(tuple(header_lines(view)), table.cells(view, view.rows))


def _answered() -> Screen:
    """The screen of the node of README."""
    status = statuses.decode((FIXTURES / "mixed-paths.json").read_bytes()).unwrap()
    known = snapshot.decode((FIXTURES / "watchdog/timeline.json").read_bytes()).unwrap()
    view = make_view(Observed(status), known, now=Instant(1795438800), pings={})
    return replace(SCREEN, answer=_answer(without_hidden(view)))


def _many(number: int) -> Screen:
    peers = [peer(f"host{index}", "derp") for index in range(1, number + 1)]
    view = make_view(Observed(decoded(*peers)), None, now=Instant(1795438800), pings={})
    return replace(SCREEN, answer=_answer(view))


def _drawn(
    screen: Screen, size: tuple[int, int], *, now: float = 101.0, key: Key | None = None
) -> tuple[list[list[Segment]], int]:
    """Return the lines of the screen, and the index of its first row."""
    console = table.console(StringIO(), is_terminal=True)
    console.size = ConsoleDimensions(*size)
    drawn, first = draw(screen, console, now=now, clock="22:14:05", key=key)
    return console.render_lines(drawn, pad=False), first


def _text(line: list[Segment]) -> str:
    return "".join(segment.text for segment in line).rstrip()


def _is_dim(line: list[Segment]) -> bool:
    return all(segment.style and segment.style.dim for segment in line if segment.text.strip())


@pytest.mark.parametrize("size", [(80, 24), (50, 20), (30, 10), (10, 3)])
@pytest.mark.parametrize("state", ["answered", "silent", "many", "empty"])
def test_the_screen_is_as_expected(state: str, size: tuple[int, int]) -> None:
    screen, now = {
        "answered": (_answered(), 101.0),
        "silent": (replace(_answered(), failure=ERROR), 114.0),
        "many": (replace(_many(300), first=20), 101.0),
        "empty": (SCREEN, 101.0),
    }[state]
    lines = [_text(line) for line in _drawn(screen, size, now=now)[0]]
    assert len(lines) == size[1]
    assert all(len(line) <= size[0] for line in lines)
    text = "".join(f"{line}\n" for line in lines)
    expected = SCREENS / f"{state}-{size[0]}x{size[1]}.txt"
    if os.environ.get("TSFC_WRITE_GOLDEN"):
        expected.write_text(text)
    assert text == expected.read_text()


def test_a_silent_tailscaled_dims_what_it_answered_last() -> None:
    (_, *lines), _ = _drawn(_answered(), (80, 24))
    assert not any(_is_dim(line) for line in lines if _text(line).startswith(("alpha", "peer")))
    (head, *lines), _ = _drawn(replace(_answered(), failure=ERROR), (80, 24), now=114)
    assert _text(head).startswith("no answer for 14s")
    assert not any(map(_is_dim, [head, *lines[:3]]))
    assert all(map(_is_dim, lines[3:-1]))


@pytest.mark.parametrize(
    ("seconds", "failure", "expected"),
    [(0, "", None), (4, "", None), (4.5, "", 4.5), (1, "refused", 1), (14, "refused", 14)],
)
def test_silence_is_a_failure_or_a_late_answer(
    seconds: float, failure: str, expected: float | None
) -> None:
    screen = replace(SCREEN, failure=failure)
    assert silence(screen, 100.0 + seconds) == expected


def test_keys_scroll_and_the_last_line_says_where() -> None:
    screen = _many(300)
    for key, first in (
        (Key.DOWN, 1),
        (Key.PAGE_DOWN, 21),
        (Key.UP, 20),
        (Key.BOTTOM, 280),
        (Key.DOWN, 280),
        (Key.PAGE_UP, 260),
        (Key.TOP, 0),
        (Key.UP, 0),
    ):
        lines, now_first = _drawn(screen, (80, 24), key=key)
        assert now_first == first
        assert f"peers {first + 1} to {first + 20} of 300" in _text(lines[-1])
        screen = replace(screen, first=now_first)


def test_fewer_peers_or_a_larger_window_scroll_back() -> None:
    assert _drawn(replace(_many(300), first=279), (80, 100))[1] == 204
    assert _drawn(replace(_many(30), first=279), (80, 24))[1] == 10
    assert _drawn(replace(_many(3), first=279), (80, 24))[1] == 0


def test_many_lines_about_the_node_leave_room_for_the_table() -> None:
    screen = _many(300)
    assert screen.answer is not None
    lines = tuple(f"health: {number}" for number in range(50))
    screen = replace(screen, answer=Answer(lines, screen.answer.cells))
    drawn, _ = _drawn(screen, (80, 24))
    assert sum(_text(line).startswith("host") for line in drawn) == 24 - 12 - 2
