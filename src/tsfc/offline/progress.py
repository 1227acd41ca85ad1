"""A progress bar, where somebody looks at a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tsfc.shell.console import STDERR

T = TypeVar("T")


def shown(work: Iterable[T], total: int | None, unit: str) -> Iterator[T]:
    """Passes `work` on, and shows how much of it is done; `total` None where nobody knows how much there is.

    Only where standard error is a terminal. The bar is not there while the caller does something with what was passed on, such as to print it.
    """
    if not os.isatty(STDERR):
        yield from work
        return
    from rich.console import Console  # noqa: PLC0415 - most runs show nothing
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    bar = Progress(
        TextColumn(unit),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(unit, total=total)
        for done in work:
            bar.advance(task)
            bar.stop()
            yield done
            bar.start()
