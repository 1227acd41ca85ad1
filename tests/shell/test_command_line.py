"""The command line: usage errors, help, signals, and closed standard streams."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from argparse import ArgumentTypeError
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from support.processes import (
    ended,
    error_lines,
    inside,
    interrupt,
    run,
    series,
    started,
    wait_until,
)
from support.servers import serving
from support.statuses import encoded, peer
from tsfc.cli import main as cli
from tsfc.cli.common import policy
from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Remedy

SOURCES = Path(__file__).parents[2] / "src"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--"], "the following arguments are required: COMMAND", id="no command"),
        pytest.param(["reboot"], "unknown command 'reboot'; see", id="unknown command"),
        pytest.param(
            ["pers", "--watch"],
            "unknown command 'pers' (did you mean peers?);",
            id="similar command",
        ),
        pytest.param(
            ["exporter", "--metric-path=/x", "a"],
            "unrecognized arguments: --metric-path=/x a (did you mean --metrics-path?);",
            id="similar option",
        ),
        pytest.param(["exporter", "--what"], "unrecognized arguments: --what", id="unknown option"),
        pytest.param(
            ["exporter", "--sock", "/s"],
            "unrecognized arguments: --sock /s",
            id="abbreviated option",
        ),
        pytest.param(
            ["--vers"],
            "unrecognized arguments: --vers (did you mean --version?);",
            id="abbreviated option of the program",
        ),
        pytest.param(
            ["units", "--install", "--watchdog-polcy", "guarded"],
            "unrecognized arguments: --watchdog-polcy (did you mean --watchdog-policy?);",
            id="unknown option whose value is no job",
        ),
        pytest.param(
            ["explain", "--fromat=json"],
            "unrecognized arguments: --fromat (did you mean --format?);",
            id="unknown option and a missing argument",
        ),
        pytest.param(
            ["peers", "--watch", "--status-file", "-"],
            "set --status-file to a file",
            id="watched standard input",
        ),
        pytest.param(
            ["explain", "--", "--nas", "--all"],
            "unrecognized arguments: --all",
            id="names after --",
        ),
        pytest.param(
            ["keepalive", "--count", "--metrics-path=-"],
            "argument --count: expected one argument",
            id="known options only",
        ),
        pytest.param(["exporter", "here"], "unrecognized arguments: here", id="extra argument"),
        pytest.param(
            ["exporter", "--socket"], "argument --socket: expected one argument", id="missing value"
        ),
        pytest.param(
            ["exporter", "--source", "http"],
            "argument --source: invalid choice: 'http'",
            id="unknown source",
        ),
        pytest.param(
            ["exporter", "--metrics-file", "f"],
            "unrecognized arguments",
            id="option of another job",
        ),
        pytest.param(
            ["exporter", "a\nb\n\nc"],
            "unrecognized arguments: a b c",
            id="argument with newlines",
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
        *(
            pytest.param(
                [command, option], f"{option.split('=')[0]} needs --policy guarded", id=id_
            )
            for command, option, id_ in (
                ("watchdog", "--budget=6", "budget"),
                ("watchdog", "--remedies=restart", "remedies"),
                ("watchdog", "--pause=/a", "pause"),
                ("simulate", "--budget=6", "budget of a simulation"),
            )
        ),
        *(
            pytest.param(["watchdog", f"--remedies={text}"], "argument --remedies:", id=f"r {text}")
            for text in ("", "rebind", "restart,restart", "restart,")
        ),
        *(
            pytest.param(["keepalive", *options], says, id=f"label {' '.join(options)!r}")
            for options, says in (
                (["--label=a"], "argument --label: 'a' is not a label NAME=VALUE such as "),
                (["--label=a-b=c"], "the name must be letters, digits and _"),
                (["--label=__a=b"], "Prometheus reserves names that begin with __"),
                (["--label=peer=a"], "series of the jobs have a label peer already"),
                (["--label=instance=a"], "Prometheus or the alert rules set the label instance"),
                (["--label=a="], "the value is empty, which means no label"),
                (["--label=a=b", "--label=a=b"], "argument --label: 'a' is given twice"),
            )
        ),
        pytest.param(
            ["stand-in"],
            "the following arguments are required: --socket",
            id="stand-in without a socket",
        ),
        pytest.param(
            ["stand-in", "--socket=s"],
            "one of the arguments --capture --scenario is required",
            id="stand-in without content",
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
    capfd: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    status = inside(*arguments)
    out, err = capfd.readouterr()
    assert (status, out) == (2, "")
    assert re.fullmatch(r"tsfc(?: [a-z-]+)?: .*; see `tsfc(?: [a-z-]+)? --help`\n", err)
    assert says in err


HOSTILE = "a\nb\x1b[31mc\u202ed\u2028e\udcfff\u3164g"
"A newline, an escape sequence, a direction mark, no UTF-8, and a letter that is blank."


@pytest.mark.parametrize(
    "arguments",
    [
        [HOSTILE],
        [f"--{HOSTILE}"],
        *(
            [command, *rest]
            for command in cli.COMMANDS
            for rest in ([f"--{HOSTILE}"], [f"--{HOSTILE}={HOSTILE}"], ["--", HOSTILE, HOSTILE])
            if (command, rest[0]) != ("report-bug", "--")  # peers, which may be unknown
        ),
        ["exporter", f"--source={HOSTILE}"],
        ["exporter", f"--timeout={HOSTILE}"],
        ["exporter", f"--now={HOSTILE}"],
        ["exporter", f"--label={HOSTILE}"],
        ["exporter", f"--label=a={HOSTILE}"],
        ["exporter", f"--metrics-path={HOSTILE}/x.prom"],
        ["exporter", f"--status-file={HOSTILE}"],
        ["exporter", f"--socket={HOSTILE}", "--source=localapi"],
        ["exporter", f"--tailscale={HOSTILE}", "--source=cli"],
        ["native-metrics", f"--metrics-file={HOSTILE}"],
        ["watchdog", f"--unit={HOSTILE}"],
        ["watchdog", f"--max-relay-seconds={HOSTILE}"],
        ["keepalive", f"--count={HOSTILE}"],
        ["units", "--print", f"--socket={HOSTILE}"],
        ["units", "--print", f"--exporter-metrics-path={HOSTILE}"],
        ["simulate", HOSTILE],
        ["simulate", f"{HOSTILE}.toml"],
        ["replay", HOSTILE],
        ["stand-in", f"--socket={HOSTILE}"],
    ],
    ids=ascii,
)
def test_an_error_that_quotes_the_command_line_is_printable(
    capfd: pytest.CaptureFixture[str],
    box: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(box)
    inside(*arguments)
    _, err = capfd.readouterr()
    assert err.removesuffix("\n") != err
    assert all(line.isprintable() and "\u3164" not in line for line in err[:-1].split("\n")), err
    assert all(line.startswith("tsfc") for line in err[:-1].split("\n")), err


def test_an_unknown_peer_of_a_report_is_printable(
    capfd: pytest.CaptureFixture[str], box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(box)
    assert inside("report-bug", "--", HOSTILE) == 0
    out, _ = capfd.readouterr()
    assert "No peer has the name " in out
    assert all(line.isprintable() and "\u3164" not in line for line in out[:-1].split("\n"))


def test_a_long_argument_is_cut_in_a_usage_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert inside("exporter", "x" * 100_000) == 2
    assert len(capfd.readouterr().err) < 1200


def test_each_command_is_defined_in_its_module_only() -> None:
    modules = {name: import_module(f"tsfc.cli.{name}") for name in cli.COMMANDS.values()}
    defined = [(command, name) for name in modules for command in modules[name].COMMANDS]
    assert sorted(defined) == sorted(cli.COMMANDS.items())


def test_parsing_imports_only_the_module_of_the_command() -> None:
    script = (
        "import sys; from tsfc.cli.main import _parse; _parse(['exporter']); "
        "print(*(name for name in sys.modules if name.startswith('tsfc.')))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert set(output.decode().split()) == {
        *("tsfc.cli", "tsfc.cli.main", "tsfc.cli.common", "tsfc.cli.values", "tsfc.cli.jobs"),
        *("tsfc.shell", "tsfc.shell.defaults", "tsfc.shell.signals"),
    }


def test_a_process_reports_a_usage_error_like_main() -> None:
    assert run("exporter", "--socket") == (
        2,
        "",
        "tsfc exporter: argument --socket: expected one argument; see `tsfc exporter --help`\n",
    )


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_time_span_is_written_in_the_same_way(command: str) -> None:
    """Such an option has the metavar SPAN. `--now` and `--days` have units of their own."""
    actions = cli._command_parser(command)._actions
    assert {action.dest for action in actions if action.metavar in ("SECONDS", "TIME")} <= {
        *("now", "since", "until")
    }
    for action in actions:
        if action.metavar == "SPAN":
            assert callable(action.type)
            for text in ("1min 30s", "90", "1.5min"):
                assert action.type(text) in (90, text)
            with pytest.raises(ArgumentTypeError, match=r"30s, 5min, .1h 30min., 2d, or 90"):
                action.type("90 minn")


@pytest.mark.parametrize(("text", "days"), [("2", 2), ("0.5", 0.5), ("12h", 0.5), ("1d 12h", 1.5)])
def test_simulated_days_are_a_number_or_a_time_span(text: str, days: float) -> None:
    assert cli._parse(["simulate", "--days", text, "easy"]).days == days


@pytest.mark.parametrize("number", ["0", "999999999"])
def test_the_smallest_and_the_largest_number_are_accepted(
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


def test_version_prints_the_installed_version() -> None:
    assert run("--version") == (0, f"tsfc {version('tsfc')}\n", "")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_help_of_every_command_shows_its_defaults(
    capfd: pytest.CaptureFixture[str], command: str
) -> None:
    assert inside(command, "--help") == 0
    out, err = capfd.readouterr()
    assert (out.startswith(f"usage: tsfc {command} "), err) == (True, "")
    assert "%(" not in out


def test_the_policy_options_default_to_the_default_policy() -> None:
    """The command line repeats the defaults: `--help` need not import the core."""
    assert policy(cli._parse(["watchdog"])) == ThresholdPolicy()
    assert policy(cli._parse(["watchdog", "--policy=guarded"])) == GuardedPolicy()


def test_the_guarded_policy_has_these_options() -> None:
    options = ["--policy=guarded", "--budget=0", "--remedies=restart,other-port", "--pause=/a"]
    assert policy(cli._parse(["watchdog", *options])) == GuardedPolicy(
        budget=0, remedies=(Remedy.RESTART, Remedy.OTHER_PORT), pause_file="/a"
    )


def test_a_comparison_of_policies_may_have_options_of_one() -> None:
    options = ["replay", "f", "--budget=2", "--compare=policy=documented,guarded"]
    assert policy(cli._parse(options)) == ThresholdPolicy()


def test_without_a_command_the_help_is_printed_as_an_error() -> None:
    """A script whose variable is empty must not count it as a success."""
    assert run() == (2, "", run("--help").stdout)


def test_the_help_of_the_program_lists_all_commands(capfd: pytest.CaptureFixture[str]) -> None:
    assert inside("--help") == 0
    out = capfd.readouterr().out
    assert [command for command in cli.COMMANDS if f"\n    {command}" not in out] == []


@pytest.mark.parametrize("command", [None, *cli.COMMANDS])
def test_the_help_ends_with_two_examples_and_an_existing_page(
    capfd: pytest.CaptureFixture[str], command: str | None
) -> None:
    inside(*([command] if command else []), "--help")
    end = re.search(
        r"\nexamples:\n(  tsfc \S.*\n      \S.*\n){2}\nmore: (/.*\.md)\n$", capfd.readouterr().out
    )
    assert end
    assert Path(end[2]).is_file()


EXAMPLES = [example for command in cli.COMMANDS for example in cli.find_command(command).examples]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_parser_accepts_each_example_of_the_help(example: str) -> None:
    arguments = shlex.split(example)[1:]
    options = cli._parse(arguments)
    assert options.run is cli.find_command(arguments[0]).run
    if "policy" in options:
        policy(options)


@pytest.mark.parametrize(
    "example",
    [
        example
        for example in EXAMPLES
        if re.match("tsfc (replay|simulate|mixin|doctor --status-file)", example)
    ],
)
def test_the_examples_that_need_no_node_run(example: str, box: Path) -> None:
    status = box / "status.json"
    status.write_bytes(encoded(peer("a", "derp")))
    run("capture", "--status-file", str(status), "--output", str(box / "week.ndjson.zst"))
    ran = run(*shlex.split(example)[1:], around=f'cd {box}; exec "$@"')
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout


def test_without_an_installed_page_the_help_names_that_of_the_source(box: Path) -> None:
    """Files around a zip file with the program belong to somebody else."""
    shutil.make_archive(str(box / "tsfc"), "zip", SOURCES)
    (box / "docs").mkdir()
    (box / "docs/README.md").touch()
    script = "from tsfc.cli.main import main; main(['--help'])"
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(box / "tsfc.zip")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.endswith("\nmore: docs/README.md in tsfc's source\n")


@pytest.mark.parametrize("arguments", [["--help"], ["watchdog", "--help"], ["--version"]])
@pytest.mark.parametrize(("streams", "status"), [("> /dev/full", 1), (">&-", 0), (">&- 2>&-", 0)])
def test_help_to_an_unwritable_stream_fails_without_a_traceback(
    arguments: list[str], streams: str, status: int
) -> None:
    assert run(*arguments, around=f'exec "$@" {streams}') == (status, "", "")


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2> /dev/full"])
def test_a_usage_error_to_an_unwritable_stream_still_sets_the_exit_status(streams: str) -> None:
    ran = run("exporter", "--what", around=f'exec "$@" {streams}')
    assert (ran.status in {1, 2}, ran.stdout, ran.stderr) == (True, "", "")


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_job_with_closed_standard_streams_does_not_print_into_its_files(
    box: Path, streams: str
) -> None:
    """No metrics file, lock or socket becomes descriptor 0, 1 or 2."""
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


def test_reading_the_status_from_a_closed_standard_input_is_one_error(box: Path) -> None:
    ran = run(
        "exporter",
        "--status-file",
        "-",
        "--metrics-path",
        str(box / "a.prom"),
        around='exec "$@" <&-',
    )
    assert (ran.status, len(error_lines("exporter", ran))) == (1, 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("job", ["exporter", "watchdog"])
def test_a_signal_ends_a_hanging_job_with_one_line(
    box: Path, job: str, number: signal.Signals
) -> None:
    with serving(box / "s", lambda _: None) as server:
        state = (
            ["--state-dir", str(box / "state"), "--unit=tailscaled.service"]
            if job == "watchdog"
            else []
        )
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
            wait_until(lambda: server.requests, "the job waits for a response")
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
        wait_until(lambda: server.requests, "the job waits for a response")
        interrupt(process, signal.SIGHUP)
        ran = ended(process)
    assert (ran.status, len(error_lines("exporter", ran))) == (0, 1)


OTHER_SOCKET = (
    "--socket {} may be that of another tailscaled than tailscaled.service, which the watchdog "
    "would restart; give --unit"
)


@pytest.mark.parametrize("more", [[], ["--source=cli"], ["--restart-socket=/run/a"]])
def test_the_watchdog_of_another_socket_needs_the_unit_to_restart(
    box: Path, more: list[str]
) -> None:
    """The peers of one tailscaled must not cause restarts of another one."""
    ran = run("watchdog", f"--socket={box}/s", f"--state-dir={box}/state", *more)
    assert error_lines("watchdog", ran) == [OTHER_SOCKET.format(f"{box}/s")]
    assert (ran.status, ran.stdout, list(box.iterdir())) == (2, "", [])


@pytest.mark.parametrize(
    "options",
    [
        ["--socket={box}/s", "--dry-run"],
        ["--socket={box}/s", "--unit=tailscaled.service"],
        ["--socket=/run/tailscale/tailscaled.sock"],
        ["--socket=/var/run/tailscale/tailscaled.sock"],
        [],
    ],
)
def test_a_dry_run_and_the_default_socket_need_no_unit(box: Path, options: list[str]) -> None:
    (box / "status.json").write_bytes(encoded())
    ran = run(
        "watchdog",
        *(option.format(box=box) for option in options),
        *("--status-file", str(box / "status.json"), "--state-dir", str(box / "state")),
        *("--metrics-path", str(box / "a.prom")),
    )
    assert ran.status == 0
