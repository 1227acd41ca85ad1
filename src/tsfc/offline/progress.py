"""A progress bar, where somebody looks at a terminal and nothing else is written there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tsfc.shell.jobs.common import STDERR, STDOUT

T = TypeVar("T")


def shown(work: Iterable[T], total: int | None, unit: str) -> Iterator[T]:
    """Passes `work` on, and shows how much of it is done; `total` None where nobody knows how much there is.

    Only while standard error is a terminal and standard output is none: in one place the bar and the lines would overwrite each other.
    """
    if not os.isatty(STDERR) or os.isatty(STDOUT):
        yield from work
        return
    from rich.console import Console  # noqa: PLC0415 - most runs show nothing
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    bar = Progress(TextColumn(unit), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True), transient=True)
    with bar:
        yield from bar.track(work, total=total)
