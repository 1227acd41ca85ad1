"""With `--source cli` the `tailscale` program is asked: as documented, bounded, and without a process left behind."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from support.processes import (
    Ran,
    complaints,
    have_ended,
    inside,
    interrupt,
    noted_processes,
    pids_in,
    run,
    series,
    started,
    wait_until,
)
from support.programs import calls, program
from support.servers import DIRECT_PONG, http, serving, tailscaled
from support.statuses import encoded, peer
from tsfc.shell import program as programs_run

STATUS = encoded(peer("a"), peer("b", "derp"))
METRICS = "# TYPE tailscaled_approved_routes gauge\ntailscaled_approved_routes 0\n"
ASKED = {
    "exporter": "status --json",
    "native-metrics": "metrics print",
    "watchdog": "status --json",
}


def _answering(box: Path, programs: Path) -> Path:
    (box / "status.json").write_bytes(STATUS)
    (box / "metrics.txt").write_text(METRICS)
    return program(
        programs,
        "tailscale",
        f"""echo 'Warning: client version "1" != tailscaled server version "2"' >&2
case "$*" in
*status*) cat {box}/status.json ;;
*metrics*) cat {box}/metrics.txt ;;
esac""",
    )


def _job(job: str, box: Path, programs: Path, *options: str) -> Ran:
    state = ["--state-dir", str(box / "state")] if job == "watchdog" else []
    return run(
        job,
        "--source",
        "cli",
        "--now",
        "1800000000",
        "--metrics-path",
        str(box / "a.prom"),
        *state,
        *options,
        programs=programs,
    )


@pytest.mark.parametrize("job", ASKED)
def test_the_program_is_called_as_documented_and_its_standard_error_stays_out_of_the_answer(
    box: Path, programs: Path, job: str
) -> None:
    _answering(box, programs)
    ran = _job(job, box, programs)
    assert (ran.status, ran.stderr) == (0, "")
    assert calls(programs, "tailscale") == [ASKED[job]]
    text = (box / "a.prom").read_text()
    assert series(text)
    if job == "native-metrics":
        assert text.startswith(METRICS + "# HELP tailscale_native_metrics_up")


@pytest.mark.parametrize("job", ASKED)
def test_a_socket_that_was_given_goes_before_the_subcommand(
    box: Path, programs: Path, job: str
) -> None:
    _answering(box, programs)
    assert _job(job, box, programs, "--socket", "/run/other.sock").status == 0
    assert calls(programs, "tailscale") == [f"--socket=/run/other.sock {ASKED[job]}"]


def test_the_program_can_be_given_by_its_path(box: Path, programs: Path) -> None:
    _answering(box, programs).rename(programs / "other")
    assert _job("exporter", box, programs, "--tailscale", str(programs / "other")).status == 0
    assert calls(programs, "tailscale") == ["status --json"]


@pytest.mark.parametrize("job", ASKED)
@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        pytest.param(
            "echo 'bad flag:' >&2; echo '  -x' >&2; exit 2",
            1,
            "exit status 2: bad flag: -x; run the command by hand for details",
            id="complains",
        ),
        pytest.param(
            "echo 'said on stdout'; exit 1",
            1,
            "exit status 1: said on stdout; run the command",
            id="complains on standard output",
        ),
        pytest.param("exit 3", 1, "exit status 3; run the command", id="says nothing"),
        pytest.param(
            "printf '\\033[31m\\377\\nred' >&2; exit 1",
            1,
            "exit status 1: \ufffd[31m\ufffd red; run",
            id="escape sequences and bytes that are no text",
        ),
        pytest.param("kill -SEGV $$", 1, "ended by SIGSEGV; run the command", id="crashes"),
        pytest.param(
            "echo 'failed to connect to local tailscaled; is it running?' >&2; exit 1",
            0,
            "exit status 1: failed to connect to local tailscaled; is it running?; is tailscaled running?",
            id="finds the daemon down",
        ),
        pytest.param(
            "echo 'Failed to connect to local Tailscale daemon for /localapi/v0/usermetrics; not running?' >&2; exit 1",
            0,
            "exit status 1: Failed to connect to local Tailscale daemon for /localapi/v0/usermetrics; not running?; is tailscaled running?",
            id="finds the daemon down, in the words of metrics print",
        ),
    ],
)
def test_a_program_that_fails_is_one_line_with_its_words(
    programs: Path, job: str, body: str, status: int, says: str
) -> None:
    program(programs, "tailscale", body)
    ran = _job(job, programs.parent, programs)
    (complaint,) = complaints(job, ran)
    assert complaint.startswith(f"running `{programs}/tailscale {ASKED[job]}`: {says}")
    assert ran.status == status


HANGS = {
    "waits for a grandchild": "sleep 300 & echo $! >> {pids}; echo $$ >> {pids}; wait",
    "ends and leaves a grandchild that holds its output": "sleep 300 & echo $! >> {pids}; echo $$ >> {pids}",
    "does not heed SIGTERM": "trap '' TERM; echo $$ >> {pids}; while :; do sleep 0.05; done",
}


@pytest.mark.parametrize("hangs", HANGS)
@pytest.mark.parametrize("job", ["exporter", "native-metrics"])
def test_a_program_that_hangs_is_ended_in_time_with_all_that_it_started(
    box: Path, programs: Path, job: str, hangs: str
) -> None:
    with noted_processes(box) as noted:
        program(programs, "tailscale", HANGS[hangs].format(pids=noted))
        ran = _job(job, box, programs, "--timeout", "0.5")
        (complaint,) = complaints(job, ran)
        assert f"tailscale {ASKED[job]}`: timed out after 0.5 s; does tailscaled hang?" in complaint
        assert ran.status == 0
        wait_until(lambda: have_ended(noted), "all of them have ended")


def test_a_program_that_prints_without_end_is_ended(
    box: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The limit is lowered here."""
    monkeypatch.setattr(programs_run, "OUTPUT_LIMIT", 2**20)
    with noted_processes(box) as noted:
        fake = program(
            programs,
            "tailscale",
            f"echo $$ >> {noted}; while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
        )
        status = inside(
            "exporter",
            "--source",
            "cli",
            "--tailscale",
            str(fake),
            "--metrics-path",
            str(box / "a.prom"),
        )
        said = capfd.readouterr()
        (complaint,) = complaints("exporter", Ran(status, said.out, said.err))
        assert "it printed more than 1 MiB" in complaint
        assert status == 1
        assert have_ended(noted)


