"""The README says what is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import inside, run
from tsfc import cli
from tsfc.cli_units import flag
from tsfc.shell import units
from tsfc.shell.jobs import exporter, keepalive, native_metrics, watchdog

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
JOBS = [exporter.JOB, native_metrics.JOB, keepalive.JOB, watchdog.JOB]


def test_the_metrics_of_the_readme_are_those_that_the_jobs_emit() -> None:
    """Each metric is documented, and each that is documented is emitted; durations come with real time, so not with goldens."""
    goldens = "".join(path.read_text() for path in (ROOT / "tests/fixtures").glob("*.prom"))
    emitted = set(re.findall(r"^# TYPE (tailscale_\w+)", goldens, re.MULTILINE))
    durations = {f"tailscale_{job.replace('-', '_')}_duration_seconds" for job in JOBS}
    of_a_key_that_expires = {"tailscale_key_expiry_timestamp_seconds"}  # no lab's does
    assert set(re.findall(r"`(tailscale_[a-z_]+)[`{]", README)) == emitted | durations | of_a_key_that_expires


@pytest.mark.parametrize("job", [*JOBS, "capture", "replay", "simulate", "stand-in"])
def test_a_job_has_the_options_of_the_readme(capfd: pytest.CaptureFixture[str], job: str) -> None:
    """No option is without a word in the README."""
    inside(job, "--help")
    options = set(re.findall(r"^  (--[a-z-]+)", capfd.readouterr().out, re.MULTILINE))
    assert options
    assert {option for option in options if f"`{option}" not in README and f"{option} " not in README} == set()


def test_the_readme_names_each_command() -> None:
    """What `tsfc --help` lists is in the README."""
    assert [name for name in cli.COMMANDS if name not in README] == []


def test_each_option_of_the_units_is_in_the_readme_with_its_flag() -> None:
    """Under its name in the modules, and as `tsfc units` has it; what every job has is there once, as `<job>`'s."""
    table = units.table()
    shared = [text for choice in table.shared for text in (f"`{choice.name}`", f"`{flag(None, choice.name)}`")]
    own = [(job, text) for job in table.jobs for choice in table.jobs[job].options for text in (f"`{job}.{choice.name}`", f"`{flag(job, choice.name)}`")]
    assert [text for text in shared if text not in README] == []
    assert [text for job, text in own if text not in README and text.replace(job, "<job>", 1) not in README] == []


def test_the_stand_in_of_the_readme_plays(box: Path) -> None:
    """The example command line is one: its capture is there, and its options are known."""
    command = re.search(r"^tsfc (stand-in .* --socket) \S+ (.*) &$", README, re.MULTILINE)
    assert command
    ran = run(*command[1].split(), f"{box}/no/such/directory", *command[2].split(), around=f'cd {ROOT}; exec "$@"')
    assert ran.status == 1
    assert ran.stderr.startswith(f"tsfc stand-in: listening on {box}/no/such/directory: No such file or directory; ")


SESSIONS = re.findall(r"^\$ (tsfc (?:capture|replay|simulate) .*\n(?:.+\n|\n)*?)```$", README, re.MULTILINE)


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session[:20])
def test_a_session_of_the_readme_is_what_is_printed(session: str) -> None:
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


def test_there_are_sessions_in_the_readme() -> None:
    assert [session.split()[1] for session in SESSIONS] == ["capture", "replay", "simulate"]
