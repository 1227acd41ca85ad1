"""`tsfc mixin` prints the documents, or writes them below a directory."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from support.mixin import MIXIN, board, rules
from support.processes import error_lines, run
from tsfc.mixin.documents import KINDS, documents

ALONE = {"tailscale-rules.yaml", "tailscale-alerts.yaml", "tailscale-dashboard.json"}


def test_without_options_the_rules_and_the_dashboard_are_as_shipped() -> None:
    (recording,), (alerts,), (dashboard,) = (
        documents(kind).values() for kind in ("rules", "alerts", "dashboard")
    )
    printed = [
        rule
        for text in (recording, alerts)
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
    ]
    for rule in (shipped := rules()):
        rule.get("annotations", {}).pop("runbook_url", None)
    assert printed == shipped
    assert json.loads(dashboard) == board()
    assert dashboard == (MIXIN / "dashboard.json").read_text()


def test_everything_is_in_the_package() -> None:
    assert Path(str(files("tsfc") / "mixin/files")) == MIXIN
    assert {path.name for path in MIXIN.iterdir()} == {
        *("rules.yaml", "alerts.yaml", "dashboard.json", "runbooks", "examples")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_is_printed(kind: str) -> None:
    assert run("mixin", kind) == (0, "\n".join(documents(kind).values()), "")


def test_runbooks_link_only_each_other() -> None:
    pages = documents("runbooks")
    assert len(pages) == len([rule for rule in rules() if "alert" in rule])
    assert not [name for name, text in pages.items() if "](." in text or "](/" in text]
    assert "[TailscaleNodeOnRelay](TailscaleNodeOnRelay.md)" in "".join(pages.values())


def test_all_are_written_below_a_directory_that_is_created(tmp_path: Path) -> None:
    directory = tmp_path / "a/b"
    options = ("--selector", 'job="x"', "--runbook-url", "https://example.com/r/")
    ran = run("mixin", "--output", str(directory), *options)
    assert ran == (
        0,
        f"wrote {sum(len(documents(kind)) for kind in KINDS)} files to {directory}\n",
        "",
    )
    assert {path.name for path in directory.iterdir()} == {*ALONE, "runbooks", "examples"}
    alerts = (directory / "tailscale-alerts.yaml").read_text()
    assert 'tailscale_up{job="x"} == 0' in alerts
    assert "runbook_url: https://example.com/r/TailscaleDown.md\n" in alerts
    assert (directory / "runbooks/TailscaleDown.md").exists()
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.rglob("*.*")}
    assert set(modes.values()) == {0o644}
    assert (directory / "examples/notify-ntfy").stat().st_mode & 0o777 == 0o755
    again = run("mixin", "alerts", "--output", str(directory))
    assert again == (0, f"wrote 1 file to {directory}\n", "")
    assert "runbook_url" not in (directory / "tailscale-alerts.yaml").read_text()


def test_empty_options_are_as_if_absent() -> None:
    assert run("mixin", "alerts", "--selector", "", "--runbook-url", "") == run("mixin", "alerts")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "name one of rules, alerts, dashboard, runbooks, examples, or give --output DIR"),
        (["alerts", "--selector", "x"], "are not label matchers such as job="),
        (["alerts", "--runbook-url", "docs"], "'docs' is not an address such as"),
        (["alerts", "--runbook-url", "https://a/{{ .x }}"], "is not an address such as"),
        (["alerts", "--runbook-url", "https://a/b: c"], "is not an address such as"),
        (["alerts", "--runbook-url", "https://a/b\n"], "is not an address such as"),
        (["runbooks", "--selector", 'a="b"'], "--selector has no effect: runbooks have no queries"),
        (["rules", "--runbook-url", "https://a"], "--runbook-url has no effect: rules have no"),
    ],
)
def test_a_usage_error_names_the_reason(arguments: list[str], error: str) -> None:
    ran = run("mixin", *arguments)
    assert (ran.status, ran.stdout) == (2, "")
    (line,) = error_lines("mixin", ran)
    assert error in line


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "runbooks").write_text("")
    ran = run("mixin", "--output", str(tmp_path))
    assert ran.status == 1
    (line,) = error_lines("mixin", ran)
    assert line == (
        f"writing {tmp_path}/runbooks/TailscaleAllPeersOffline.md: File exists; check disk space, or "
        "set --output to a directory that you may write to"
    )
