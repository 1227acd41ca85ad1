"""The job `exporter`: tailscaled's status as metrics."""

from __future__ import annotations

import time

from returns.result import Failure

from tsfc.core.exporter import last_success_in, metrics
from tsfc.core.faults import exit_status
from tsfc.shell import textfile
from tsfc.shell.clocks import unix_time
from tsfc.shell.console import print_error
from tsfc.shell.jobs.common import report
from tsfc.shell.tailscaled.observe import Common, observe

JOB = "exporter"


def run(common: Common) -> int:
    """Writes the metrics of all peers, or that tailscaled is not up."""
    started = time.monotonic()
    observed = observe(common)
    now = unix_time(common.now)
    if isinstance(observed, Failure):
        print_error(JOB, observed.failure().detail)
        said = metrics(
            None, now=now, last_success=last_success_in(textfile.read(common.metrics_path))
        )
        return report(JOB, common, said, started=started) or exit_status(observed.failure())
    return report(
        JOB, common, metrics(observed.unwrap(), now=now, last_success=None), started=started
    )
