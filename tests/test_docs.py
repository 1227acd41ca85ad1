"""README and docs say what is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from lab.measure import MEASUREMENTS
from support.docs import ALL, PAGES, ROOT, filled_in, scripts, sessions, shown
from support.mixin import JOBS, alerts, emitted
from support.processes import Ran, inside, series, started, wait_until
from support.required import program
from tools.metrics_reference import reference
from tsfc.cli import main as cli
from tsfc.units.rendering import JOBS as UNIT_JOBS

JOBS_PAGE = PAGES["docs/jobs.md"]


def test_the_metrics_reference_is_up_to_date() -> None:
    """Else: `make docs`."""
    assert PAGES["docs/metrics.md"] == reference()


def test_the_metrics_reference_has_what_the_jobs_emit() -> None:
    assert (
        set(re.findall(r"^\| `(tailscale_[a-z_]+)", PAGES["docs/metrics.md"], re.MULTILINE))
        == emitted()
    )


def test_no_page_names_a_metric_that_there_is_not() -> None:
    known = emitted() | {
        f"tailscaled_{name}" for name in ("inbound_bytes_total", "outbound_bytes_total")
    }
    assert set(re.findall(r"`(tailscaled?_[a-z_]+)[`{ ]", ALL)) - known == set()


@pytest.mark.parametrize(
    "command", [*JOBS, "capture", "replay", "simulate", "stand-in", "peers", "explain"]
)
def test_each_option_of_a_command_is_documented(
    capfd: pytest.CaptureFixture[str], command: str
) -> None:
    inside(command, "--help")
    options = set(re.findall(r"^  (--[a-z-]+)", capfd.readouterr().out, re.MULTILINE))
    assert options
    assert {
        option for option in options if f"`{option}" not in ALL and f"{option} " not in ALL
    } == set()


def test_each_command_is_documented() -> None:
    assert [
        name for name in cli.COMMANDS if f"tsfc {name}" not in ALL and f"`{name}`" not in ALL
    ] == []


def test_each_option_of_the_units_is_documented_with_its_flag(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As the modules name it and as `tsfc units` does; options of all jobs once, as `<job>`'s."""
    inside("units", "--help")
    flags = set(re.findall(r"^  (--[a-z-]+)", capfd.readouterr().out, re.MULTILINE))

    def is_documented(flag: str) -> bool:
        job = next((job for job in UNIT_JOBS if flag.startswith(f"--{job}-")), None)
        name = flag.removeprefix(f"--{job}-" if job else "--")
        option = re.sub("-([a-z])", lambda letter: letter[1].upper(), name)
        if job is None:
            return f"`{option}`" in JOBS_PAGE and f"`{flag}`" in JOBS_PAGE
        return all(
            text in JOBS_PAGE or text.replace(job, "<job>", 1) in JOBS_PAGE
            for text in (f"`{job}.{option}`", f"`{flag}`")
        )

    options = flags - {"--print", "--install", "--uninstall", "--root"}
    assert len(options) > 20
    assert [flag for flag in sorted(options) if not is_documented(flag)] == []


def test_each_alert_is_listed_with_its_severity_and_linked() -> None:
    listed = re.findall(
        r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \|", PAGES["docs/alerts.md"], re.MULTILINE
    )
    assert listed == [
        (rule["alert"], rule["alert"], rule["labels"]["severity"]) for rule in alerts()
    ]


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_somewhere(page: str) -> None:
    """To a file of the repository, and where it names one, to a heading in it."""
    for target in re.findall(r"\]\((?!https?:)([^)]*)\)", PAGES[page]):
        path, _, anchor = unquote(target).partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
            }, target


def test_the_documentation_is_reachable_from_its_index() -> None:
    index = PAGES["docs/README.md"]
    assert [
        page
        for page in PAGES
        if page.count("/") == 1
        and page != "docs/README.md"
        and f"]({Path(page).name})" not in index
    ] == []


