"""The job `keepalive`: a round of pings."""

from __future__ import annotations

import time

from returns.result import Failure

from tsfc.core.faults import exit_status
from tsfc.core.keepalive import metrics, pings
from tsfc.core.tailscale.ping import Ping
from tsfc.shell.console import print_error
from tsfc.shell.jobs.common import report
from tsfc.shell.tailscaled.localapi_pings import ping_all
from tsfc.shell.tailscaled.observe import Common, observe, source
from tsfc.shell.tailscaled.pings import Round
from tsfc.shell.tailscaled.source import Cli, LocalAPI, Source

JOB = "keepalive"


def run(common: Common, *, count: int, ping_timeout: float) -> int:
    """Pings all online peers, and ends when all have answered directly or had their pings."""
    started = time.monotonic()
    observed = observe(common)
    if isinstance(observed, Failure):
        print_error(JOB, observed.failure().detail)
        return report(JOB, common, metrics(None), started=started) or exit_status(
            observed.failure()
        )
    round_ = send_all(source(common), pings(observed.unwrap()), count=count, timeout=ping_timeout)
    if round_.complaint is not None:
        print_error(JOB, round_.complaint)
    return report(JOB, common, metrics(round_.answers), started=started)


def send_all(asked: Source, to_send: tuple[Ping, ...], *, count: int, timeout: float) -> Round:
    """Pings all of them, by the way in which tailscaled is asked."""
    match asked:
        case LocalAPI():
            return ping_all(asked, to_send, count=count, timeout=timeout)
        case Cli():
            from tsfc.shell.tailscaled import cli_pings  # noqa: PLC0415 - most runs start no program

            return cli_pings.ping_all(asked, to_send, count=count, timeout=timeout)
