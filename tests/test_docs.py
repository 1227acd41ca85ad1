"""README and docs agree with the program."""

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
from support.docs import ALL, PAGES, ROOT, commands, fill_in, scripts, sessions
from support.mixin import JOBS, alerts, emitted
from support.processes import Completed, inside, series, started, wait_until
from support.required import program
from tools.metrics_reference import reference
from tsfc.cli import main as cli
from tsfc.core.metrics.labels import OF_SERIES
from tsfc.units.rendering import AGENT
from tsfc.units.rendering import JOBS as UNIT_JOBS

JOBS_PAGE = PAGES["docs/jobs.md"]


def test_the_metrics_reference_is_up_to_date() -> None:
    """If it fails, run `make docs`."""
    assert PAGES["docs/metrics.md"] == reference()


def test_the_metrics_reference_has_exactly_the_emitted_metrics() -> None:
    assert (
        set(re.findall(r"^\| `(tailscale_[a-z_]+)", PAGES["docs/metrics.md"], re.MULTILINE))
        == emitted()
    )


def test_no_label_of_a_metric_can_be_added() -> None:
    """A label of the operator would replace it."""
    listed = re.findall(r"^\| `\w+\{([\w,]+)\}`", PAGES["docs/metrics.md"], re.MULTILINE)
    names = {name for each in listed for name in each.split(",")}
    assert {"peer", "cause", "command"} < names <= OF_SERIES


def test_every_metric_on_a_page_exists() -> None:
    known = emitted() | {
        f"tailscaled_{name}" for name in ("inbound_bytes_total", "outbound_bytes_total")
    }
    assert set(re.findall(r"`(tailscaled?_[a-z_]+)[`{ ]", ALL)) - known == set()


