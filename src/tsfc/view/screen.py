"""The screen of `tsfc peers --watch`: what it shows at a moment, as lines."""

from __future__ import annotations

from msgspec import Struct
from rich.console import Console, RenderableType
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from tsfc.core.duration import duration
from tsfc.view.keys import Key, scrolled
from tsfc.view.table import Cells, paragraphs, table

DIM = Style(dim=True)
HELP = "q: quit"
SCROLL_HELP = "j/k: scroll, q: quit"


class Answer(Struct, frozen=True):
    """What tailscaled answered: the texts to show."""

    lines: tuple[str, ...]
    "About the node, above the table."
    cells: Cells


class Screen(Struct, frozen=True):
    """What is known, and where the user has scrolled to."""

    interval: float
    "Seconds between two questions to tailscaled."
    patience: float
    "Seconds after which a question without an answer is worth a word."
    answered: float
    "Monotonic time of the last answer; of the start, before the first."
    answer: Answer | None = None
    "The last answer, which may be old."
    failure: str = ""
    "Why the last question has no answer; empty if it has one."
    first: int = 0
    "Index of the first row that is shown."


def silence(screen: Screen, now: float) -> float | None:
    """Return the seconds without an answer; None while tailscaled answers.

    `now` is monotonic.
    """
    seconds = now - screen.answered
    is_late = seconds > screen.interval + screen.patience
    return seconds if screen.failure or is_late else None


def draw(
    screen: Screen, console: Console, *, now: float, clock: str, key: Key | None = None
) -> tuple[Segments, int]:
    """Return the screen after a key, and the index of its first row.

    It has as many lines as the console. `now` is monotonic, `clock` the time of day.
    """
    width, height = console.size
    silent = silence(screen, now)
    style = None if silent is None else DIM
    answer = screen.answer

    # Above the table; it leaves the table at least half of the screen.
    above = _lines(console, _head(screen, silent, clock, width))
    if screen.failure:
        above += _lines(console, paragraphs([screen.failure]))
    if answer is not None:
        above += _lines(console, paragraphs(list(answer.lines)), style)
    above = above[: max(1, height // 2)]
    if answer is None or not answer.cells.rows:
        return _filled(above, "", HELP, console), 0

    # The table, and a line that says which part of it is shown. Titles and that line
    # have one line each.
    room = max(1, height - len(above) - 2)
    number = len(answer.cells.rows)
    first = scrolled(screen.first, key, number, room)
    end = min(number, first + room)
    below = _lines(console, table(answer.cells, width, first, end), style)
    if number <= room:
        return _filled([*above, *below], "", HELP, console), first
    part = f"peers {first + 1} to {end} of {number}"
    has_room = len(part) + 1 + len(SCROLL_HELP) <= width
    return _filled([*above, *below], part, SCROLL_HELP if has_room else HELP, console), first


def _head(screen: Screen, silent: float | None, clock: str, width: int) -> Text:
    """Return the first line: the interval, or the silence, and the clock."""
    left = Text(f"tsfc peers, every {screen.interval:g} s", "bold")
    if silent is not None:
        left = Text(f"no answer for {duration(silent)}", "bold red")
    elif screen.answer is None:
        left.append(", waiting")
    left.truncate(max(0, width - len(clock) - 1), overflow="ellipsis", pad=True)
    return left.append(f" {clock}", "not bold default")


def _filled(lines: list[list[Segment]], part: str, help_: str, console: Console) -> Segments:
    """Return all lines of the screen; the last one says what the user can do."""
    width, height = console.size
    foot = Text(part, "dim", overflow="ellipsis", no_wrap=True)
    foot.truncate(max(0, width - len(help_) - 1), overflow="ellipsis", pad=True)
    foot.append(f" {help_}")
    blank = [[Segment("")]] * max(0, height - len(lines) - 1)
    shown = [*lines, *blank][: height - 1]
    return Segments(
        [
            segment
            for line in (*shown, *_lines(console, foot)[:1])
            for segment in (*line, Segment.line())
        ][:-1]
    )


def _lines(
    console: Console, renderable: RenderableType, style: Style | None = None
) -> list[list[Segment]]:
    return console.render_lines(renderable, style=style, pad=False)
