"""Rules and dashboard use only metrics that exist, and together all of them."""

from __future__ import annotations

import re

import yaml

from support.mixin import (
    AGENT,
    CASES,
    ROOT,
    emitted,
    expressions_of_the_dashboard,
    metrics_of,
    rules,
)

NATIVE = set(
    re.findall(
        r"^# TYPE (\w+)", (ROOT / "tests/fixtures/usermetrics.txt").read_text(), re.MULTILINE
    )
)
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
UNUSED = {
    "tailscale_version_info": "information for people",
    "tailscale_health_issues_accepted": "the operator knows these messages",
    "tailscale_peer_exit_node": "for alerts that users write",
    "tailscale_hidden_peers": "information for people",
    "tailscale_exporter_last_success_timestamp_seconds": "tailscale_up shows it earlier",
    "tailscale_watchdog_all_peers_offline": "the exporter's metrics exist without a watchdog",
    "tailscale_watchdog_unmatched_exclusions": "the watchdog's log names them",
    "tailscale_keepalive_unmatched_exclusions": "the log of keepalive names them",
    "tailscale_watchdog_worth_it_in_seconds": "`tsfc explain` shows it for each peer",
    "tailscale_native_metrics_up": "tailscale_up shows it, too",
    **dict.fromkeys(AGENT, "most nodes run the timers, not the agent"),
}
"Metrics that neither rules nor dashboard use, with the reason."
USED_BY_RULES = {metric for rule in rules() for metric in metrics_of(rule["expr"])}


def used() -> set[str]:
    """Metrics that rules and dashboard use."""
    return USED_BY_RULES.union(*map(metrics_of, expressions_of_the_dashboard()))


def test_each_used_metric_is_emitted_or_recorded() -> None:
    assert used() - emitted() - NATIVE - RECORDED == set()


def test_each_emitted_metric_is_used_or_listed_as_unused() -> None:
    assert emitted() - used() == set(UNUSED)


def test_each_recording_rule_is_used() -> None:
    assert USED_BY_RULES >= RECORDED


def test_the_rule_about_phones_drops_each_label_except_the_name() -> None:
    """Otherwise it would not match other series of the same peer."""
    golden = (ROOT / "tests/fixtures/mixed-paths.prom").read_text()
    (_, labels, *_) = re.findall(r"^tailscale_peer_info\{(.*)\} 1", golden, re.MULTILINE)
    (expression,) = [
        rule["expr"] for rule in rules() if rule.get("record") == "peer:tailscale_peer_mobile:info"
    ]
    (dropped,) = re.findall(r"without \((.*?)\)", expression)
    assert {"peer", *dropped.split(", ")} == set(re.findall(r'(\w+)="', labels))


def test_the_tests_of_the_rules_use_only_emitted_metrics() -> None:
    """Otherwise a rule and its test could agree on a metric that does not exist."""
    series = {
        series["series"].partition("{")[0]
        for path in CASES.glob("*.yaml")
        for case in yaml.safe_load(path.read_text())["tests"]
        for series in case["input_series"]
    }
    assert series - emitted() == {"node_textfile_mtime_seconds", "node_textfile_scrape_error"}
