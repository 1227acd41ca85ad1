"""The job `native-metrics`: tailscaled's own metrics."""

from __future__ import annotations

from returns.result import Failure

from tsfc.core import native_metrics
from tsfc.core.faults import exit_status
from tsfc.core.report import Report
from tsfc.shell.host import Host


def run(host: Host) -> Report:
    """Return tailscaled's own metrics unchanged, or that there are none."""
    raw = host.usermetrics()
    validated = raw if isinstance(raw, Failure) else native_metrics.validated(raw.unwrap())
    if isinstance(validated, Failure):
        fault = validated.failure()
        host.warn(fault.detail)
        return Report((native_metrics.up(is_up=False),), exit_status=exit_status(fault))
    return Report((native_metrics.up(is_up=True),), validated.unwrap())
