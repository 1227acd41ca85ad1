from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure, Success

from support.corpus import FIXTURES
from support.required import program
from tsfc import cli, core
from tsfc.core.units import Installation, Value, checked, choices, clash, installation, read_table
from tsfc.core.watchdog.policy import Documented
from tsfc.shell import defaults

TABLE = read_table((Path(core.__path__[0]) / "units.json").read_bytes())
JOBS = list(TABLE.jobs)
GOLDEN = FIXTURES / "units.txt"
"All units as they are with the defaults."

HOSTILE = [
    "",
    " ",
    "a b",
    "%",
    "%n",
    "$HOME",
    "${HOME}",
    "$$",
    '"',
    "'",
    "\\",
    "\\n",
    "\n",
    "\t",
    "\x1b[31m",
    "é\N{HOT BEVERAGE}",
    "{socket}",
    "{value}",
    "-",
    ";",
]
ESCAPES = {'"': '"', "\\": "\\", "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
"Of systemd.syntax(7), section Quoting: those that JSON uses. `\\uXXXX` is one of both, too."


def values(job: str, **chosen: Value) -> dict[str, Value]:
    """The options of a job: their defaults but for what is chosen."""
    return {choice.name: choice.default for choice in choices(TABLE, job)} | {"package": "/opt/tsfc"} | chosen


def made(job: str, **chosen: Value) -> Installation:
    return installation(TABLE, job, values(job, **chosen))


def service(job: str, **chosen: Value) -> list[str]:
    """The lines of a job's service."""
    return made(job, **chosen).units[f"tailscale-{job}.service"].splitlines()


def argv(unit: str) -> list[str]:
    """What systemd makes of the one ExecStart of a unit, by systemd.syntax(7) and systemd.service(5): quotes, escapes, `%%` and `$$`."""
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    found = re.findall(r'"((?:[^"\\]|\\.)*)"(?: |$)', line)
    assert " ".join(f'"{quoted}"' for quoted in found) == line

    def unescaped(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else ESCAPES[match[2]]

    arguments = [re.sub(r"\\(?:u([0-9a-f]{4})|(.))", unescaped, quoted) for quoted in found]
    for argument in arguments:
        assert re.fullmatch(r"(?:[^%$]|%%|\$\$)*", argument), "a specifier or a variable"
    return [argument.replace("%%", "%").replace("$$", "$") for argument in arguments]


def test_the_units_are_the_golden_ones_to_the_byte() -> None:
    """`make golden` writes them anew: read the diff."""
    text = "".join(f"# {name}\n{unit}\n" for job in JOBS for name, unit in made(job).units.items())
    if os.environ.get("TSFC_WRITE_GOLDEN"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text


def test_the_defaults_are_those_of_the_program() -> None:
    """A unit that names a default does what a run without it does."""
    policy = Documented()
    assert values("exporter")["metricsPath"] == defaults.EXPORTER_PATH
    assert values("native-metrics")["metricsPath"] == defaults.NATIVE_METRICS_PATH
    assert values("keepalive")["metricsPath"] is None
    watchdog = values("watchdog")
    assert (watchdog["metricsPath"], watchdog["unit"]) == (defaults.WATCHDOG_PATH, "tailscaled.service")
    assert (watchdog["maxRelaySeconds"], watchdog["cooldownSeconds"]) == (policy.max_relay_seconds, policy.cooldown_seconds)
    assert str(values("exporter")["socket"]) == defaults.SOCKET.replace("/var/run/", "/run/")
    assert "/var/lib/" + next(line for line in service("watchdog") if line.startswith("StateDirectory=")).partition("=")[2] == defaults.STATE_DIR


def test_every_job_of_the_table_is_a_command_and_every_option_is_used() -> None:
    assert set(JOBS) < set(cli.COMMANDS)
    assert {choice.name for job in JOBS for choice in choices(TABLE, job)} == set(TABLE.options)
    assert {option.type for option in TABLE.options.values()} == set(TABLE.types)


@pytest.mark.parametrize("job", JOBS)
def test_every_default_is_a_value_that_could_be_given(job: str) -> None:
    for choice in choices(TABLE, job):
        if isinstance(choice.default, str | int) and not isinstance(choice.default, bool):
            assert checked(TABLE, choice.name, str(choice.default)) == Success(str(choice.default))


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_bound_to_nothing(job: str) -> None:
    """Tailscaled stops and starts, by the watchdog's own doing: only the order is asked for."""
    assert [line for line in service(job) if "tailscaled.service" in line and not line.startswith("ExecStart=")] == ["After=tailscaled.service"]


CONTRIBUTIONS: dict[tuple[str, str], tuple[Value, list[str]]] = {
    ("exporter", "tailscalePackage"): ("/opt/tailscale", ["--tailscale", "/opt/tailscale/bin/tailscale"]),
    ("exporter", "socket"): ("/srv/ts/s.sock", ["--socket", "/srv/ts/s.sock"]),
    ("exporter", "metricsPath"): ("/srv/m/a.prom", ["--metrics-path", "/srv/m/a.prom"]),
    ("exporter", "extraArgs"): (("--timeout", "3"), ["--timeout", "3"]),
    ("keepalive", "metricsPath"): ("/srv/m/a.prom", ["--metrics-path", "/srv/m/a.prom"]),
    ("watchdog", "maxRelaySeconds"): (30, ["--max-relay-seconds", "30"]),
    ("watchdog", "cooldownSeconds"): (0, ["--cooldown-seconds", "0"]),
    ("watchdog", "excludePeers"): (("nas", "rpi3"), ["--exclude-peer", "nas", "--exclude-peer", "rpi3"]),
    ("watchdog", "dryRun"): (True, ["--dry-run"]),
    ("watchdog", "unit"): ("other.service", ["--unit", "other.service"]),
}


@pytest.mark.parametrize(("job", "name"), CONTRIBUTIONS)
def test_an_option_contributes_its_arguments(job: str, name: str) -> None:
    value, arguments = CONTRIBUTIONS[job, name]
    command = argv(made(job, **{name: value}).units[f"tailscale-{job}.service"])
    assert " ".join(arguments) in " ".join(command)
    assert command[:2] == ["/opt/tsfc/bin/tsfc", job]
    assert argv(made(job, **{name: None}).units[f"tailscale-{job}.service"]) == [word for word in command if word not in arguments]


def test_an_interval_is_the_timers() -> None:
    """From boot to the first run, and from each to the next; short accuracy, or 10 s would not be 10 s."""
    timer = made("keepalive", interval="20s").units["tailscale-keepalive.timer"].splitlines()
    assert {"OnBootSec=20s", "OnUnitActiveSec=20s", "AccuracySec=100ms", "WantedBy=timers.target"} <= set(timer)


def test_a_job_that_writes_has_the_right_to_and_one_that_does_not_has_none() -> None:
    right = {"BindPaths=-/srv/m", "CapabilityBoundingSet=CAP_DAC_OVERRIDE", "AmbientCapabilities=CAP_DAC_OVERRIDE"}
    assert right <= set(service("keepalive", metricsPath="/srv/m/a.prom"))
    assert "CapabilityBoundingSet=" in service("keepalive")
    assert not any(line.startswith(("BindPaths", "AmbientCapabilities", "CapabilityBoundingSet=C")) for line in service("keepalive"))
    assert made("keepalive").tmpfiles == ()
    assert made("keepalive", metricsPath="/srv/m/a.prom").tmpfiles == ("d /srv/m - - - -",)


def test_the_place_of_the_socket_and_what_else_is_to_be_seen_are_shown() -> None:
    lines = service("exporter", socket="/srv/ts/s.sock", visiblePaths=("/root/python", "/home/me/venv"))
    shown = [line.partition("=")[2] for line in lines if line.startswith("BindReadOnlyPaths=")]
    assert shown == ["-/etc/ld.so.cache", "-/srv/ts", "-/root/python", "-/home/me/venv"]


def test_the_helper_restarts_the_unit_that_was_chosen() -> None:
    """And it is the only one that is enabled beside the timer."""
    watchdog = made("watchdog", unit="other.service")
    assert argv(watchdog.units["tailscale-watchdog-restart@.service"]) == ["/bin/sh", "-c", 'systemctl restart "$0" && echo done', "other.service"]
    assert watchdog.wants == {"tailscale-watchdog.timer": "timers.target", "tailscale-watchdog-restart.socket": "sockets.target"}
    assert "SocketMode=0600" in watchdog.units["tailscale-watchdog-restart.socket"].splitlines()
    assert {name for job in JOBS if job != "watchdog" for name in made(job).wants} == {f"tailscale-{job}.timer" for job in JOBS if job != "watchdog"}


@given(st.lists(st.sampled_from(HOSTILE) | st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=4))
def test_what_systemd_makes_of_a_command_line_is_what_was_given(arguments: list[str]) -> None:
    """Whatever is in an argument: it is one, it is itself, and the unit has no line more."""
    unit = made("exporter", extraArgs=tuple(arguments)).units["tailscale-exporter.service"]
    assert argv(unit)[6:] == arguments
    assert [line.partition("=")[0] for line in unit.splitlines()] == [line.partition("=")[0] for line in service("exporter")]


GOOD = {
    "interval": ["30s", "30", "1min 30s", "1min30s", "2h", "1.5h", "10 s", "500ms", "1 week 2 days", "0min 1s"],
    "metricsPath": ["/var/lib/alloy/tailscale.prom", "/srv/a/b-c_d.e+f@g.prom", "/srv/.hidden/a.prom", "/a/b.prom"],
    "socket": ["/run/tailscale/tailscaled.sock", "/var/run/tailscale/tailscaled.sock"],
    "unit": ["tailscaled.service", "tailscaled@work.service"],
    "maxRelaySeconds": ["0", "600", "999999999"],
    "package": ["/opt/tsfc", "/usr", "/home/me/.venv"],
    "excludePeers": HOSTILE,
}
BAD = {
    "interval": [
        "",
        " ",
        "0",
        "0s",
        "0min 0s",
        "s",
        "-1s",
        "1 minn",
        "1z",
        "infinity",
        "30s\n",
        "30s;",
        "1e3",
        "%n",
        "1" * 40,
        "9" * 40 + "z",
        "1s " * 2000 + "!",
    ],
    "metricsPath": [
        *(
            "",
            "a.prom",
            "var/lib/a.prom",
            "/a.prom",
            "/a/b",
            "/a/b.prom\n",
            "/a/b.prom ",
            "/a b/c.prom",
            "/a/%h/b.prom",
            "/a/../b.prom",
            "/a/./b.prom",
            "//a/b.prom",
        ),
        *("/a/b:c.prom", "/a/$HOME/b.prom", '/a/"/b.prom', "/a/b.PROM", "/a/.prom/", "/a\\x20/b.prom", "/" * 3000 + ".prom", "/a" * 3000, "é/b.prom"),
    ],
    "socket": ["", "tailscaled.sock", "/tailscaled.sock", "/a/b ", "/a//b", "/a/../b"],
    "unit": ["", "tailscaled", "a b.service", "-x.service", "../x.service", "x.timer", "x.service\n", "$(reboot).service"],
    "maxRelaySeconds": ["", "-1", "1.5", "1s", "1e3", "1000000000", "0x10", "٣"],
    "package": ["", "opt/tsfc", "/opt/my tsfc", "/opt/../tsfc", "/opt/%n", "/opt/tsfc/"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in GOOD.items() for text in texts])
def test_a_value_that_can_be_is_taken_as_it_is(name: str, text: str) -> None:
    assert checked(TABLE, name, text) == Success(text)


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_a_value_that_cannot_be_is_refused_at_once_with_what_it_has_to_be(name: str, text: str) -> None:
    started = time.process_time()
    refused = checked(TABLE, name, text)
    assert time.process_time() - started < 1
    assert isinstance(refused, Failure)
    assert refused.failure() == f"{text!r} is not {TABLE.types[TABLE.options[name].type].is_}"


@pytest.mark.parametrize("directory", ["/tmp", "/tmp/a", "/var/tmp", "/home/me", "/root", "/run/user/1000", "/dev/shm", "/proc", "/sys/fs"])  # noqa: S108
@pytest.mark.parametrize(("name", "file"), [("metricsPath", "a.prom"), ("socket", "s")])
def test_a_directory_that_the_sandbox_hides_is_refused(directory: str, name: str, file: str) -> None:
    refused = checked(TABLE, name, f"{directory}/{file}")
    assert isinstance(refused, Failure)
    assert ", which the sandbox of the units hides; choose another place" in refused.failure()


@pytest.mark.parametrize("path", ["/homes/a.prom", "/var/lib/tmp/a.prom", "/run/users/a.prom", "/tmpfs/a.prom"])  # noqa: S108
def test_one_that_only_begins_like_it_is_not(path: str) -> None:
    assert checked(TABLE, "metricsPath", path) == Success(path)


@pytest.mark.parametrize("text", GOOD["interval"])
def test_systemd_knows_each_time_span_that_is_taken(text: str) -> None:
    analyze = program("systemd-analyze", "systemd")
    ran = subprocess.run([analyze, "timespan", text], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert int(re.findall(r"μs: (\d+)", ran.stdout)[0]) > 0


def test_two_jobs_may_not_write_one_file() -> None:
    def clashing(**paths: Value) -> str | None:
        chosen: Mapping[str, Mapping[str, Value]] = {job: {"metricsPath": path} for job, path in paths.items()}
        return clash(chosen)

    assert clashing(exporter="/a/b.prom", watchdog="/a/b.prom") == "exporter and watchdog both write /a/b.prom; give each job a file of its own"
    assert clashing(exporter="/a/b.prom", watchdog="/a/c.prom") is None
    assert clashing(exporter=None, keepalive=None) is None


def test_a_table_that_is_no_table_is_a_bug() -> None:
    """It is ours: nobody is told politely."""
    with pytest.raises(msgspec.ValidationError):
        read_table(b'{"types": {}, "unknown": 1}')
