"""The alert rules: their own tests pass, and fail for rules that are a little different."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.mixin import MIXIN, alerts
from support.required import program

TESTS = sorted(path.name for path in (MIXIN / "tests").glob("*.yaml"))
ROOT = MIXIN.parent


def faults(rules: Path, name: str) -> str:
    """Returns what promtool has against rules in one file of their tests; nothing where they pass."""
    ran = subprocess.run([program("promtool", "prometheus"), "test", "rules", name], capture_output=True, text=True, cwd=rules / "tests", check=False)
    return "" if ran.returncode == 0 else ran.stdout + ran.stderr


def test_promtool_finds_no_fault_in_the_rules() -> None:
    files = [str(MIXIN / name) for name in ("rules.yaml", "alerts.yaml")]
    ran = subprocess.run([program("promtool", "prometheus"), "check", "rules", *files], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("name", TESTS)
def test_the_rules_pass_their_tests(name: str) -> None:
    assert faults(MIXIN, name) == ""


def mutants() -> Iterator[tuple[str, str, str]]:
    """Yields rules that are wrong in one thing, with what that is: an operand left out, no patience, more patience, another threshold."""
    text = (MIXIN / "alerts.yaml").read_text()
    for rule in re.findall(r"      - alert: .*?(?=\n\n|\n      #|\Z)", text, re.DOTALL):
        name = rule.split()[2]
        for line in re.findall(r"^ +(?:and|unless|or) .*\n", rule, re.MULTILINE):
            yield name, f"without {line.strip()[:60]}", text.replace(rule, rule.replace(line, ""))
        for line in re.findall(r"^ +(?:for|keep_firing_for): .*\n", rule, re.MULTILINE):
            yield name, f"without {line.strip()}", text.replace(rule, rule.replace(line, ""))
        for whole, minutes in re.findall(r"(for: (\d+)m)\n", rule):
            yield name, f"{whole} longer", text.replace(rule, rule.replace(whole, whole.replace(minutes, str(3 * int(minutes)))))
        expression = rule[: rule.index("labels:")]
        for number in re.findall(r"[<>]=? ([\d.* ]*\d)", expression):
            for other in ("1e9",) if number == "0" else (f"{number} * 0.4", f"{number} * 3"):
                wrong = re.sub(rf"([<>]=?) {re.escape(number)}(?=\s)", rf"\1 {other}", rule, count=1)
                yield name, f"{other} for {number}", text.replace(rule, wrong)


MUTANTS = list(mutants())


@pytest.mark.parametrize(("alert", "what", "text"), MUTANTS, ids=[f"{alert} {what}" for alert, what, _ in MUTANTS])
def test_the_tests_of_the_rules_bite(tmp_path: Path, alert: str, what: str, text: str) -> None:
    """Each part of each rule is there for a case, and that case is tested."""
    shutil.copytree(MIXIN / "tests", tmp_path / "tests")
    shutil.copy(MIXIN / "rules.yaml", tmp_path)
    assert text != (MIXIN / "alerts.yaml").read_text()
    (tmp_path / "alerts.yaml").write_text(text)
    assert any(f'alertname="{alert}"' in faults(tmp_path, name) for name in TESTS if alert in (MIXIN / "tests" / name).read_text()), what


def test_each_part_of_the_rules_is_broken_somewhere() -> None:
    """Else the test above would be silent about an alert that its regular expressions miss."""
    assert {alert for alert, _, _ in MUTANTS} == {rule["alert"] for rule in alerts()}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_who_how_bad_and_what_to_read(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    said = rule["annotations"]
    assert "$labels.instance" in said["summary"]
    assert "$labels.instance" in said["description"]
    if "Peer" in rule["alert"]:
        assert "$labels.peer" in said["summary"]
        assert "$labels.peer" in said["description"]
    runbook = ROOT / said["runbook_url"]
    assert runbook.stem == rule["alert"]
    headings = re.findall(r"^#+ (.*)$", runbook.read_text(), re.MULTILINE)
    assert headings == [rule["alert"], "What it means", "What to look at", "What to do", "When to ignore it"]


def test_each_runbook_has_its_alert() -> None:
    assert {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")} == {rule["alert"] for rule in alerts()}
