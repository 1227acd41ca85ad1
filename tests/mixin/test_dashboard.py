"""The committed dashboard is up to date, complete, and valid for Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as models

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
    for name, value in {"instance": "a", "peer": ".*", "cluster": ".*", "job": ".*"}.items():
        expression = expression.replace(f"${name}", value)
    return re.sub(r"\$\w+", "5m", expression)


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


def test_each_query_selects_by_cluster_and_job() -> None:
    variables = [
        variable["query"]
        for variable in board()["templating"]["list"]
        if variable["name"] in {"instance", "peer"}
    ]
    for query in [*expressions_of_the_dashboard(), *variables]:
        names = re.findall(r"\b(?:tailscaled?_\w+|node_textfile_\w+|ALERTS)\b", query)
        assert len(names) == query.count('cluster=~"$cluster",job=~"$job"') > 0, query


def test_by_default_the_jobs_are_those_that_scrape_tsfc() -> None:
    """A custom value of "All" would be every job, and so every `tailscale_up`."""
    cluster, job = (
        variable
        for variable in board()["templating"]["list"]
        if variable["name"] in {"cluster", "job"}
    )
    assert "allValue" not in job
    assert cluster["allValue"] == ".*"
    for variable in (cluster, job):
        assert variable["query"].startswith("label_values(tailscale_exporter_duration_seconds")
        assert variable["includeAll"]
        assert variable["current"]["value"] == "$__all"


def leaves(part: object, at: str = "") -> Iterator[tuple[str, object]]:
    """Yield each value of a JSON document that has no parts, with its path."""
    parts: Iterable[tuple[object, object]]
    match part:
        case dict() if part:
            parts = cast("dict[str, object]", part).items()
        case list() if part:
            parts = enumerate(cast("list[object]", part))
        case _:
            yield at, part
            return
    for name, value in parts:
        yield from leaves(value, f"{at}/{name}")


def test_each_field_is_one_of_grafana_11() -> None:
    """Its SDK drops what its schema does not have, and so loses nothing of ours."""
    register_default_plugins()

    def lost(document: dict[str, Any]) -> list[str]:
        read = JSONEncoder().encode(models.Dashboard.from_json(document))
        after = dict(leaves(json.loads(read)))
        return [at for at, value in leaves(document) if at not in after or after[at] != value]

    assert lost(board()) == []
    wrong = board()
    wrong["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"
    wrong["panels"][1]["options"]["colour"] = "red"
    assert sorted(lost(wrong)) == [
        "/panels/1/fieldConfig/defaults/units",
        "/panels/1/options/colour",
    ]


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_has_a_unit_or_words_for_its_values(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["title"] == "Firing alerts" or "unit" in defaults or "mappings" in defaults
    if defaults.get("unit") == "short":
        assert defaults["decimals"] == 0


def test_each_stat_of_all_nodes_links_a_panel() -> None:
    links = {
        panel["title"]: panel["fieldConfig"]["defaults"].get("links", [])
        for panel in panels()
        if panel["type"] == "stat"
    }
    numbers = {panel["title"]: panel["id"] for panel in panels()}
    assert len(set(numbers.values())) == len(panels())
    found = [link for of_panel in links.values() for link in of_panel]
    assert len(found) == 6
    for link in found:
        number = numbers[link["title"].removeprefix("Show ")]
        assert link["url"].startswith(f"?viewPanel={number}&")


def test_an_excluded_peer_on_relay_is_not_counted(tmp_path: Path) -> None:
    (expression,) = [
        panel["targets"][0]["expr"] for panel in panels() if panel["title"] == "Peers on relay"
    ]
    series = [
        {"series": f'tailscale_peer_path{{peer="{peer}",path="derp"}}', "values": "1"}
        for peer in ("nas", "phone", "vps")
    ] + [
        {"series": f'tailscale_watchdog_peer_excluded{{peer="{peer}"}}', "values": value}
        for peer, value in (("nas", "0"), ("phone", "1"))
    ]
    case = {"expr": with_values(expression), "exp_samples": [{"value": 2}]}
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"tests": [{"input_series": series, "promql_expr_test": [case]}]})
    )
    ran = promtool("test", "rules", "test.yaml", cwd=tmp_path)
    assert ran.status == 0, ran.stdout + ran.stderr


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


def test_the_dashboard_has_its_variables_from_the_widest_on() -> None:
    assert [variable["name"] for variable in board()["templating"]["list"]] == [
        "datasource",
        "cluster",
        "job",
        "instance",
        "peer",
    ]
