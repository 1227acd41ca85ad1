from __future__ import annotations

import pytest

from tsfc.core.faults import Down, Fault, Unusable, exit_status
from tsfc.core.metrics.families import Family, Kind, Sample, counter, duration, gauge


def test_a_gauge_is_one_sample_without_labels() -> None:
    """The plain metric of a job."""
    assert gauge("tailscale_up", "Text.", 1) == Family(
        "tailscale_up", Kind.GAUGE, "Text.", (Sample({}, 1),)
    )


def test_a_counter_is_one_sample_without_labels() -> None:
    """The plain counter of a job."""
    assert counter("tailscale_x_total", "Text.", 2) == Family(
        "tailscale_x_total", Kind.COUNTER, "Text.", (Sample({}, 2),)
    )


@pytest.mark.parametrize(
    ("job", "name"),
    [
        ("exporter", "tailscale_exporter_duration_seconds"),
        ("native-metrics", "tailscale_native_metrics_duration_seconds"),
        ("keepalive", "tailscale_keepalive_duration_seconds"),
        ("watchdog", "tailscale_watchdog_duration_seconds"),
    ],
)
def test_each_job_says_how_long_it_took(job: str, name: str) -> None:
    """To the microsecond, under a name that a metric may have."""
    assert duration(job, 0.0123456789) == Family(
        name, Kind.GAUGE, f"Duration of the last {job} run in seconds.", (Sample({}, 0.012346),)
    )


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        pytest.param(None, 0, id="none"),
        pytest.param(Down("down"), 0, id="down"),
        pytest.param(Unusable("garbage"), 1, id="unusable"),
    ],
)
def test_a_daemon_that_is_down_is_a_finding(fault: Fault | None, status: int) -> None:
    """To find tailscaled down is the job done; an answer that cannot be used is not."""
    assert exit_status(fault) == status