SESSIONS = [
    session for page in PAGES for session in sessions(page) if session[0].startswith("tsfc ")
]


def typed(command: str, **options: Any) -> Ran:
    """Runs a command in a shell where `tsfc` is this one."""
    script = f'tsfc() {{ "{sys.executable}" -m tsfc "$@"; }}\n{command}\n'
    ran = subprocess.run(
        ["sh", "-euc", script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
        **options,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.parametrize(("command", "printed"), SESSIONS, ids=lambda text: text[:20])
def test_a_session_that_is_shown_is_what_is_printed(command: str, printed: str) -> None:
    """In order and to the byte; where there is a `…`, lines are left out."""
    ran = typed(command, cwd=ROOT)
    assert (ran.status, ran.stderr) == (0, "")
    if printed.startswith("…\n"):
        lines = iter(ran.stdout.splitlines())
        assert [line for line in printed.splitlines()[1:] if line not in lines] == []
    else:
        assert ran.stdout == printed


def test_there_are_sessions() -> None:
    assert sorted(command.split()[1] for command, _ in SESSIONS) == [
        "capture",
        "explain",
        "peers",
        "replay",
        "simulate",
        "simulate",
    ]


@pytest.mark.parametrize(
    "command", sorted({command for _, command in shown() if command.startswith("tsfc simulate ")})
)
def test_a_simulation_that_is_shown_runs_and_writes_its_report(
    command: str, tmp_path: Path
) -> None:
    ran = typed(command, cwd=tmp_path)
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout
    assert all(
        (tmp_path / name).stat().st_size > 0 for name in re.findall(r"--report (\S+)", command)
    )


def test_the_stand_in_that_is_shown_plays(box: Path) -> None:
    """The first line starts it, and the second asks it."""
    (script,) = [text for text in scripts("docs/offline.md") if text.startswith("tsfc stand-in ")]
    played, _, asked = re.sub(r"--socket \S+", f"--socket {box}/s", script).partition(" &\n")
    with started(*shlex.split(played)[1:], around=f'cd {ROOT}; exec "$@"'):
        wait_until((box / "s").exists, "the stand-in listens")
        ran = typed(asked)
    assert (ran.status, ran.stderr) == (0, "")
    assert series(ran.stdout)["tailscale_up"] == 1


def test_the_rules_are_installed_as_shown(tmp_path: Path) -> None:
    program("promtool", "prometheus")
    (script,) = scripts("docs/alerts.md")
    ran = typed(script.replace("run/rules", str(tmp_path)), cwd=ROOT)
    assert (ran.status, ran.stderr) == (0, "")
    assert (
        "runbook_url: https://example.com/tsfc/docs/runbooks/TailscaleDown.md"
        in (tmp_path / "tailscale-alerts.yaml").read_text()
    )


@pytest.mark.parametrize(
    "command",
    sorted(
        {
            command
            for _, command in shown()
            if command.startswith(("make ", "python -m lab measure "))
        }
    ),
)
def test_each_command_for_developers_is_there(command: str) -> None:
    for line in command.splitlines():
        *start, name = line.partition("#")[0].split()
        assert (
            name in MEASUREMENTS
            if "lab" in start
            else re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        ), name


def calls() -> list[str]:
    """Returns each call of tsfc that is shown, wherever in a script it is, without what surrounds it."""
    lines = [line.strip() for _, command in shown() for line in filled_in(command).splitlines()]
    return sorted(
        {re.split(r" &$| \||;", line)[0] for line in lines if re.match(r"(?:\S*/)?tsfc ", line)}
    )


@pytest.mark.parametrize("call", calls())
def test_each_command_that_is_shown_is_understood(call: str) -> None:
    """By the parser; tests/e2e/test_docs.py runs those that have to do with a node."""
    with suppress(SystemExit) if call.endswith("--help") else nullcontext():
        cli._parse(shlex.split(call)[1:])
