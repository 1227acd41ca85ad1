from __future__ import annotations

import pytest

from tsfc.core.faults import Down, Fault, Unusable, exit_status
from tsfc.core.metrics.families import Family, Kind, Sample, counter, duration, gauge


def test_a_gauge_is_one_sample_without_labels() -> None:
    assert gauge("tailscale_up", "Text.", 1) == Family(
        "tailscale_up", Kind.GAUGE, "Text.", (Sample({}, 1),)
    )


def test_a_counter_is_one_sample_without_labels() -> None:
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
def test_the_duration_metric_is_named_after_the_job(job: str, name: str) -> None:
    """Its value is rounded to microseconds."""
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
def test_only_an_unusable_response_fails_the_run(fault: Fault | None, status: int) -> None:
    """A job that finds tailscaled down has done its work."""
    assert exit_status(fault) == status
