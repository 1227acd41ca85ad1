"""The alert rules: their own tests pass, and fail for rules that are a little different."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.mixin import MIXIN, ROOT, RULE_FILES, alerts, promtool, rules

TESTS = sorted(path.name for path in (MIXIN / "tests").glob("*.yaml"))


def faults(mixin: Path, name: str) -> str:
    """Returns what promtool has against rules in one file of their tests; nothing where they pass."""
    ran = promtool("test", "rules", name, cwd=mixin / "tests")
    return "" if ran.status == 0 else ran.stdout + ran.stderr


def test_promtool_finds_no_fault_in_the_rules() -> None:
    ran = promtool("check", "rules", *RULE_FILES)
    assert (ran.status, ran.stderr) == (0, "")


@pytest.mark.parametrize("name", TESTS)
def test_the_rules_pass_their_tests(name: str) -> None:
    assert faults(MIXIN, name) == ""


class Mutant(NamedTuple):
    """Rules that are wrong in one thing."""

    rule: str
    what: str
    file: str
    text: str


def wrong(rule: str) -> Iterator[tuple[str, str]]:
    """Yields a rule with an operand left out, no patience, more patience, another threshold, another window; and what that is."""
    for line in re.findall(r"^ +(?:and|unless|or|-) .*\n?", rule, re.MULTILINE)[
        rule.lstrip().startswith("- ") :
    ]:
        yield f"without {line.strip()[:60]}", rule.replace(line, "")
    for line in re.findall(r"^ +(?:for|keep_firing_for): .*\n", rule, re.MULTILINE):
        yield f"without {line.strip()}", rule.replace(line, "")
    for whole, minutes in re.findall(r"(for: (\d+)m)\n", rule):
        yield f"{whole} longer", rule.replace(whole, whole.replace(minutes, str(3 * int(minutes))))
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
    """Yields all rules with one of them wrong in one thing, for each thing."""
    for file in RULE_FILES:
        text = (MIXIN / file).read_text()
        for rule in re.findall(
            r"      - (?:alert|record): .*?(?=\n\n|\n      #|\Z)", text, re.DOTALL
        ):
            for what, mutated in wrong(rule):
                yield Mutant(rule.split()[2], what, file, text.replace(rule, mutated))


MUTANTS = list(mutants())


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.rule} {mutant.what}")
def test_the_tests_of_the_rules_bite(tmp_path: Path, mutant: Mutant) -> None:
    """Each part of each rule is there for a case, and that case is tested."""
    shutil.copytree(MIXIN, tmp_path, dirs_exist_ok=True)
    assert mutant.text != (tmp_path / mutant.file).read_text()
    (tmp_path / mutant.file).write_text(mutant.text)
    concerned = [
        name
        for name in TESTS
        if mutant.file == "rules.yaml" or mutant.rule in (MIXIN / "tests" / name).read_text()
    ]
    assert any('alertname="' in faults(tmp_path, name) for name in concerned), mutant.what


def test_each_rule_is_broken_somewhere() -> None:
    """Else the test above would be silent about one that its regular expressions miss."""
    known = {rule.get("alert") or rule["record"] for rule in rules()}
    assert {mutant.rule for mutant in MUTANTS} == known - {
        "peer:tailscale_peer_mobile:info"
    }  # of which there is nothing to break


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
    assert headings == [
        rule["alert"],
        "What it means",
        "What to look at",
        "What to do",
        "When to ignore it",
    ]


def test_each_runbook_has_its_alert() -> None:
    assert {path.stem for path in (ROOT / "docs/runbooks").glob("*.md")} == {
        rule["alert"] for rule in alerts()
    }
