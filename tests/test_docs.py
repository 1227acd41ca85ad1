"""README and docs say what is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

from support.mixin import JOBS, alerts, emitted
from support.processes import inside, run
from support.required import program
from tools.metrics_reference import reference
from tsfc import cli
from tsfc.cli_units import flag
from tsfc.shell import units

ROOT = Path(__file__).parents[1]
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]}
ALL = "".join(PAGES.values())
JOBS_PAGE = PAGES["docs/jobs.md"]
BLOCKS = [(page, kind, text) for page, content in PAGES.items() for kind, text in re.findall(r"^```(\w+)\n(.*?)^```$", content, re.MULTILINE | re.DOTALL)]


def test_the_metrics_reference_is_up_to_date() -> None:
    """Else: `make docs`."""
    assert PAGES["docs/metrics.md"] == reference()


def test_the_metrics_reference_has_what_the_jobs_emit() -> None:
    assert set(re.findall(r"^\| `(tailscale_[a-z_]+)", PAGES["docs/metrics.md"], re.MULTILINE)) == emitted()


def test_no_page_names_a_metric_that_there_is_not() -> None:
    known = emitted() | {f"tailscaled_{name}" for name in ("inbound_bytes_total", "outbound_bytes_total")}
    assert set(re.findall(r"`(tailscaled?_[a-z_]+)[`{ ]", ALL)) - known == set()


@pytest.mark.parametrize("command", [*JOBS, "capture", "replay", "simulate", "stand-in", "peers", "explain"])
def test_each_option_of_a_command_is_documented(capfd: pytest.CaptureFixture[str], command: str) -> None:
    inside(command, "--help")
    options = set(re.findall(r"^  (--[a-z-]+)", capfd.readouterr().out, re.MULTILINE))
    assert options
    assert {option for option in options if f"`{option}" not in ALL and f"{option} " not in ALL} == set()


def test_each_command_is_documented() -> None:
    assert [name for name in cli.COMMANDS if f"tsfc {name}" not in ALL and f"`{name}`" not in ALL] == []


def test_each_option_of_the_units_is_documented_with_its_flag() -> None:
    """Under its name in the modules, and as `tsfc units` has it; what every job has is there once, as `<job>`'s."""
    table = units.table()
    shared = [text for choice in table.shared for text in (f"`{choice.name}`", f"`{flag(None, choice.name)}`")]
    own = [(job, text) for job in table.jobs for choice in table.jobs[job].options for text in (f"`{job}.{choice.name}`", f"`{flag(job, choice.name)}`")]
    assert [text for text in shared if text not in JOBS_PAGE] == []
    assert [text for job, text in own if text not in JOBS_PAGE and text.replace(job, "<job>", 1) not in JOBS_PAGE] == []


def test_each_alert_is_listed_with_its_severity_and_linked() -> None:
    listed = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \|", PAGES["docs/alerts.md"], re.MULTILINE)
    assert listed == [(rule["alert"], rule["alert"], rule["labels"]["severity"]) for rule in alerts()]


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_somewhere(page: str) -> None:
    """To a file of the repository, and where it names one, to a heading in it."""
    for target in re.findall(r"\]\((?!https?:)([^)]*)\)", PAGES[page]):
        path, _, anchor = unquote(target).partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_the_documentation_is_reachable_from_its_index() -> None:
    index = PAGES["docs/README.md"]
    assert [page for page in PAGES if page.count("/") == 1 and page != "docs/README.md" and f"]({Path(page).name})" not in index] == []


def test_the_stand_in_that_is_shown_plays(box: Path) -> None:
    """The example command line is one: its capture is there, and its options are known."""
    command = re.search(r"^tsfc (stand-in .* --socket) \S+ (.*) &$", ALL, re.MULTILINE)
    assert command
    ran = run(*command[1].split(), f"{box}/no/such/directory", *command[2].split(), around=f'cd {ROOT}; exec "$@"')
    assert ran.status == 1
    assert ran.stderr.startswith(f"tsfc stand-in: listening on {box}/no/such/directory: No such file or directory; ")


SESSIONS = re.findall(r"^\$ (tsfc (?:capture|replay|simulate|peers|explain) .*\n(?:.+\n|\n)*?)```$", ALL, re.MULTILINE)


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session[:20])
def test_a_session_that_is_shown_is_what_is_printed(session: str) -> None:
    """In order and to the byte; where there is a `…`, lines are left out."""
    command, *lines = session.splitlines()
    script = f'tsfc() {{ "{sys.executable}" -m tsfc "$@"; }}\n{command}\n'
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    if lines[0] == "…":
        printed = iter(ran.stdout.splitlines())
        assert [line for line in lines[1:] if line not in printed] == []
    else:
        assert ran.stdout == "\n".join(lines) + "\n"


def test_there_are_sessions() -> None:
    assert sorted(session.split()[1] for session in SESSIONS) == ["capture", "explain", "peers", "replay", "simulate", "simulate"]


def commands() -> list[str]:
    """Returns each command of tsfc in a block or in a line of the pages, without what surrounds it."""
    blocks = [line.removeprefix("$ ").strip() for _, kind, text in BLOCKS if kind in {"sh", "console"} for line in text.splitlines()]
    inline = re.findall(r"`(tsfc [^`\n]+ [^`\n]+)`", ALL)  # a name without arguments only names a command
    found = [re.split(r" &| \||;", text)[0] for text in (*blocks, *inline)]
    return sorted({re.sub(r"^\S*tsfc ", "", text) for text in found if re.match(r"(?:\S*/)?tsfc [a-z]", text)})


@pytest.mark.parametrize("command", commands())
def test_each_command_that_is_shown_is_understood(command: str) -> None:
    """By the parser; those that need root, a week or a cluster are run nowhere else."""
    arguments = [argument.replace("SECONDS", "2") for argument in shlex.split(command)]
    cli._parse(arguments)


def test_the_rules_are_installed_as_shown(tmp_path: Path) -> None:
    program("promtool", "prometheus")
    (script,) = [text for page, kind, text in BLOCKS if page == "docs/alerts.md" and kind == "sh"]
    ran = subprocess.run(
        ["sh", "-euc", script.replace("run/rules", str(tmp_path))], capture_output=True, text=True, cwd=ROOT, check=False, env=os.environ | {"LC_ALL": "C"}
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "runbook_url: https://example.com/tsfc/docs/runbooks/TailscaleDown.md" in (tmp_path / "tailscale-alerts.yaml").read_text()
