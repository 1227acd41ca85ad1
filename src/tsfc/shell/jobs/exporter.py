"""The job `exporter`: tailscaled's status as metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace
from returns.result import Failure

from tsfc.core import exporter
from tsfc.core.faults import exit_status
from tsfc.core.report import Report
from tsfc.shell.host import Host


async def run(
    host: Host,
    *,
    last_exposition: Callable[[], str],
    accept_health: Sequence[str],
    omits_users: bool,
) -> Report:
    """The metrics of all peers, or that tailscaled is down.

    `last_exposition` reads what the last run wrote: it says when a run last succeeded.
    `accept_health` are patterns of accepted health messages. With `omits_users` the
    metrics have no login names.
    """
    observed = await host.status()
    now = host.unix_time()
    if isinstance(observed, Failure):
        fault = observed.failure()
        host.warn(fault.detail)
        last_success = exporter.parse_last_success(last_exposition())
        families = exporter.metrics(None, now=now, last_success=last_success)
        return Report(families, exit_status=exit_status(fault))
    status = replace(observed.unwrap(), user=None) if omits_users else observed.unwrap()
    return Report(exporter.metrics(status, now=now, last_success=None, accept_health=accept_health))
