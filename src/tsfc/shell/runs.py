"""One run of a job: do it, write what it found, return its exit status."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from returns.result import Failure

from tsfc.core.metrics.families import duration
from tsfc.core.report import Report
from tsfc.shell import textfile
from tsfc.shell.host import Host
from tsfc.shell.system import System
from tsfc.shell.waiting import Waiting

if TYPE_CHECKING:  # for the watchdog only
    from tsfc.core.watchdog.policy import Policy
    from tsfc.core.watchdog.run import Run
    from tsfc.shell.notifier import Notifier


async def run(host: System, job: Callable[[Host], Waiting[Report]]) -> int:
    """Run a job and write its report."""
    started = time.monotonic()
    return write(host, await job(host), started=started)


async def watchdog(
    host: System, *, state_dir: str, policy: Policy, notifier: Notifier | None = None
) -> int:
    """Run the watchdog, unless another run holds the lock of the state directory.

    A dry run takes no lock, leaves the state as it is and notifies nobody. The notifier
    comes last, after the lock is released, so that it delays nothing.
    """
    from tsfc.shell import statedir  # noqa: PLC0415
    from tsfc.shell.jobs import watchdog as job  # noqa: PLC0415 - the other jobs need neither

    started = time.monotonic()
    if host.is_dry_run:
        done = await job.run(host, statedir.ReadOnly(state_dir), policy=policy)
    else:
        locked = statedir.lock(state_dir)
        if isinstance(locked, Failure):
            problem: statedir.Locked | str = locked.failure()
            if isinstance(problem, statedir.Locked):
                host.warn(f"another run holds the lock in {state_dir}: this one does nothing")
                return 0
            host.warn(problem)
            return 1
        try:
            done = await job.run(host, statedir.Directory(state_dir), policy=policy)
        finally:
            os.close(locked.unwrap().descriptor)
    if isinstance(done, Failure):
        host.warn(done.failure())
        return 1
    run_ = done.unwrap()
    host.keep_run(run_)
    status = write(host, job.report(run_, policy), started=started)
    if notifier is not None and not host.is_dry_run:
        await _notify(host, notifier, run_)
    return status


async def _notify(host: System, notifier: Notifier, run: Run) -> None:
    from tsfc.core.watchdog.notices import notices  # noqa: PLC0415 - most runs tell nobody
    from tsfc.shell.notifier import notify  # noqa: PLC0415

    told = notices(run)
    problem = await notify(notifier, told) if told else None
    if problem is not None:
        host.warn(problem)


def write(host: System, report: Report, *, started: float) -> int:
    """Write a report to `--metrics-path`, if that has a value; return the exit status.

    The families get the labels of `--label`; the passthrough has them already.
    The duration since `started` (monotonic seconds) comes last; a run outside real time
    (`--now`) has none.
    """
    path = host.options.metrics_path
    if path is None and not host.keeps_metrics:
        return report.exit_status
    # prometheus_client is half of a start, and a keepalive without metrics needs none.
    from tsfc.core.metrics import labels  # noqa: PLC0415

    seconds = time.monotonic() - started
    own = () if host.options.now is not None else (duration(host.job, seconds),)
    text = report.passthrough + host.render(
        labels.add((*report.families, *own), host.options.labels)
    )
    host.keep(text, report.snapshot)
    if path is None:
        return report.exit_status
    written = textfile.write(path, text)
    if not isinstance(written, Failure) and path != textfile.STANDARD_OUTPUT and report.snapshot:
        written = textfile.write(textfile.snapshot_path(path), report.snapshot)
    if isinstance(written, Failure):
        host.warn(written.failure())
        return 1
    return report.exit_status