@pytest.mark.parametrize("job", ASKED)
def test_a_program_that_is_not_there_is_one_line(box: Path, programs: Path, job: str) -> None:
    ran = _job(job, box, programs)
    assert complaints(job, ran) == [
        f"running `tailscale {ASKED[job]}`: No such file or directory; install Tailscale, or set --tailscale to the path of the program"
    ]
    assert ran.status == 1


def test_a_program_that_is_not_executable_is_one_line(box: Path, programs: Path) -> None:
    fake = _answering(box, programs)
    fake.chmod(0o644)
    ran = _job("exporter", box, programs, "--tailscale", str(fake))
    (complaint,) = complaints("exporter", ran)
    assert "Permission denied; install Tailscale, or set --tailscale" in complaint
    assert ran.status == 1


def test_a_program_that_is_no_program_is_one_line(box: Path, programs: Path) -> None:
    fake = programs / "tailscale"
    fake.write_bytes(b"\x7fELF nothing of the kind")
    fake.chmod(0o755)
    (complaint,) = complaints("exporter", _job("exporter", box, programs))
    assert "Exec format error" in complaint


def test_auto_asks_the_socket_where_somebody_listens(box: Path, programs: Path) -> None:
    _answering(box, programs)
    with serving(box / "s", tailscaled(encoded(peer("over-the-socket")), lambda _: DIRECT_PONG)):
        ran = run("exporter", "--socket", str(box / "s"), "--metrics-path", "-", programs=programs)
    assert 'tailscale_peer_online{peer="over-the-socket"}' in series(ran.stdout)
    assert calls(programs, "tailscale") == []


@pytest.mark.parametrize(
    "left_behind",
    [pytest.param(False, id="no socket"), pytest.param(True, id="a socket left behind")],
)
def test_auto_runs_the_program_where_nobody_listens(
    box: Path, programs: Path, *, left_behind: bool
) -> None:
    _answering(box, programs)
    if left_behind:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(box / "s"))
    ran = run("exporter", "--socket", str(box / "s"), "--metrics-path", "-", programs=programs)
    assert 'tailscale_peer_online{peer="a"}' in series(ran.stdout)
    assert calls(programs, "tailscale") == [f"--socket={box}/s status --json"]


def test_auto_without_either_says_that_the_daemon_is_down(box: Path) -> None:
    ran = run("exporter", "--socket", str(box / "s"), "--metrics-path", str(box / "a.prom"))
    (complaint,) = complaints("exporter", ran)
    assert "is tailscaled running?" in complaint
    assert ran.status == 0


def test_auto_stays_with_a_socket_that_answers_badly(box: Path, programs: Path) -> None:
    """A refusal is tailscaled's word; to ask again another way would hide it."""
    _answering(box, programs)
    with serving(box / "s", lambda _: http(b"no", "403 Forbidden")):
        ran = run(
            "exporter",
            "--socket",
            str(box / "s"),
            "--metrics-path",
            str(box / "a.prom"),
            programs=programs,
        )
    assert ran.status == 1
    assert calls(programs, "tailscale") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_program_and_all_that_it_started(
    box: Path, programs: Path, number: signal.Signals
) -> None:
    with noted_processes(box) as noted:
        program(programs, "tailscale", HANGS["waits for a grandchild"].format(pids=noted))
        with started(
            "exporter",
            "--source",
            "cli",
            "--timeout",
            "60",
            "--metrics-path",
            str(box / "a.prom"),
            programs=programs,
        ) as process:
            wait_until(lambda: len(pids_in(noted)) == 2, "the program waits")
            interrupt(process, number)
            _, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr.decode()) == (
            128 + number,
            f"tsfc: ended by {number.name} before it was done\n",
        )
        wait_until(lambda: have_ended(noted), "all of them have ended")
        assert not (box / "a.prom").exists()
