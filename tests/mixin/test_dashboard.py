"""The committed dashboard is up to date, complete, and valid for Prometheus."""

from __future__ import annotations

import re
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.mixin import (
    GUARDED,
    MIXIN,
    ROOT,
    board,
    expressions_of_the_dashboard,
    panels,
    promtool,
)
from tsfc.core.tailscale.paths import Path as PeerPath
from tsfc.core.watchdog.cause import Cause


def test_the_dashboard_is_up_to_date() -> None:
    """If it fails, run `make dashboard`."""
    built = subprocess.run(
        [sys.executable, ROOT / "tools/dashboard.py"], capture_output=True, text=True, check=True
    ).stdout
    assert built == (MIXIN / "dashboard.json").read_text()


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_has_a_description_a_query_and_the_data_source(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["targets"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "$datasource"}


def test_promtool_accepts_each_query(tmp_path: Path) -> None:
    expressions = [with_values(expression) for expression in expressions_of_the_dashboard()]
    rules = [
        {"record": f"query:{number}:a", "expr": expression}
        for number, expression in enumerate(expressions)
    ]
    (tmp_path / "queries.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]})
    )
    ran = promtool("check", "rules", "queries.yaml", cwd=tmp_path)
    assert (ran.status, ran.stderr) == (0, "")
    assert len(rules) > len(panels())


def with_values(expression: str) -> str:
    """Query with a value for each variable of the dashboard."""
    return re.sub(r"\$\w+", "5m", expression.replace("$instance", "a").replace("$peer", ".*"))


def evaluated(expressions: list[str], labels: list[str], directory: Path) -> list[str]:
    """Evaluate expressions on the series of all jobs, once for each text of labels.

    Returns the errors.
    """
    samples = [
        re.sub(r"^(\w+)\{?(.*?)\}? \S+$", r"\1{\2", line).rstrip("{").rstrip(",")
        for name in ("mixed-paths", "keepalive", "timeline", "usermetrics")
        for line in (ROOT / f"tests/fixtures/{name}.prom").read_text().splitlines()
        if not line.startswith("#")
    ]
    samples += [
        f'{name}{{peer="nas",cause="unknown",remedy="restart",outcome="helped"'
        for name in sorted(GUARDED)
    ]
    series = [
        {
            "series": f"{sample}{',' if '{' in sample else '{'}{label}}}",
            "values": "0+60x20",
        }
        for sample in samples
        for label in labels
    ]
    cases = [{"expr": expression, "eval_time": "10m"} for expression in expressions]
    (directory / "test.yaml").write_text(
        yaml.safe_dump(
            {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": cases}]}
        )
    )
    ran = promtool("test", "rules", "test.yaml", cwd=directory)
    assert "got:" in ran.stdout + ran.stderr, "no query selects any series"
    return re.findall(r"err: .*", ran.stdout + ran.stderr)


def test_each_query_works_for_two_tailscaleds_on_one_host(tmp_path: Path) -> None:
    two = ['instance="a",tailscaled="home"', 'instance="a",tailscaled="work"']
    expressions = [with_values(expression) for expression in expressions_of_the_dashboard()]
    assert evaluated(expressions, two, tmp_path) == []
    joined = "tailscale_up / on (instance) tailscale_peer_direct"
    assert len(evaluated([*expressions, joined], two, tmp_path)) == 1


def test_no_query_selects_by_job() -> None:
    """Alloy and node_exporter set different values of `job`."""
    selected = {
        label
        for expression in expressions_of_the_dashboard()
        for label in re.findall(r"[{,](\w+)=", expression)
    }
    assert selected == {"instance", "peer", "path", "cause", "file", "alertname", "alertstate"}


@pytest.mark.parametrize(
    ("title", "label", "values"),
    [("Path of each peer", "path", PeerPath), ("Likely cause of each relay", "cause", Cause)],
)
def test_a_timeline_has_a_color_for_each_value_of_its_label(
    title: str, label: str, values: type[StrEnum]
) -> None:
    (panel,) = [panel for panel in panels() if panel["title"] == title]
    (target,), (mapping,) = panel["targets"], panel["fieldConfig"]["defaults"]["mappings"]
    assert set(re.findall(rf'{label}="(\w+)"', target["expr"])) == set(values)
    words = [(value["text"], value["color"]) for value in mapping["options"].values()]
    assert {word for word, _ in words} == {value.replace("_", " ") for value in values}
    assert len({color for _, color in words}) == len(words)


def test_the_dashboard_has_variables_for_data_source_node_and_peer() -> None:
    assert [variable["name"] for variable in board()["templating"]["list"]] == [
        "datasource",
        "instance",
        "peer",
    ]
