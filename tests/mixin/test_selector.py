"""A selector is put into every selector of series, and nowhere else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from support.mixin import promtool
from tsfc.core.text import printable
from tsfc.mixin import selector
from tsfc.mixin.documents import documents

HOSTILE = [
    'job="a}"',
    'job="a{b=\\"c\\"},tailscale_up"',
    'job="tailscale_up"',
    'job="x: y #z",site!="\'"',
    'job=~"a\\\\.b|(c,d)",cluster!~"[[:alpha:]]+"',
    'job="$instance",site="${job} {{ $labels.job }} %s \\\\1 \\\\g<0>"',
    'job="näs ☃"',
]


def matchers(text: str) -> tuple[selector.Matcher, ...]:
    """Matchers of a valid selector."""
    return selector.parse(text).unwrap()


def queries(text: str) -> list[str]:
    """All queries of the mixin with a selector."""
    rules = [
        rule["expr"]
        for kind in ("rules", "alerts")
        for document in documents(kind, matchers=matchers(text) if text else ()).values()
        for group in yaml.safe_load(document)["groups"]
        for rule in group["rules"]
    ]
    (board,) = documents("dashboard", matchers=matchers(text) if text else ()).values()
    return [*rules, *of_board(json.loads(board))]


def of_board(board: dict[str, Any]) -> Iterator[str]:
    """Queries of the dashboard and of its variables, without Grafana's own syntax."""
    for target in [
        *(target for panel in board["panels"] for target in panel.get("targets", [])),
        *board["annotations"]["list"],
    ]:
        yield target["expr"].replace("$__rate_interval", "5m")
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield re.sub(r"^label_values\((.*), \w+\)$", r"\1", variable["query"])


def selectors_of(query: str) -> list[set[tuple[str, str, str]]]:
    """Matchers of each selector of series, as a parser of PromQL sees them."""
    found: list[set[tuple[str, str, str]]] = []

    def visit(expression: promql.Expr) -> None:
        if isinstance(expression, promql.MatrixSelector):
            expression = expression.vector_selector
        if isinstance(expression, promql.VectorSelector):
            found.append(
                {(each.name, str(each.op), each.value) for each in expression.matchers.matchers}
            )

    promql.walk(promql.parse(query), visit)
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_each_selector_of_series_has_the_given_matchers_too(text: str) -> None:
    (given_matchers,) = selectors_of(f"up{{{text}}}")
    before = [selectors_of(query) for query in queries("")]
    after = [selectors_of(query) for query in queries(text)]
    assert len(before) > 60
    assert all(before)
    assert after == [[each | given_matchers for each in of_query] for of_query in before]


@pytest.mark.parametrize("text", ["", *HOSTILE])
def test_promtool_accepts_the_rules_with_a_selector_and_links(text: str, tmp_path: Any) -> None:
    address = "https://[::1]:80/%7Bx%7D/!$&'()*+,;=@:/a"
    for kind in ("rules", "alerts"):
        for name, document in documents(
            kind, matchers=matchers(text) if text else (), runbook_url=address
        ).items():
            (tmp_path / name).write_text(document)
    ran = promtool("check", "rules", *(path.name for path in tmp_path.iterdir()), cwd=tmp_path)
    assert (ran.status, ran.stderr) == (0, "")
    links = re.findall("runbook_url: (.*)", (tmp_path / "tailscale-alerts.yaml").read_text())
    assert {link.rpartition("/")[0] for link in links} == {address}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with LABEL"),
        ("node", "does not begin with LABEL"),
        ("job=node", "does not begin with LABEL"),
        ('{job="node"}', "does not begin with LABEL"),
        ("job='node'", "does not begin with LABEL"),
        ('job=="node"', "does not begin with LABEL"),
        ('job="node",', "does not begin with LABEL"),
        (r'job="\d"', "does not begin with LABEL"),
        ('job="node"} or up{x="y"', "does not begin with a comma"),
        ('job="node" site="b"', "does not begin with a comma"),
        ('job="a\nb"', "printable"),
        ('job="' + "a" * selector.LIMIT + '"', "printable"),
        ('peer="nas"', "not every series has a label peer"),
        ('alertname="a"', "not every series has a label alertname"),
        ('__name__="up"', "not every series has a label __name__"),
    ],
)
def test_what_is_no_selector_for_every_query_is_refused(text: str, reason: str) -> None:
    assert reason in selector.parse(text).failure()


@given(st.text().filter(lambda text: printable(text, 1000) == text))
def test_any_printable_value_can_be_quoted_and_arrives(value: str) -> None:
    quoted = json.dumps(value, ensure_ascii=False)
    query = selector.select('tailscale_up{state="x"} == 0', matchers(f"job={quoted}"))
    (found,) = selectors_of(query)
    assert {name: text for name, _, text in found} == {"state": "x", "job": value}
