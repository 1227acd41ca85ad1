"""The job `native-metrics`: tailscaled's own metrics."""

from __future__ import annotations

import time

from returns.result import Failure, Result

from tsfc.core import native_metrics as native
from tsfc.core.faults import Fault, exit_status
from tsfc.shell.console import print_error
from tsfc.shell.jobs.common import report
from tsfc.shell.tailscaled import source as tailscaled
from tsfc.shell.tailscaled.observe import Common, read_input, source

JOB = "native-metrics"


def run(common: Common, metrics_file: str | None) -> int:
    """Writes tailscaled's own metrics as they are, or that there are none; never those of an earlier run."""
    started = time.monotonic()
    checked = _ask(common, metrics_file)
    if isinstance(checked, Failure):
        print_error(JOB, checked.failure().detail)
        return report(JOB, common, (native.up(is_up=False),), started=started) or exit_status(
            checked.failure()
        )
    return report(JOB, common, (native.up(is_up=True),), started=started, before=checked.unwrap())


def _ask(common: Common, metrics_file: str | None) -> Result[str, Fault]:
    raw = (
        tailscaled.usermetrics(source(common), timeout=common.timeout)
        if metrics_file is None
        else read_input(metrics_file)
    )
    if isinstance(raw, Failure):
        return Failure(raw.failure())
    return native.checked(raw.unwrap())