@pytest.mark.parametrize(
    "command",
    [
        *JOBS,
        "agent",
        "capture",
        "replay",
        "simulate",
        "stand-in",
        "peers",
        "explain",
        "mixin",
        "report-bug",
    ],
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


def test_no_text_names_the_package_on_an_index() -> None:
    """No index has a package of that name that is ours."""
    files = subprocess.run(
        ["git", "ls-files", "-z", "src", "docs", "nix", "tools", "*.md", "*.nix", ".github"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    named = re.compile(
        r"tsfc\[\w|(?:pipx? (?:install|run|download)|uvx|uv (?:tool|pip|add))\b[^`\n|]*"
        r"(?<![\w/])tsfc(?![\w./])"
    )
    assert [
        (name, found[0])
        for name in files
        if name.endswith((".py", ".md", ".nix", ".service", ".yaml", ".html", ".j2"))
        for found in named.finditer((ROOT / name).read_text())
    ] == []
    assert named.search("pip install 'tsfc[report]'")
    assert named.search("pipx run tsfc")
    assert not named.search("/opt/tsfc/bin/pip install '.[report]'")
    assert not named.search("pipx inject tsfc jinja2")


def test_each_command_is_documented() -> None:
    assert [
        name for name in cli.COMMANDS if f"tsfc {name}" not in ALL and f"`{name}`" not in ALL
    ] == []


def test_each_option_of_the_units_is_documented_with_its_flag(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By its names in the modules and in `tsfc units`; common ones once, as `<job>`."""
    inside("units", "--help")
    flags = set(re.findall(r"^  (--[a-z-]+)", capfd.readouterr().out, re.MULTILINE))

    def is_documented(flag: str) -> bool:
        if flag == "--agent":
            return f"| `agent.enable` | `{flag}` |" in JOBS_PAGE
        jobs = (*UNIT_JOBS, AGENT)
        job = next((job for job in jobs if flag.startswith(f"--{job}-")), None)
        name = flag.removeprefix(f"--{job}-" if job else "--")
        option = re.sub("-([a-z])", lambda letter: letter[1].upper(), name)
        if job is None:
            return f"`{option}`" in JOBS_PAGE and f"`{flag}`" in JOBS_PAGE
        if name == "args":  # the modules have a list of arguments instead
            option = "extraArgs"
        return all(
            text in JOBS_PAGE or text.replace(job, "<job>", 1) in JOBS_PAGE
            for text in (f"`{job}.{option}`", f"`{flag}`")
        )

    actions = {"--print", "--install", "--uninstall", "--upgrade", "--uninstall-own"}
    actions |= {"--root", "--instance", "--reset", "--unset"}
    assert [action for action in sorted(actions) if f"`{action}" not in ALL] == []
    options = flags - actions
    assert len(options) > 20
    assert [flag for flag in sorted(options) if not is_documented(flag)] == []


def test_each_alert_is_listed_with_its_severity_and_linked() -> None:
    listed = re.findall(
        r"^\| \[(\w+)\]\(\S*/runbooks/(\w+)\.md\) \| (\w+) \|",
        PAGES["docs/alerts.md"],
        re.MULTILINE,
    )
    assert listed == [
        (rule["alert"], rule["alert"], rule["labels"]["severity"]) for rule in alerts()
    ]


@pytest.mark.parametrize("page", PAGES)
def test_each_link_has_a_target(page: str) -> None:
    """The target is a file of the repository, and a heading if the link names one."""
    for target in re.findall(r"\]\((?!https?:)([^)]*)\)", PAGES[page]):
        path, _, anchor = unquote(target).partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings
            }, target


def test_the_index_links_every_page() -> None:
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


def run_in_shell(command: str, **options: Any) -> Completed:
    """Run a command in a shell in which `tsfc` is the program under test."""
    script = f'tsfc() {{ "{sys.executable}" -m tsfc "$@"; }}\n{command}\n'
    ran = subprocess.run(
        ["sh", "-euc", script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
        **options,
    )
    return Completed(ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.parametrize(("command", "printed"), SESSIONS, ids=lambda text: text[:20])
def test_each_session_prints_what_the_page_shows(command: str, printed: str) -> None:
    """Byte for byte. After a `…`, the page may omit lines, but not reorder them."""
    ran = run_in_shell(command, cwd=ROOT)
    assert (ran.status, ran.stderr) == (0, "")
    if printed.startswith("…\n"):
        lines = iter(ran.stdout.splitlines())
        assert [line for line in printed.splitlines()[1:] if line not in lines] == []
    else:
        assert ran.stdout == printed


def test_the_pages_have_a_session_of_each_offline_tool() -> None:
    assert sorted(command.split()[1] for command, _ in SESSIONS) == [
        "capture",
        "doctor",
        "explain",
        "peers",
        "replay",
        "simulate",
    ]


@pytest.mark.parametrize(
    "command",
    sorted({command for _, command in commands() if command.startswith("tsfc simulate ")}),
)
def test_each_simulation_on_a_page_runs_and_writes_its_report(command: str, tmp_path: Path) -> None:
    ran = run_in_shell(command, cwd=tmp_path)
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout
    assert all(
        (tmp_path / name).stat().st_size > 0 for name in re.findall(r"--report (\S+)", command)
    )


def test_the_stand_in_on_the_page_responds(box: Path) -> None:
    """The first line of the script starts it, and the second one queries it."""
    (script,) = [text for text in scripts("docs/offline.md") if text.startswith("tsfc stand-in ")]
    start, _, query = re.sub(r"--socket \S+", f"--socket {box}/s", script).partition(" &\n")
    with started(*shlex.split(start)[1:], around=f'cd {ROOT}; exec "$@"'):
        wait_until((box / "s").exists, "the stand-in listens")
        ran = run_in_shell(query)
    assert (ran.status, ran.stderr) == (0, "")
    assert series(ran.stdout)["tailscale_up"] == 1


def test_the_script_on_the_page_installs_the_rules(tmp_path: Path) -> None:
    program("promtool", "prometheus")
    (script,) = scripts("docs/alerts.md")
    ran = run_in_shell(script.replace("run/rules", str(tmp_path)), cwd=ROOT)
    assert (ran.status, ran.stderr) == (0, "")
    assert (
        "runbook_url: https://example.com/runbooks/TailscaleDown.md"
        in (tmp_path / "tailscale-alerts.yaml").read_text()
    )


@pytest.mark.parametrize(
    "command",
    sorted(
        {
            command
            for _, command in commands()
            if command.startswith(("make ", "python -m lab measure "))
        }
    ),
)
def test_each_make_target_and_measurement_on_a_page_exists(command: str) -> None:
    for line in command.splitlines():
        *start, name = line.partition("#")[0].split()
        assert (
            name in MEASUREMENTS
            if "lab" in start
            else re.search(rf"^{name}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        ), name


def calls() -> list[str]:
    """Each call of tsfc on a page, without the shell syntax around it."""
    lines = [line.strip() for _, command in commands() for line in fill_in(command).splitlines()]
    return sorted(
        {re.split(r" &$| \||;", line)[0] for line in lines if re.match(r"(?:\S*/)?tsfc ", line)}
    )


@pytest.mark.parametrize("call", calls())
def test_the_parser_accepts_each_command_on_a_page(call: str) -> None:
    """tests/e2e/test_docs.py runs those that need a node."""
    with suppress(SystemExit) if call.endswith("--help") else nullcontext():
        cli._parse(shlex.split(call)[1:])


def test_each_news_fragment_is_one_entry_of_the_changelog() -> None:
    """A fragment with a wrong type is ignored by towncrier."""
    ran = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "0"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    fragments = [path.read_text().strip() for path in (ROOT / "changelog.d").glob("+*")]
    entries = re.findall(r"^\* \[[A-Z]+\] (.*)$", ran.stdout, re.MULTILINE)
    assert sorted(entries) == sorted(fragments)
