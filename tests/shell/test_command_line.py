"""The command line: usage errors, help, signals, and closed standard streams."""

from __future__ import annotations

import re
import signal
from importlib.metadata import version
from pathlib import Path

import pytest

from support.processes import complaints, ended, inside, interrupt, run, series, started, wait_until
from support.servers import serving
from support.statuses import encoded, peer
from tsfc.cli import main as cli
from tsfc.core.watchdog.policy import ThresholdPolicy

COMMANDS = ["exporter", "native-metrics", "keepalive", "watchdog", "stand-in"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param([], "the following arguments are required: COMMAND", id="no arguments"),
        pytest.param(["reboot"], "invalid choice: 'reboot'", id="an unknown command"),
        pytest.param(
            ["exporter", "--what"], "unrecognized arguments: --what", id="an unknown option"
        ),
        pytest.param(
            ["exporter", "--sock", "/s"],
            "unrecognized arguments: --sock /s",
            id="an abbreviated option",
        ),
        pytest.param(["--vers"], "", id="an abbreviated option before the command"),
        pytest.param(["exporter", "here"], "unrecognized arguments: here", id="an extra argument"),
        pytest.param(
            ["exporter", "--socket"],
            "argument --socket: expected one argument",
            id="a missing value",
        ),
        pytest.param(
            ["exporter", "--source", "http"],
            "argument --source: invalid choice: 'http'",
            id="an unknown source",
        ),
        pytest.param(
            ["exporter", "--metrics-file", "f"],
            "unrecognized arguments",
            id="an option of another job",
        ),
        pytest.param(
            ["exporter", "a\nb\n\nc"],
            "unrecognized arguments: a b c",
            id="an argument of several lines",
        ),
        *(
            pytest.param(
                ["exporter", "--timeout", text], "argument --timeout:", id=f"timeout {text}"
            )
            for text in ("nan", "inf", "0", "-1", "1e9", "ten", "")
        ),
        *(
            pytest.param(["exporter", f"--now={text}"], "argument --now:", id=f"now {text}")
            for text in ("nan", "-1", "1e300", "yesterday")
        ),
        *(
            pytest.param(["keepalive", f"--count={text}"], "argument --count:", id=f"count {text}")
            for text in ("0", "-1", "1.5", "٣", "1_0", "9" * 5000, "")
        ),
        *(
            pytest.param(
                ["keepalive", f"--ping-timeout={text}"],
                "argument --ping-timeout:",
                id=f"ping timeout {text}",
            )
            for text in ("0", "nan", "x")
        ),
        *(
            pytest.param(
                ["watchdog", f"--max-relay-seconds={text}"],
                "argument --max-relay-seconds:",
                id=f"seconds {text}",
            )
            for text in ("-1", "1e3", "²")
        ),
        *(
            pytest.param(
                ["watchdog", f"--cooldown-seconds={text}"],
                "argument --cooldown-seconds:",
                id=f"cooldown {text}",
            )
            for text in ("-1", "10000000000")
        ),
        *(
            pytest.param(["watchdog", f"--unit={text}"], "argument --unit:", id=f"unit {text!r}")
            for text in ("", "-rf", "a b", "a\n", "a;b", "../a")
        ),
        pytest.param(
            ["stand-in"],
            "the following arguments are required: --socket",
            id="stand-in without a socket",
        ),
        pytest.param(
            ["stand-in", "--socket=s"],
            "one of the arguments --capture --scenario is required",
            id="stand-in without input",
        ),
        *(
            pytest.param(
                ["stand-in", "--capture=c", "--socket=s", f"--speed={text}"],
                "argument --speed:",
                id=f"speed {text}",
            )
            for text in ("0", "-1", "nan", "inf")
        ),
    ],
)
def test_a_usage_error_is_one_line_and_exit_status_2(
    capfd: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    status = inside(*arguments)
    out, err = capfd.readouterr()
    assert (status, out) == (2, "")
    assert re.fullmatch(r"tsfc(?: [a-z-]+)?: .*; see `tsfc(?: [a-z-]+)? --help`\n", err)
    assert error in err


def test_a_process_with_a_usage_error_exits_with_2() -> None:
    assert run("exporter", "--socket") == (
        2,
        "",
        "tsfc exporter: argument --socket: expected one argument; see `tsfc exporter --help`\n",
    )


@pytest.mark.parametrize("number", ["0", "1000000000"])
def test_numbers_at_their_limits_are_accepted(
    capfd: pytest.CaptureFixture[str], box: Path, number: str
) -> None:
    (box / "status.json").write_bytes(encoded(peer("a", "derp")))
    options = (
        "--dry-run",
        "--status-file",
        str(box / "status.json"),
        "--state-dir",
        str(box / "state"),
        "--now",
        "0",
    )
    assert (
        inside("watchdog", *options, "--max-relay-seconds", number, "--cooldown-seconds", number)
        == 0
    )
    assert capfd.readouterr().out == "DETECTED: a transitioned to relay\n"


def test_the_version_is_the_installed_one() -> None:
    assert run("--version") == (0, f"tsfc {version('tsfc')}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_its_defaults(
    capfd: pytest.CaptureFixture[str], command: str
) -> None:
    assert inside(command, "--help") == 0
    out, err = capfd.readouterr()
    assert (out.startswith(f"usage: tsfc {command} "), err) == (True, "")
    assert "%(" not in out


def test_the_watchdog_s_defaults_are_the_documented_policy() -> None:
    """The command line repeats them, so that `--help` does not load the core."""
    options = cli._parse(["watchdog"])
    assert (
        ThresholdPolicy(
            options.max_relay_seconds, options.cooldown_seconds, frozenset(options.exclude_peer)
        )
        == ThresholdPolicy()
    )


def test_the_help_lists_all_commands(capfd: pytest.CaptureFixture[str]) -> None:
    assert inside("--help") == 0
    out = capfd.readouterr().out
    assert [command for command in COMMANDS if f"\n    {command}" not in out] == []


@pytest.mark.parametrize("arguments", [["--help"], ["watchdog", "--help"], ["--version"]])
@pytest.mark.parametrize(("streams", "status"), [("> /dev/full", 1), (">&-", 0), (">&- 2>&-", 0)])
def test_help_without_a_usable_stream_causes_no_traceback(
    arguments: list[str], streams: str, status: int
) -> None:
    assert run(*arguments, around=f'exec "$@" {streams}') == (status, "", "")


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2> /dev/full"])
def test_a_usage_error_without_a_usable_stream_has_an_exit_status(streams: str) -> None:
    ran = run("exporter", "--what", around=f'exec "$@" {streams}')
    assert (ran.status in {1, 2}, ran.stdout, ran.stderr) == (True, "", "")


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_job_with_closed_standard_streams_keeps_its_output_out_of_its_files(
    box: Path, streams: str
) -> None:
    """No file that it opens takes the place of standard output."""
    (box / "status.json").write_bytes(encoded(peer("a", "derp")))
    options = (
        "--status-file",
        str(box / "status.json"),
        "--state-dir",
        str(box / "state"),
        "--metrics-path",
        str(box / "a.prom"),
    )
    ran = run("watchdog", *options, around=f'exec "$@" {streams}')
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout == ("" if ">&-" in streams.split() else "DETECTED: a transitioned to relay\n")
    assert series((box / "a.prom").read_text())["tailscale_watchdog_relay_detections_total"] == 1
    assert (box / "state" / ".lock").read_bytes() == b""


def test_a_closed_standard_input_is_a_one_line_error(box: Path) -> None:
    ran = run(
        "exporter",
        "--status-file",
        "-",
        "--metrics-path",
        str(box / "a.prom"),
        around='exec "$@" <&-',
    )
    assert (ran.status, len(complaints("exporter", ran))) == (1, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("job", ["exporter", "watchdog"])
def test_a_signal_ends_a_hanging_job_in_one_line(
    box: Path, job: str, number: signal.Signals
) -> None:
    with serving(box / "s", lambda _: None) as server:
        state = ["--state-dir", str(box / "state")] if job == "watchdog" else []
        options = (
            "--socket",
            str(box / "s"),
            "--source",
            "localapi",
            "--timeout",
            "60",
            "--metrics-path",
            str(box / "a.prom"),
        )
        with started(job, *options, *state) as process:
            wait_until(lambda: server.requests, "it waits for a response")
            interrupt(process, number)
            assert ended(process) == (
                128 + number,
                "",
                f"tsfc: ended by {number.name} before it was done\n",
            )
    assert {path.name for path in box.rglob("*")} <= {"s", "state", ".lock"}


def test_an_ignored_signal_stays_ignored(box: Path) -> None:
    """`nohup` starts a program with SIGHUP ignored."""
    with (
        serving(box / "s", lambda _: None) as server,
        started(
            *(
                "exporter",
                "--socket",
                str(box / "s"),
                "--source",
                "localapi",
                "--timeout",
                "0.5",
                "--metrics-path",
                str(box / "a.prom"),
            ),
            around="trap '' HUP; exec \"$@\"",
        ) as process,
    ):
        wait_until(lambda: server.requests, "it waits for a response")
        interrupt(process, signal.SIGHUP)
        ran = ended(process)
    assert (ran.status, len(complaints("exporter", ran))) == (0, 1)
