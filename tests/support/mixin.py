"""What is in `mixin/`, and which metrics there are for it."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.processes import Ran
from support.required import program

ROOT = Path(__file__).parents[2]
MIXIN = ROOT / "mixin"
RULE_FILES = ("rules.yaml", "alerts.yaml")
JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")


@cache
def emitted() -> frozenset[str]:
    """Returns the metrics that the jobs emit: those of the golden files, and what no golden has."""
    goldens = "".join(path.read_text() for path in (ROOT / "tests/fixtures").glob("*.prom"))
    durations = {
        f"tailscale_{job.replace('-', '_')}_duration_seconds" for job in JOBS
    }  # come with real time, so not with goldens
    of_a_key_that_expires = {"tailscale_key_expiry_timestamp_seconds"}  # no lab's does
    return frozenset(
        {
            *re.findall(r"^# TYPE (tailscale_\w+)", goldens, re.MULTILINE),
            *durations,
            *of_a_key_that_expires,
        }
    )


def rules() -> list[dict[str, Any]]:
    """Returns all rules."""
    return [
        rule
        for name in RULE_FILES
        for group in yaml.safe_load((MIXIN / name).read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> list[dict[str, Any]]:
    """Returns the alert rules."""
    return [rule for rule in rules() if "alert" in rule]


def promtool(*arguments: str, cwd: Path = MIXIN) -> Ran:
    """Runs promtool to its end."""
    ran = subprocess.run(
        [program("promtool", "prometheus"), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def metrics_of(expression: str) -> set[str]:
    """Returns the metrics that a PromQL expression names, `tailscale_*`, `tailscaled_*` and those of recording rules."""
    return set(re.findall(r"\b((?:peer|instance):\w+:\w+|tailscaled?_\w+)\b", expression))


def board() -> dict[str, Any]:
    """Returns the dashboard, as it is committed."""
    read: dict[str, Any] = json.loads((MIXIN / "dashboard.json").read_text())
    return read


def panels() -> list[dict[str, Any]]:
    """Returns the panels of the dashboard, rows left out."""
    return [panel for panel in board()["panels"] if panel["type"] != "row"]


def expressions_of_the_dashboard() -> list[str]:
    """Returns all queries of the dashboard, those of its annotations included."""
    return [
        *(target["expr"] for panel in panels() for target in panel["targets"]),
        *(annotation["expr"] for annotation in board()["annotations"]["list"]),
    ]
