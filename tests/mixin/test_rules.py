"""The alert rules pass their tests, and each change to a rule fails one of them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from support.mixin import CASES, MIXIN, RULE_FILES, alerts, promtool, rules
from tsfc.core.metrics.labels import OF_PROMETHEUS
from tsfc.mixin import selector
from tsfc.mixin.documents import documents

TESTS = sorted(path.name for path in CASES.glob("*.yaml"))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A directory with the rules and their tests."""
    shutil.copytree(CASES, tmp_path, dirs_exist_ok=True)
    for name in RULE_FILES:
        shutil.copy(MIXIN / name, tmp_path)
    return tmp_path


def failures(copied: Path, name: str) -> str:
    """Output of promtool for one file of rule tests; empty if they pass."""
    ran = promtool("test", "rules", name, cwd=copied)
    return "" if ran.status == 0 else ran.stdout + ran.stderr


def test_promtool_accepts_the_rules() -> None:
    ran = promtool("check", "rules", *RULE_FILES)
    assert (ran.status, ran.stderr) == (0, "")


@pytest.mark.parametrize("name", TESTS)
def test_the_rules_pass_their_tests(copied: Path, name: str) -> None:
    assert failures(copied, name) == ""


@pytest.mark.parametrize("name", TESTS)
def test_with_a_selector_other_series_of_the_same_names_change_nothing(
    copied: Path, name: str
) -> None:
    """Each test has all its series twice, and the selector matches the first ones."""
    label = r'job="a}\"tailscale_up"'
    matchers = selector.parse(label).unwrap()
    for kind, file in (("rules", "rules.yaml"), ("alerts", "alerts.yaml")):
        (text,) = documents(kind, matchers=matchers).values()
        (copied / file).write_text(text)
    document = yaml.safe_load((copied / name).read_text())
    for test in document["tests"]:
        test["input_series"] = [
            each | {"series": each["series"].replace("{", f"{{{text},")}
            for each in test["input_series"]
            for text in (label, 'job="other"')
        ]
    (copied / name).write_text(yaml.safe_dump(document))
    assert failures(copied, name) == ""


class Mutant(NamedTuple):
    """A rule file with one change to one rule."""

    rule: str
    change: str
    file: str
    text: str
    "Content of the changed file."


def changes(rule: str) -> Iterator[tuple[str, str]]:
    """Yield each change to a rule as its description and the changed text."""
    # Remove one operand.
    for line in re.findall(r"^ +(?:and|unless|or|-|>) .*\n?", rule, re.MULTILINE)[
        rule.lstrip().startswith("- ") :
    ]:
        yield f"without {line.strip()[:60]}", rule.replace(line, "")
    # Compare the series of a whole host, or those with the same labels only.
    for line in re.findall(r"^ +(?:and|unless|>) .*\n?", rule, re.MULTILINE):
        if " on (instance)" in line:
            other = line.replace(" on (instance)", "")
        elif "ignoring" in line:
            other = re.sub(r"ignoring \(\w+\)", "on (instance)", line)
        else:
            other = re.sub(r"(and|unless|>)", r"\1 on (instance, peer)", line, count=1)
        yield f"{other.strip()[:60]}", rule.replace(line, other)
    # Remove a duration, or make it three times as long.
    for line in re.findall(r"^ +(?:for|keep_firing_for): .*\n", rule, re.MULTILINE):
        yield f"without {line.strip()}", rule.replace(line, "")
    for whole, number in re.findall(r"(for: (\d+)[mhd])\n", rule):
        yield f"{whole} longer", rule.replace(whole, whole.replace(number, str(3 * int(number))))
    # Change one threshold or one window.
    expression = rule.partition("labels:")[0]
    for number in re.findall(r"[<>]=? ([\d.* ]*\d)", expression):
        for other in ("1e9",) if number == "0" else (f"{number} * 0.4", f"{number} * 3"):
            yield (
                f"{other} for {number}",
                re.sub(rf"([<>]=?) {re.escape(number)}(?=[\s)])", rf"\1 {other}", rule, count=1),
            )
    for window in sorted(set(re.findall(r"\[\w+\]", expression))):
        yield f"[2m] for {window}", rule.replace(window, "[2m]")


def mutants() -> Iterator[Mutant]:
    """Yield one mutant for each change to each rule."""
    for file in RULE_FILES:
        text = (MIXIN / file).read_text()
        for rule in re.findall(
            r"      - (?:alert|record): .*?(?=\n\n|\n      #|\Z)", text, re.DOTALL
        ):
            for change, mutated in changes(rule):
                yield Mutant(rule.split()[2], change, file, text.replace(rule, mutated))


MUTANTS = list(mutants())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.rule} {mutant.change}")
def test_each_change_to_a_rule_fails_a_test(copied: Path, mutant: Mutant) -> None:
    """Every operand, duration, threshold and window of a rule has a test case."""
    assert mutant.text != (copied / mutant.file).read_text()
    (copied / mutant.file).write_text(mutant.text)
    relevant = [
        name
        for name in TESTS
        if mutant.file == "rules.yaml" or mutant.rule in (CASES / name).read_text()
    ]
    assert any(
        re.search('alertname="|many-to-many matching not allowed', failures(copied, name))
        for name in relevant
    ), mutant.change


def test_each_rule_has_a_mutant() -> None:
    """Otherwise the regular expressions above could miss a rule silently."""
    known = {rule.get("alert") or rule["record"] for rule in rules()}
    assert {mutant.rule for mutant in MUTANTS} == known - {
        "peer:tailscale_peer_mobile:info"
    }  # has no operand, duration, threshold or window


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_has_a_severity_names_its_node_and_links_a_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    annotations = rule["annotations"]
    assert "$labels.instance" in annotations["summary"]
    assert "$labels.instance" in annotations["description"]
    if re.search("Peer(?!s)", rule["alert"]):
        assert "$labels.peer" in annotations["summary"]
        assert "$labels.peer" in annotations["description"]
    assert annotations["runbook_url"] == f"{rule['alert']}.md"
    runbook = MIXIN / "runbooks" / annotations["runbook_url"]
    headings = re.findall(r"^#+ (.*)$", runbook.read_text(), re.MULTILINE)
    assert headings == [
        rule["alert"],
        "Meaning",
        "Impact",
        "Diagnosis",
        "Mitigation",
        "When to silence it",
    ]


def test_no_label_that_a_rule_sets_can_be_added_to_series() -> None:
    """Otherwise the alerts of two tailscaleds on one host would have the same labels."""
    names = {name for rule in alerts() for name in rule["labels"]} | {
        name for rule in rules() for name in re.findall(r', "(\w+)", "tailscale-', rule["expr"])
    }
    assert names == {"severity", "unit"}
    assert names <= OF_PROMETHEUS


def test_each_runbook_belongs_to_an_alert() -> None:
    assert {path.stem for path in (MIXIN / "runbooks").glob("*.md")} == {
        rule["alert"] for rule in alerts()
    }
