"""The job `native-metrics`: tailscaled's own metrics."""

from __future__ import annotations

from collections.abc import Mapping

from returns.result import Failure

from tsfc.core import native_metrics
from tsfc.core.faults import exit_status
from tsfc.core.metrics.families import NO_LABELS
from tsfc.core.report import Report
from tsfc.shell.host import Host


async def run(host: Host, *, labels: Mapping[str, str] = NO_LABELS) -> Report:
    """Return tailscaled's own metrics, or that there are none.

    They are unchanged, except that each sample gets `labels`.
    """
    raw = await host.usermetrics()
    validated = (
        raw if isinstance(raw, Failure) else native_metrics.validated(raw.unwrap(), labels=labels)
    )
    if isinstance(validated, Failure):
        fault = validated.failure()
        host.warn(fault.detail)
        return Report((native_metrics.up(is_up=False),), exit_status=exit_status(fault))
    return Report((native_metrics.up(is_up=True),), validated.unwrap())
