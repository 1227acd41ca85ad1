"""What the agent says about itself."""

from __future__ import annotations

from returns.result import Success

from support.processes import series
from tsfc.core.agent.runs import Runs, Usage, metrics, overdue, with_end, with_skip
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.lint import check


def test_runs_failures_and_skips_are_counted() -> None:
    runs = with_skip(with_end(with_end(Runs(), 0, 5.0), 1, 7.0))
    text = render(metrics({"exporter": runs}, Usage(1.5, 2**20, 0.01)))
    assert isinstance(check(text), Success)
    assert series(text) == {
        'tailscale_agent_runs_total{command="exporter"}': 2,
        'tailscale_agent_run_failures_total{command="exporter"}': 1,
        'tailscale_agent_skipped_runs_total{command="exporter"}': 1,
        "tailscale_agent_cpu_seconds_total": 1.5,
        "tailscale_agent_resident_memory_bytes": 2**20,
        "tailscale_agent_lag_seconds": 0.01,
    }
    assert runs.ended_at == 7.0


def test_a_job_is_overdue_after_three_intervals() -> None:
    intervals = {"keepalive": 10.0, "watchdog": 60.0}
    runs = {"keepalive": Runs(ended_at=100.0)}
    assert overdue(runs, {"keepalive": 10.0}, 130.0) == {}
    assert overdue(runs, intervals, 131.0) == {
        "keepalive": "its last run ended 31 s ago",
        "watchdog": "no run has ended yet",
    }
