"""What the jobs have in common: how they report."""

from __future__ import annotations

import time
from collections.abc import Iterable

from returns.result import Failure

from tsfc.core.metrics.families import Family, duration
from tsfc.shell import textfile
from tsfc.shell.console import print_error
from tsfc.shell.tailscaled.observe import Common


def report(
    job: str, common: Common, families: Iterable[Family], *, started: float, before: str = ""
) -> int:
    """Writes the metrics, if a place was given for them, behind the text `before`; returns the exit status of that.

    The duration of the run, since `started` (monotonic), comes last; a run outside real time has none.
    """
    if common.metrics_path is None:
        return 0
    from tsfc.core.metrics.exposition import render  # noqa: PLC0415 - prometheus_client is half of a start, and a keepalive without metrics needs none

    own = () if common.now is not None else (duration(job, time.monotonic() - started),)
    written = textfile.write(common.metrics_path, before + render((*families, *own)))
    if isinstance(written, Failure):
        print_error(job, written.failure())
        return 1
    return 0
