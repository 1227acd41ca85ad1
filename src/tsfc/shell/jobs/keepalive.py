"""The job `keepalive`: one round of pings."""

from __future__ import annotations

from returns.result import Failure

from tsfc.core import keepalive
from tsfc.core.faults import exit_status
from tsfc.core.keepalive import Exclusion
from tsfc.core.report import Report
from tsfc.core.text import one_line
from tsfc.shell.host import Host


async def run(host: Host, *, count: int, ping_timeout: float, excluded: Exclusion) -> Report:
    """Ping all online peers until each has answered directly or has had its pings."""
    observed = await host.status()
    if isinstance(observed, Failure):
        fault = observed.failure()
        host.warn(fault.detail)
        return Report(keepalive.metrics(None), exit_status=exit_status(fault))
    status = observed.unwrap()
    unknown = keepalive.unknown_names(status, excluded)
    for name in unknown:
        host.warn(
            f"excluding {one_line(name)}: there is no such peer; run `tsfc peers --all` for a "
            "list, and correct --exclude-peer"
        )
    pings = keepalive.pings(status, excluded)
    round_ = await host.ping(pings, count=count, timeout=ping_timeout)
    if round_.error is not None:
        host.warn(round_.error)
    return Report(keepalive.metrics(round_.results, unknown))
