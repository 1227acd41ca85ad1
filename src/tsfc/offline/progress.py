"""A progress bar on a terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tsfc.shell import signals
from tsfc.shell.console import STDERR, STDOUT, write_out

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
Advance = Callable[[float], None]
"Takes the amount of work that is done."

WITHOUT_BAR = b"\r\x1b[2K\x1b[?25h"
"Clears the line of the bar and shows the cursor (ECMA-48: CR, EL; xterm: DECTCEM)."

QUIET_SECONDS = 0.2
"Time without output and without a change of the bar, after which it is drawn."


def shown(work: Iterable[T], total: int | None, unit: str) -> Iterator[T]:
    """Yield the items of `work`, and show their number on a progress bar.

    `total` is None if it is unknown. There is no bar if standard error is no terminal.
    The bar is hidden while the caller handles an item, so that it may print.
    """
    if not os.isatty(STDERR):
        yield from work
        return
    bar = _bar(unit, is_refreshed=True)
    with signals.cleaning_up(_hide_bar), bar:
        task = bar.add_task(unit, total=total)
        for done in work:
            bar.advance(task)
            bar.stop()
            yield done
            bar.start()


@contextmanager
def measured(
    total: float | None, unit: str
) -> Generator[tuple[Advance | None, Callable[[str], None]]]:
    """Show on a progress bar how far one piece of work is.

    Yields a function that takes how much is done, and one that writes to standard
    output. The first one is None if standard error is no terminal: then there is no
    bar. The bar is hidden while lines appear on the same terminal.
    """
    if not os.isatty(STDERR):
        yield None, write_out
        return
    bar = _bar(unit, is_refreshed=False)
    task = bar.add_task(unit, total=total)
    is_shared = os.isatty(STDOUT)
    changed_at = time.monotonic()

    def advance(completed: float) -> None:
        nonlocal changed_at
        if time.monotonic() - changed_at < QUIET_SECONDS:
            return
        bar.update(task, completed=completed)
        bar.start()
        bar.refresh()
        changed_at = time.monotonic()

    def write(text: str) -> None:
        nonlocal changed_at
        if is_shared:
            bar.stop()
            changed_at = time.monotonic()
        write_out(text)

    with signals.cleaning_up(_hide_bar):
        try:
            yield advance, write
        finally:
            bar.stop()


def _bar(unit: str, *, is_refreshed: bool) -> Progress:
    """Return a bar on standard error, not yet shown, that leaves no trace."""
    from rich.console import Console  # noqa: PLC0415 - most runs show no bar
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    return Progress(
        TextColumn(unit),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=is_refreshed,
    )


def _hide_bar() -> None:
    os.write(STDERR, WITHOUT_BAR)
