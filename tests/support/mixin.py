"""Rules, alerts and dashboard of `tsfc mixin`, and the metrics that exist for them."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.processes import Completed
from support.required import program

ROOT = Path(__file__).parents[2]
MIXIN = ROOT / "src/tsfc/mixin/files"
CASES = ROOT / "tests/mixin/cases"
"Tests of the rules, for promtool."
RULE_FILES = ("rules.yaml", "alerts.yaml")
JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")


GUARDED = frozenset(
    {
        "tailscale_watchdog_budget",
        "tailscale_watchdog_budget_left",
        "tailscale_watchdog_data_plane_dead",
        "tailscale_watchdog_help_probability",
        "tailscale_watchdog_likely_cause",
        "tailscale_watchdog_remedies_total",
        "tailscale_watchdog_worth_it_in_seconds",
    }
)
"Metrics of the guarded policy only; `tests/core/watchdog/test_metrics.py` has them all."


AGENT = frozenset(
    {
        "tailscale_peer_path_seconds_total",
        "tailscale_peer_path_changes_total",
        "tailscale_peer_path_since_timestamp_seconds",
        "tailscale_keepalive_pings_total",
        "tailscale_keepalive_rtt_seconds",
        "tailscale_agent_runs_total",
        "tailscale_agent_run_failures_total",
        "tailscale_agent_skipped_runs_total",
        "tailscale_agent_cpu_seconds_total",
        "tailscale_agent_resident_memory_bytes",
        "tailscale_agent_lag_seconds",
        "tailscale_agent_duration_seconds",
    }
)
"Metrics that only the agent emits."


@cache
def emitted() -> frozenset[str]:
    """Metrics that the jobs emit: those in golden files, and the few in none."""
    goldens = "".join(path.read_text() for path in (ROOT / "tests/fixtures").glob("*.prom"))
    durations = {
        f"tailscale_{job.replace('-', '_')}_duration_seconds" for job in JOBS
    }  # absent from golden files, which are made with a fixed time
    key_expiry = {"tailscale_key_expiry_timestamp_seconds"}  # no key in the lab expires
    accepted = {"tailscale_health_issues_accepted"}  # only with --accept-health
    return frozenset(
        {
            *re.findall(r"^# TYPE (tailscale_\w+)", goldens, re.MULTILINE),
            *durations,
            *key_expiry,
            *accepted,
            *GUARDED,
            *AGENT,
        }
    )


def rules() -> list[dict[str, Any]]:
    """All recording and alert rules."""
    return [
        rule
        for name in RULE_FILES
        for group in yaml.safe_load((MIXIN / name).read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    """All alert rules."""
    return [rule for rule in rules() if "alert" in rule]


def promtool(*arguments: str, cwd: Path = MIXIN) -> Completed:
    """Run promtool and return its status and output."""
    ran = subprocess.run(
        [program("promtool", "prometheus"), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    return Completed(ran.returncode, ran.stdout, ran.stderr)


def metrics_of(expression: str) -> set[str]:
    """Metrics in a PromQL expression: tailscale_*, tailscaled_*, and recorded ones."""
    return set(re.findall(r"\b((?:peer|instance):\w+:\w+|tailscaled?_\w+)\b", expression))


def board() -> dict[str, Any]:
    """The committed dashboard."""
    dashboard: dict[str, Any] = json.loads((MIXIN / "dashboard.json").read_text())
    return dashboard


def panels() -> list[dict[str, Any]]:
    """Panels of the dashboard, without its rows."""
    return [panel for panel in board()["panels"] if panel["type"] != "row"]


def expressions_of_the_dashboard() -> list[str]:
    """All queries of the dashboard, including its annotations."""
    return [
        *(target["expr"] for panel in panels() for target in panel["targets"]),
        *(annotation["expr"] for annotation in board()["annotations"]["list"]),
    ]
