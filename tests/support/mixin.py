"""What is in `mixin/`, and which metrics there are for it."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tsfc.shell.jobs import exporter, keepalive, native_metrics, watchdog

ROOT = Path(__file__).parents[2]
MIXIN = ROOT / "mixin"
JOBS = [exporter.JOB, native_metrics.JOB, keepalive.JOB, watchdog.JOB]


@cache
def emitted() -> frozenset[str]:
    """Returns the metrics that the jobs emit: those of the golden files, and what no golden has."""
    goldens = "".join(path.read_text() for path in (ROOT / "tests/fixtures").glob("*.prom"))
    durations = {f"tailscale_{job.replace('-', '_')}_duration_seconds" for job in JOBS}  # come with real time, so not with goldens
    of_a_key_that_expires = {"tailscale_key_expiry_timestamp_seconds"}  # no lab's does
    return frozenset({*re.findall(r"^# TYPE (tailscale_\w+)", goldens, re.MULTILINE), *durations, *of_a_key_that_expires})


def rules(name: str) -> list[dict[str, Any]]:
    """Returns the rules of a file of the mixin."""
    return [rule for group in yaml.safe_load((MIXIN / name).read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Returns the alert rules."""
    return rules("alerts.yaml")


def metrics_of(expression: str) -> set[str]:
    """Returns the metrics that a PromQL expression names, `tailscale_*`, `tailscaled_*` and those of recording rules."""
    return set(re.findall(r"\b((?:peer|instance):\w+:\w+|tailscaled?_\w+)\b", expression))


def panels() -> list[dict[str, Any]]:
    """Returns the panels of the dashboard, rows left out."""
    return [panel for panel in json.loads((MIXIN / "dashboard.json").read_text())["panels"] if panel["type"] != "row"]


def expressions_of_the_dashboard() -> list[str]:
    """Returns all queries of the dashboard, those of its annotations included."""
    annotations = json.loads((MIXIN / "dashboard.json").read_text())["annotations"]["list"]
    return [*(target["expr"] for panel in panels() for target in panel["targets"]), *(annotation["expr"] for annotation in annotations)]
