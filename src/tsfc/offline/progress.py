"""A progress bar on a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tsfc.shell import signals
from tsfc.shell.console import STDERR

T = TypeVar("T")

WITHOUT_BAR = b"\r\x1b[2K\x1b[?25h"
"Clears the line of the bar and shows the cursor (ECMA-48: CR, EL; xterm: DECTCEM)."


def shown(work: Iterable[T], total: int | None, unit: str) -> Iterator[T]:
    """Yield the items of `work`, and show their number on a progress bar.

    `total` is None if it is unknown. There is no bar if standard error is no terminal.
    The bar is hidden while the caller handles an item, so that it may print.
    """
    if not os.isatty(STDERR):
        yield from work
        return
    from rich.console import Console  # noqa: PLC0415 - most runs show no bar
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    bar = Progress(
        TextColumn(unit),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with signals.cleaning_up(_hide_bar), bar:
        task = bar.add_task(unit, total=total)
        for done in work:
            bar.advance(task)
            bar.stop()
            yield done
            bar.start()


def _hide_bar() -> None:
    os.write(STDERR, WITHOUT_BAR)
