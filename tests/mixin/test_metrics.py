"""Rules and dashboard name metrics that there are, and between them all of those that there are."""

from __future__ import annotations

import re

import yaml

from support.mixin import MIXIN, ROOT, emitted, expressions_of_the_dashboard, metrics_of, rules

NATIVE = set(
    re.findall(
        r"^# TYPE (\w+)", (ROOT / "tests/fixtures/usermetrics.txt").read_text(), re.MULTILINE
    )
)
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
UNUSED = {
    "tailscale_version_info": "for people",
    "tailscale_peer_exit_node": "for people's own alerts",
    "tailscale_exporter_last_success_timestamp_seconds": "tailscale_up says it earlier",
    "tailscale_native_metrics_up": "tailscale_up says it too",
}


USED_BY_RULES = {metric for rule in rules() for metric in metrics_of(rule["expr"])}


def named() -> set[str]:
    """Returns all metrics that rules and dashboard ask for."""
    return USED_BY_RULES.union(*map(metrics_of, expressions_of_the_dashboard()))


def test_each_metric_that_is_asked_for_is_emitted_by_a_job_or_recorded() -> None:
    assert named() - emitted() - NATIVE - RECORDED == set()


def test_each_metric_of_the_jobs_is_asked_for_or_known_not_to_be() -> None:
    assert emitted() - named() == set(UNUSED)


def test_each_recording_rule_is_used() -> None:
    assert USED_BY_RULES >= RECORDED


def test_each_metric_in_a_test_of_the_rules_is_one() -> None:
    """Else a rule and its test may agree on a name that nobody emits."""
    series = {
        series["series"].partition("{")[0]
        for path in (MIXIN / "tests").glob("*.yaml")
        for case in yaml.safe_load(path.read_text())["tests"]
        for series in case["input_series"]
    }
    assert series - emitted() == {"node_textfile_mtime_seconds", "node_textfile_scrape_error"}
