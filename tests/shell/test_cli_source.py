"""`--source cli`: the CLI is called as documented, and no process is left behind."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from support.processes import (
    Completed,
    error_lines,
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
from tsfc.shell import program as shell_program

STATUS = encoded(peer("a"), peer("b", "derp"))
METRICS = "# TYPE tailscaled_approved_routes gauge\ntailscaled_approved_routes 0\n"
SUBCOMMANDS = {
    "exporter": "status --json",
    "native-metrics": "metrics print",
    "watchdog": "status --json",
}


def _working_cli(box: Path, programs: Path) -> Path:
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


def _job(job: str, box: Path, programs: Path, *options: str) -> Completed:
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


@pytest.mark.parametrize("job", SUBCOMMANDS)
def test_the_cli_is_called_as_documented_and_its_standard_error_is_ignored(
    box: Path, programs: Path, job: str
) -> None:
    _working_cli(box, programs)
    ran = _job(job, box, programs)
    assert (ran.status, ran.stderr) == (0, "")
    assert calls(programs, "tailscale") == [SUBCOMMANDS[job]]
    text = (box / "a.prom").read_text()
    assert series(text)
    if job == "native-metrics":
        assert text.startswith(METRICS + "# HELP tailscale_native_metrics_up")


@pytest.mark.parametrize("job", SUBCOMMANDS)
def test_an_explicit_socket_is_passed_before_the_subcommand(
    box: Path, programs: Path, job: str
) -> None:
    _working_cli(box, programs)
    assert _job(job, box, programs, "--socket", "/run/other.sock").status == 0
    assert calls(programs, "tailscale") == [f"--socket=/run/other.sock {SUBCOMMANDS[job]}"]


def test_the_cli_can_be_set_by_its_path(box: Path, programs: Path) -> None:
    _working_cli(box, programs).rename(programs / "other")
    assert _job("exporter", box, programs, "--tailscale", str(programs / "other")).status == 0
    assert calls(programs, "tailscale") == ["status --json"]


@pytest.mark.parametrize("job", SUBCOMMANDS)
@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        pytest.param(
            "echo 'bad flag:' >&2; echo '  -x' >&2; exit 2",
            1,
            "exit status 2: bad flag: -x; run the command by hand for details",
            id="standard error",
        ),
        pytest.param(
            "echo 'said on stdout'; exit 1",
            1,
            "exit status 1: said on stdout; run the command",
            id="standard output",
        ),
        pytest.param("exit 3", 1, "exit status 3; run the command", id="no output"),
        pytest.param(
            "printf '\\033[31m\\377\\nred' >&2; exit 1",
            1,
            "exit status 1: \ufffd[31m\ufffd red; run",
            id="escape sequences and invalid UTF-8",
        ),
        pytest.param("kill -SEGV $$", 1, "ended by SIGSEGV; run the command", id="crashes"),
        pytest.param(
            "echo 'failed to connect to local tailscaled; is it running?' >&2; exit 1",
            0,
            "exit status 1: failed to connect to local tailscaled; is it running?; "
            "is tailscaled running?",
            id="daemon down",
        ),
        pytest.param(
            "echo 'Failed to connect to local Tailscale daemon for "
            "/localapi/v0/usermetrics; not running?' >&2; exit 1",
            0,
            "exit status 1: Failed to connect to local Tailscale daemon for "
            "/localapi/v0/usermetrics; not running?; is tailscaled running?",
            id="daemon down, wording of metrics print",
        ),
    ],
)
def test_a_failing_cli_is_a_one_line_error_with_its_output(
    programs: Path, job: str, body: str, status: int, error: str
) -> None:
    program(programs, "tailscale", body)
    ran = _job(job, programs.parent, programs)
    (line,) = error_lines(job, ran)
    assert line.startswith(f"running `{programs}/tailscale {SUBCOMMANDS[job]}`: {error}")
    assert ran.status == status


NOT_CONNECTED = (
    "failed to connect to local tailscaled (which appears to be running as tailscaled, pid 12). "
    "Got error: "
)
DIALED = "Failed to connect to local Tailscale daemon for /localapi/v0/x; not running? Error: "


@pytest.mark.parametrize("job", [*SUBCOMMANDS, "keepalive"])
@pytest.mark.parametrize(
    "cause",
    [
        f"{NOT_CONNECTED}{DIALED}dial unix /run/x.sock: connect: permission denied",
        f"{DIALED}dial unix /run/x.sock: connect: operation not permitted",
        f"{NOT_CONNECTED}Access denied: status access denied",
        "Access denied: usermetrics access denied",
    ],
    ids=["socket", "kernel", "status", "metrics"],
)
def test_a_user_without_access_is_an_error_and_not_a_stopped_daemon(
    programs: Path, job: str, cause: str
) -> None:
    """The CLI says "failed to connect" in both cases."""
    program(programs, "tailscale", f"echo '{cause}' >&2; exit 1")
    ran = _job(job, programs.parent, programs)
    (line,) = error_lines(job, ran)
    assert line.endswith("; run as a user with access to tailscaled's socket, or set --socket")
    assert "denied" in line or "not permitted" in line
    assert "is tailscaled running?" not in line
    assert ran.status == 1


HANGING_CLIS = {
    "waits for a child": "sleep 300 & echo $! >> {pids}; echo $$ >> {pids}; wait",
    "exits, but a child holds its output": "sleep 300 & echo $! >> {pids}; echo $$ >> {pids}",
    "ignores SIGTERM": "trap '' TERM; echo $$ >> {pids}; while :; do sleep 0.05; done",
}


@pytest.mark.parametrize("kind", HANGING_CLIS)
@pytest.mark.parametrize("job", ["exporter", "native-metrics"])
def test_a_hanging_cli_is_terminated_with_its_descendants(
    box: Path, programs: Path, job: str, kind: str
) -> None:
    with noted_processes(box) as pid_file:
        program(programs, "tailscale", HANGING_CLIS[kind].format(pids=pid_file))
        ran = _job(job, box, programs, "--timeout", "0.5")
        (line,) = error_lines(job, ran)
        assert (
            f"tailscale {SUBCOMMANDS[job]}`: timed out after 0.5 s; does tailscaled hang?" in line
        )
        assert ran.status == 0
        wait_until(lambda: have_ended(pid_file), "all processes have ended")


def test_a_cli_with_endless_output_is_terminated(
    box: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The limit is lowered."""
    monkeypatch.setattr(shell_program, "OUTPUT_LIMIT", 2**20)
    with noted_processes(box) as pid_file:
        fake = program(
            programs,
            "tailscale",
            f"echo $$ >> {pid_file}; while :; do echo {'x' * 66}; done",
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
        out, err = capfd.readouterr()
        (line,) = error_lines("exporter", Completed(status, out, err))
        assert "it printed more than 1 MiB" in line
        assert status == 1
        assert have_ended(pid_file)


@pytest.mark.parametrize("job", SUBCOMMANDS)
def test_a_missing_cli_is_a_one_line_error(box: Path, programs: Path, job: str) -> None:
    ran = _job(job, box, programs)
    assert error_lines(job, ran) == [
        (
            f"running `tailscale {SUBCOMMANDS[job]}`: No such file or directory; "
            "install Tailscale, or set --tailscale to the path of the program"
        )
    ]
    assert ran.status == 1


def test_a_cli_that_is_not_executable_is_a_one_line_error(box: Path, programs: Path) -> None:
    fake = _working_cli(box, programs)
    fake.chmod(0o644)
    ran = _job("exporter", box, programs, "--tailscale", str(fake))
    (line,) = error_lines("exporter", ran)
    assert "Permission denied; install Tailscale, or set --tailscale" in line
    assert ran.status == 1


def test_a_cli_in_a_wrong_format_is_a_one_line_error(box: Path, programs: Path) -> None:
    fake = programs / "tailscale"
    fake.write_bytes(b"\x7fELF but not really")
    fake.chmod(0o755)
    (line,) = error_lines("exporter", _job("exporter", box, programs))
    assert "Exec format error" in line


def test_auto_uses_the_socket_if_it_is_reachable(box: Path, programs: Path) -> None:
    _working_cli(box, programs)
    with serving(box / "s", tailscaled(encoded(peer("over-the-socket")), lambda _: DIRECT_PONG)):
        ran = run("exporter", "--socket", str(box / "s"), "--metrics-path", "-", programs=programs)
    assert 'tailscale_peer_online{peer="over-the-socket"}' in series(ran.stdout)
    assert calls(programs, "tailscale") == []


@pytest.mark.parametrize(
    "stale_socket",
    [pytest.param(False, id="no socket"), pytest.param(True, id="a stale socket")],
)
def test_auto_runs_the_cli_if_the_socket_is_unreachable(
    box: Path, programs: Path, *, stale_socket: bool
) -> None:
    _working_cli(box, programs)
    if stale_socket:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(box / "s"))
    ran = run("exporter", "--socket", str(box / "s"), "--metrics-path", "-", programs=programs)
    assert 'tailscale_peer_online{peer="a"}' in series(ran.stdout)
    assert calls(programs, "tailscale") == [f"--socket={box}/s status --json"]


def test_auto_without_either_reports_the_daemon_as_down(box: Path) -> None:
    ran = run("exporter", "--socket", str(box / "s"), "--metrics-path", str(box / "a.prom"))
    (line,) = error_lines("exporter", ran)
    assert "is tailscaled running?" in line
    assert ran.status == 0


def test_auto_does_not_fall_back_after_an_error_response(box: Path, programs: Path) -> None:
    """A fallback to the CLI would hide tailscaled's error."""
    _working_cli(box, programs)
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
def test_a_signal_terminates_the_cli_and_its_descendants(
    box: Path, programs: Path, number: signal.Signals
) -> None:
    with noted_processes(box) as pid_file:
        program(programs, "tailscale", HANGING_CLIS["waits for a child"].format(pids=pid_file))
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
            wait_until(lambda: len(pids_in(pid_file)) == 2, "the CLI waits")
            interrupt(process, number)
            _, stderr = process.communicate(timeout=30)
        assert (process.returncode, stderr.decode()) == (
            128 + number,
            f"tsfc: ended by {number.name} before it was done\n",
        )
        wait_until(lambda: have_ended(pid_file), "all processes have ended")
        assert not (box / "a.prom").exists()
