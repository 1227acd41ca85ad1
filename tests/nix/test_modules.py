from __future__ import annotations

import json
import re
import shlex
import subprocess
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from support.exec_line import exec_arguments, joined
from support.processes import run
from tsfc.cli import values as agent_values
from tsfc.units import places, values

ROOT = Path(__file__).parents[2]
DEFAULT_JOBS = ("exporter", "keepalive", "native-metrics", "watchdog")
JOBS = (*DEFAULT_JOBS, "capture")
QUICK_START = " ".join(f"{job}.enable = true;" for job in DEFAULT_JOBS)
NO_SYSTEM = f"--root={Path(__file__).parent}"
"A directory without installed units."
TSFC = "/nix/store/00000000000000000000000000000000-tsfc"

Evaluate = Callable[..., Any]
Units = dict[str, dict[str, list[str]]]
"Sorted lines by unit and section; their order has no meaning to systemd."


@pytest.fixture
def evaluate(nix: Callable[..., subprocess.CompletedProcess[str]]) -> Evaluate:
    """Evaluates the modules with these options, on a host with tailscaled.

    Returns the configuration as JSON, or the error message.
    """

    def config(
        options: str,
        *,
        module: str = "module",
        host: str = "./tests/nix/stub/host.nix",
        has_tailscaled: str = "true",
    ) -> Any:
        everything = (
            f"{{ services.tailscale.enable = {has_tailscaled}; atro.tailscale = {{ {options} }}; }}"
        )
        arguments = (
            "--arg",
            "module",
            f"./nix/{module}.nix",
            "--arg",
            "config",
            everything,
            "--arg",
            "host",
            host,
            "--attr",
            "config",
        )
        ran = nix("--eval", "--strict", "--json", "tests/nix/stub/eval.nix", *arguments)
        return json.loads(ran.stdout) if ran.returncode == 0 else ran.stderr

    return config


def failing(config: Any) -> list[str]:
    """Return the messages of the failed assertions."""
    return [
        assertion["message"] for assertion in config["assertions"] if not assertion["assertion"]
    ]


def _texts(value: object) -> list[str]:
    """Return the values of a directive as a unit has them."""
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return ["yes" if value is True else str(value) for value in values]


def _normalized(line: str) -> str:
    """Return the arguments of a command line, and any other line unchanged.

    Quotes, and the comments and the indentation of a script, have no meaning.
    """
    if not line.startswith("ExecStart="):
        return line
    return f"ExecStart={[_essential(argument) for argument in exec_arguments(line)]}"


def _essential(script: str) -> str:
    of_job = re.match("--([a-z-]+)-args=", script)
    if of_job:
        return f"{of_job[0]}{shlex.split(script.removeprefix(of_job[0]))}"
    lines = [line.strip() for line in script.split("\n")]
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def of_nixos(config: Any) -> Units:
    """Return the units that NixOS would write."""

    def lines(section: dict[str, Any]) -> list[str]:
        return sorted(
            _normalized(f"{name}={text}")
            for name, value in section.items()
            for text in _texts(value)
        )

    units: Units = {}
    for kind in ("service", "timer", "socket"):
        for name, unit in config["systemd"][f"{kind}s"].items():
            parts = {
                "Unit": {
                    "Description": unit["description"] or [],
                    "After": unit.get("after", []),
                    "Before": unit.get("before", []),
                    "Wants": unit.get("wants", []),
                    "PartOf": unit.get("partOf", []),
                }
                | unit.get("unitConfig", {}),
                kind.title(): unit[f"{kind}Config"],
                "Install": {"WantedBy": unit["wantedBy"]},
            }
            units[f"{name}.{kind}"] = {
                section: lines(part) for section, part in parts.items() if lines(part)
            }
    units["tmpfiles"] = {"": sorted(set(config["systemd"]["tmpfiles"]["rules"]))}
    units["groups"] = {"": sorted(f"g {group} - -" for group in config["users"]["groups"])}
    return units


def of_tsfc(*flags: str) -> Units:
    """Return the units that `tsfc units --print` prints."""
    ran = run("units", "--print", NO_SYSTEM, f"--package={TSFC}", *flags)
    assert (ran.status, ran.stderr) == (0, "")
    units: Units = {}
    tmpfiles: set[str] = set()
    groups: set[str] = set()
    for path, text in re.findall(
        r"^# (/\S+)\n(.*?)(?=^# /|\Z)", ran.stdout, re.MULTILINE | re.DOTALL
    ):
        if path.startswith("/etc/tmpfiles.d/"):
            tmpfiles |= set(text.split("\n"))
        elif path.startswith("/etc/sysusers.d/"):
            groups |= set(text.split("\n"))
        else:
            sections = re.findall(
                r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", joined(text), re.MULTILINE | re.DOTALL
            )
            # A drop-in belongs to its unit, as in the modules.
            units[path.partition(".d/")[0].rpartition("/")[2]] = {
                section: sorted(_normalized(line) for line in lines.split("\n") if line)
                for section, lines in sections
            }
    return units | {
        "tmpfiles": {"": sorted(filter(None, tmpfiles))},
        "groups": {"": sorted(filter(None, groups))},
    }


def test_the_options_have_these_defaults(evaluate: Evaluate) -> None:
    """Names, types and defaults are a contract with the configurations of hosts."""
    assert evaluate("")["atro"]["tailscale"] == {
        "package": TSFC,
        "tailscalePackage": None,
        "socket": "/run/tailscale/tailscaled.sock",
        "metricsDir": "/var/lib/alloy",
        "labels": {},
        "visiblePaths": [],
        "agent": {
            "enable": False,
            "metricsPath": "/var/lib/alloy/tailscale-agent.prom",
            "adaptiveKeepalive": False,
            "listen": None,
            "listenAnywhere": False,
            "jobs": {},
        },
        "exporter": {
            "enable": False,
            "interval": "30s",
            "acceptHealth": [],
            "omitUsers": False,
            "metricsPath": "/var/lib/alloy/tailscale-peers.prom",
            "extraArgs": [],
        },
        "native-metrics": {
            "enable": False,
            "interval": "15s",
            "metricsPath": "/var/lib/alloy/tailscale-native.prom",
            "extraArgs": [],
        },
        "keepalive": {
            "enable": False,
            "interval": "10s",
            "excludePeers": [],
            "excludeOs": [],
            "metricsPath": None,
            "extraArgs": [],
        },
        "watchdog": {
            "enable": False,
            "interval": "1min",
            "maxRelaySeconds": 600,
            "cooldownSeconds": 600,
            "excludePeers": [],
            "policy": "documented",
            "budget": 6,
            "remedies": ["restart"],
            "dryRun": False,
            "notifyExec": None,
            "unit": "tailscaled.service",
            "metricsPath": "/var/lib/alloy/tailscale-watchdog.prom",
            "extraArgs": [],
        },
        "capture": {
            "enable": False,
            "interval": "1min",
            "output": "/var/lib/tailscale-capture/status.ndjson.zst",
            "redact": False,
            "extraArgs": [],
        },
    }


def test_no_job_is_enabled_by_default(evaluate: Evaluate) -> None:
    config = evaluate("", has_tailscaled="false")
    assert of_nixos(config) == {"tmpfiles": {"": []}, "groups": {"": []}}
    assert config["assertions"] == []


SETTINGS: dict[str, tuple[str, list[str]]] = {
    "quick start": (QUICK_START, []),
    "exporter": (
        (
            'exporter = { enable = true; interval = "1min 30s"; metricsPath = "/srv/m/a.prom"; '
            'acceptHealth = [ "*accept-routes*" "100% [a-z]?" ]; omitUsers = true; };'
        ),
        [
            "exporter",
            "--exporter-interval=1min 30s",
            "--exporter-metrics-path=/srv/m/a.prom",
            "--exporter-accept-health=*accept-routes*",
            "--exporter-accept-health=100% [a-z]?",
            "--exporter-omit-users",
        ],
    ),
    "keepalive": (
        (
            'keepalive = { enable = true; metricsPath = "/srv/m/k.prom"; '
            'excludePeers = [ "a b" "%n" ]; excludeOs = [ "iOS" "android" ]; '
            'extraArgs = [ "--count" "1" ]; };'
        ),
        [
            "keepalive",
            "--keepalive-exclude-peers=a b",
            "--keepalive-exclude-peers=%n",
            "--keepalive-exclude-os=iOS",
            "--keepalive-exclude-os=android",
            "--keepalive-metrics-path=/srv/m/k.prom",
            "--keepalive-extra-args=--count",
            "--keepalive-extra-args=1",
        ],
    ),
    "watchdog": (
        (
            "watchdog = { enable = true; maxRelaySeconds = 0; cooldownSeconds = 30; "
            'excludePeers = [ "a b" "%n $HOME \\"q\\" \\\\ é" "{socket}" ]; '
            'dryRun = true; unit = "x@y.service"; };'
        ),
        [
            "watchdog",
            "--watchdog-max-relay-seconds=0",
            "--watchdog-cooldown-seconds=30",
            "--watchdog-exclude-peers=a b",
            '--watchdog-exclude-peers=%n $HOME "q" \\ é',
            "--watchdog-exclude-peers={socket}",
            "--watchdog-dry-run",
            "--watchdog-unit=x@y.service",
        ],
    ),
    "guarded": (
        'watchdog = { enable = true; policy = "guarded"; };',
        ["watchdog", "--watchdog-policy=guarded"],
    ),
    "budget": (
        'watchdog = { enable = true; policy = "guarded"; budget = 2; };',
        ["watchdog", "--watchdog-policy=guarded", "--watchdog-budget=2"],
    ),
    "other port": (
        'watchdog = { enable = true; policy = "guarded"; remedies = [ "restart" "other-port" ]; };',
        ["watchdog", "--watchdog-policy=guarded", "--watchdog-remedies=restart,other-port"],
    ),
    "other port of a unit": (
        (
            'watchdog = { enable = true; policy = "guarded"; remedies = [ "other-port" ]; '
            'unit = "b@c.service"; };'
        ),
        [
            *("watchdog", "--watchdog-policy=guarded", "--watchdog-remedies=other-port"),
            "--watchdog-unit=b@c.service",
        ],
    ),
    "capture": (
        (
            'capture = { enable = true; interval = "10s"; output = "/srv/c/c.ndjson"; '
            'redact = true; extraArgs = [ "--redact-key=k" ]; };'
        ),
        [
            "capture",
            "--capture-interval=10s",
            "--capture-output=/srv/c/c.ndjson",
            "--capture-redact",
            "--capture-extra-args=--redact-key=k",
        ],
    ),
    "own directory": (
        QUICK_START
        + "".join(
            f'{job}.metricsPath = "/var/lib/tsfc/{job}.prom";' for job in sorted(DEFAULT_JOBS)
        ),
        [
            *DEFAULT_JOBS,
            *(f"--{job}-metrics-path=/var/lib/tsfc/{job}.prom" for job in DEFAULT_JOBS),
        ],
    ),
    "all": (f"{QUICK_START} capture.enable = true;", [*DEFAULT_JOBS, "capture"]),
    "agent": (
        (
            f'{QUICK_START} agent.enable = true; agent.metricsPath = "/srv/m/a.prom"; '
            "agent.adaptiveKeepalive = true;"
        ),
        ["--agent", "--agent-metrics-path=/srv/m/a.prom", "--agent-adaptive-keepalive"],
    ),
    "agent that listens": (
        (
            'agent = { enable = true; listen = "[2001:db8::1]:9199"; listenAnywhere = true; }; '
            "exporter.enable = true;"
        ),
        [
            *("--agent", "exporter", "--agent-listen=[2001:db8::1]:9199"),
            "--agent-listen-anywhere",
        ],
    ),
    "agent on a Unix socket": (
        f'{QUICK_START} agent = {{ enable = true; listen = "/run/tsfc/agent.sock"; }};',
        ["--agent", "--agent-listen=/run/tsfc/agent.sock"],
    ),
    "agent with some jobs": (
        (
            "agent.enable = true; capture.enable = true; native-metrics.enable = true; "
            'keepalive = { enable = true; interval = "20s"; excludePeers = [ "a\'b" "" ]; };'
        ),
        [
            *("--agent", "native-metrics", "keepalive", "capture", "--keepalive-interval=20s"),
            *("--keepalive-exclude-peers=a'b", "--keepalive-exclude-peers="),
        ],
    ),
    "metrics in another directory": (
        f'{QUICK_START} metricsDir = "/srv/m";',
        ["--metrics-dir=/srv/m"],
    ),
    "watchdog that tells somebody": (
        'watchdog = { enable = true; notifyExec = "/usr/local/bin/tell"; };',
        ["watchdog", "--watchdog-notify-exec=/usr/local/bin/tell"],
    ),
    "agent that tells somebody": (
        'agent.enable = true; watchdog = { enable = true; notifyExec = "/srv/tell"; };',
        ["--agent", "watchdog", "--watchdog-notify-exec=/srv/tell"],
    ),
    "agent with the watchdog alone": (
        (
            'agent.enable = true; watchdog = { enable = true; policy = "guarded"; '
            'remedies = [ "restart" "other-port" ]; excludePeers = [ "a b" "%n $HOME \\\\ é" ]; };'
        ),
        [
            *("--agent", "watchdog", "--watchdog-policy=guarded"),
            *("--watchdog-remedies=restart,other-port", "--watchdog-exclude-peers=a b"),
            "--watchdog-exclude-peers=%n $HOME \\ é",
        ],
    ),
    "agent in the own directory": (
        (
            'agent = { enable = true; metricsPath = "/var/lib/tsfc/agent.prom"; }; '
            'exporter = { enable = true; metricsPath = "/var/lib/tsfc/peers.prom"; }; '
            'socket = "/run/tailscale-a/s.sock"; visiblePaths = [ "/root/a" ]; '
            'labels = { site = "a b"; };'
        ),
        [
            *("--agent", "exporter", "--agent-metrics-path=/var/lib/tsfc/agent.prom"),
            *("--exporter-metrics-path=/var/lib/tsfc/peers.prom", "--labels=site=a b"),
            *("--socket=/run/tailscale-a/s.sock", "--visible-paths=/root/a"),
        ],
    ),
    "shared": (
        (
            'socket = "/run/tailscale-a/s.sock"; visiblePaths = [ "/root/a" "/home/b" ]; '
            'labels = { site = "a b"; tailscaled = "work"; }; watchdog.unit = "b.service"; '
            f'{QUICK_START} native-metrics.extraArgs = [ "--timeout=3" ];'
        ),
        [
            "--socket=/run/tailscale-a/s.sock",
            "--visible-paths=/root/a",
            "--visible-paths=/home/b",
            "--labels=site=a b",
            "--labels=tailscaled=work",
            "--watchdog-unit=b.service",
            "--native-metrics-extra-args=--timeout=3",
        ],
    ),
    "the rest": (
        (
            f'{QUICK_START} exporter.extraArgs = [ "--accept-health" "" "--accept-health" "\\t\\\\" ]; '
            'keepalive.interval = "1.5h"; '
            'native-metrics = { interval = "7"; metricsPath = "/srv/n/n.prom"; }; '
            'watchdog = { interval = "2 weeks"; metricsPath = "/srv/.w/w.prom"; '
            'extraArgs = [ "--exclude-peer" "{value}" "--exclude-peer" "${HOME}%%" ]; };'
        ).replace("${", "\\${"),
        [
            *("--exporter-extra-args=--accept-health", "--exporter-extra-args="),
            *("--exporter-extra-args=--accept-health", "--exporter-extra-args=\t\\"),
            "--keepalive-interval=1.5h",
            *("--native-metrics-interval=7", "--native-metrics-metrics-path=/srv/n/n.prom"),
            *(
                "--watchdog-interval=2 weeks",
                "--watchdog-metrics-path=/srv/.w/w.prom",
                *("--watchdog-extra-args=--exclude-peer", "--watchdog-extra-args={value}"),
                *("--watchdog-extra-args=--exclude-peer", "--watchdog-extra-args=${HOME}%%"),
            ),
        ],
    ),
}
WITHOUT_SETTING = {"enable", "package", "tailscalePackage", "jobs"}
"""Options without a setting. Naming a job enables it; packages are not paths in Nix, and
`agent.jobs` is internal."""


def test_each_option_has_a_setting(evaluate: Evaluate) -> None:
    """So all options are compared."""
    tailscale = evaluate("")["atro"]["tailscale"]
    groups = {*JOBS, "agent"}
    named = {(job, option) for job in groups for option in tailscale[job]} | {
        ("", option) for option in tailscale.keys() - groups
    }
    flags = {
        flag.partition("=")[0].lstrip("-")
        for _, given in SETTINGS.values()
        for flag in given
        if flag.startswith("--")
    }

    def flag(job: str, option: str) -> str:
        return "-".join(
            filter(None, (job, re.sub("[A-Z]", lambda capital: f"-{capital[0].lower()}", option)))
        )

    assert {flag(job, option) for job, option in named if option not in WITHOUT_SETTING} == (
        flags - {"agent"}
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_a_module_and_tsfc_define_the_same_units_line_by_line(
    evaluate: Evaluate, name: str
) -> None:
    options, flags = SETTINGS[name]
    config = evaluate(options)
    assert failing(config) == []
    assert of_nixos(config) == of_tsfc(*flags)


def test_the_quick_start_is_complete(evaluate: Evaluate) -> None:
    """Four services, four timers, and the helper with its socket."""
    units = of_nixos(evaluate(QUICK_START))
    helper = {"tailscale-watchdog-restart.socket", "tailscale-watchdog-restart@.service"}
    assert set(units) == {
        f"tailscale-{job}.{kind}" for job in DEFAULT_JOBS for kind in ("service", "timer")
    } | helper | {"tmpfiles", "groups"}
    assert {name: unit["Install"] for name, unit in units.items() if "Install" in unit} == {
        **{f"tailscale-{job}.timer": ["WantedBy=timers.target"] for job in DEFAULT_JOBS},
        "tailscale-watchdog-restart.socket": ["WantedBy=sockets.target"],
    }


@pytest.mark.parametrize("job", JOBS)
def test_a_job_has_a_module_of_its_own(evaluate: Evaluate, job: str) -> None:
    alone = evaluate(f"{job}.enable = true;", module=job)
    assert failing(alone) == []
    assert list(alone["atro"]["tailscale"].keys() & JOBS) == [job]
    assert of_nixos(alone) == of_nixos(evaluate(f"{job}.enable = true;"))


def test_a_package_of_tailscale_is_run_from_its_bin(evaluate: Evaluate) -> None:
    config = evaluate(
        'tailscalePackage = { outPath = "/nix/store/x-tailscale"; }; exporter.enable = true;'
    )
    assert (
        ' "--tailscale" "/nix/store/x-tailscale/bin/tailscale" '
        in config["systemd"]["services"]["tailscale-exporter"]["serviceConfig"]["ExecStart"]
    )


def test_the_modules_work_without_options_for_sockets_and_groups(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    host = tmp_path / "host.nix"
    host.write_text(
        (ROOT / "tests/nix/stub/host.nix")
        .read_text()
        .replace("systemd.sockets", "systemd.others")
        .replace("users.groups", "users.others")
    )
    config = evaluate(QUICK_START, host=str(host))
    assert set(config["systemd"]) == {"services", "timers", "others", "tmpfiles"}
    assert config["users"] == {"others": {}}
    assert f"tailscale-{JOBS[0]}" in config["systemd"]["timers"]


def test_all_metrics_files_move_to_a_directory_at_once(evaluate: Evaluate) -> None:
    jobs = evaluate('metricsDir = "/srv/m"; exporter.metricsPath = "/srv/own/e.prom";')
    assert {
        name: job["metricsPath"]
        for name, job in jobs["atro"]["tailscale"].items()
        if isinstance(job, dict) and "metricsPath" in job
    } == {
        "agent": "/srv/m/tailscale-agent.prom",
        "exporter": "/srv/own/e.prom",
        "keepalive": None,
        "native-metrics": "/srv/m/tailscale-native.prom",
        "watchdog": "/srv/m/tailscale-watchdog.prom",
    }


TIME_SPAN = "a time span longer than 0"
METRICS_PATH = 'an absolute path of a ".prom" file in a directory'
INVALID = [
    (
        "exporter.interval",
        '"1 minn"',
        f'{TIME_SPAN}, such as 30s, 5min, "1h 30min", 2d, or 90 (seconds)\'',
    ),
    ("exporter.interval", '"0s"', TIME_SPAN),
    ("exporter.interval", "30", TIME_SPAN),
    ("exporter.interval", '"999999999w"', TIME_SPAN),
    ("exporter.interval", r'"5s\nOnCalendar=daily"', TIME_SPAN),
    ("exporter.metricsPath", '"peers.prom"', METRICS_PATH),
    ("exporter.metricsPath", '"/var/lib/alloy/peers.txt"', METRICS_PATH),
    ("exporter.metricsPath", '"/peers.prom"', METRICS_PATH),
    ("exporter.metricsPath", "null", METRICS_PATH),
    ("agent.listen", '"127.0.0.1"', "null or IP:PORT, such as"),
    ("agent.listen", '"/run/a.sock"', "null or IP:PORT, such as"),
    ("exporter.enable", '"true"', "boolean"),
    ("exporter.acceptHealth", '"*dns*"', "list of string"),
    ("keepalive.metricsPath", '"/a/%h/b.prom"', f"null or {METRICS_PATH}"),
    ("keepalive.extraArgs", '[ "--count" 1 ]', "string"),
    ("exporter.omitUsers", '"yes"', "boolean"),
    ("keepalive.excludePeers", '"nas"', "list of string"),
    ("keepalive.excludeOs", '"iOS"', "list of string"),
    ("watchdog.maxRelaySeconds", "-1", "integer between 0 and 999999999"),
    ("watchdog.maxRelaySeconds", '"600"', "integer between 0 and 999999999"),
    ("watchdog.cooldownSeconds", "1000000000", "integer between 0 and 999999999"),
    ("watchdog.unit", '"tailscaled"', 'a service name that ends in ".service", such as'),
    ("watchdog.excludePeers", '"nas"', "list of string"),
    ("watchdog.policy", '"careful"', 'one of "documented", "guarded"'),
    ("watchdog.remedies", "[ ]", 'list of "restart", "other-port" or both'),
    ("watchdog.remedies", '[ "restart" "restart" ]', 'list of "restart", "other-port" or both'),
    ("watchdog.remedies", '"restart"', 'list of "restart", "other-port" or both'),
    ("watchdog.budget", "25", "integer between 0 and 24"),
    ("watchdog.dryRun", '"yes"', "boolean"),
    ("capture.output", '"/srv/c/status.json"', 'an absolute path of a ".ndjson"'),
    ("socket", '"tailscaled.sock"', "an absolute path of a socket"),
    ("visiblePaths", '[ "a" ]', "an absolute path"),
    ("labels", '{ "9a" = "b"; }', "attribute set of string, with names of labels"),
    ("labels", '{ __a = "b"; }', "attribute set of string, with names of labels"),
]
"Options, values and the types that reject them."


@pytest.mark.parametrize(("option", "value", "expected"), INVALID)
def test_an_invalid_value_is_rejected_with_its_type(
    evaluate: Evaluate, option: str, value: str, expected: str
) -> None:
    error = evaluate(f"{option} = {value};")
    assert isinstance(error, str), error
    assert f"`atro.tailscale.{option}' is not of type `{expected}" in error


@pytest.mark.parametrize(
    "option",
    ["capture.metricsPath", "exporter.unit", "exporters", "watchdog.maxRelaySecond"],
)
def test_an_unknown_option_is_rejected(evaluate: Evaluate, option: str) -> None:
    assert f"The option `atro.tailscale.{option}' does not exist" in evaluate(f"{option} = null;")


PLACES = (
    "?",
    "1?",
    "1?s",
    "1s?2",
    "/?/b",
    "/a?/b",
    "/a/?.prom",
    "/a/b?prom",
    "?.service",
    "a?service",
)
LISTEN_ADDRESSES = (
    *(f"127.0.0.1:{port}" for port in ("0", "1", "080", "9199", "65535", "65536", "70000", "")),
    *("127.0.0.1", "127.0.0.01:1", "127.0.0:1", "256.0.0.1:1", "255.249.199.99:1"),
    *(
        "localhost:1",
        "*:1",
        "[127.0.0.1]:1",
        "127.0.0.1:1 ",
        "127.0.0.1:\N{ARABIC-INDIC DIGIT ONE}",
    ),
    *(
        f"[{ip}]:1"
        for ip in (
            *("::", "::1", "1::", "fe80::1%eth0", "fd7a:115c:a1e0::1", "1:2:3:4:5:6:7:8"),
            *("1:2:3:4:5:6:7", "1:2:3:4:5:6:7::", "::1:2:3:4:5:6:7", "1::2:3:4:5:6:7:8"),
            *("1:2:3:4:5:6:7:8:9", "1::2::3", ":::", ":1", "1:", "12345::", "::ffff:1.2.3.4"),
            *("FD7A::1", "g::", ""),
        )
    ),
    *("::1:9199", "[::1:1", "::1]:1", "[::1]", "[[::1]]:1"),
    *("/run/tsfc/agent.sock", "/run/tsfc-work/a.sock", "/run/tsfc/../a.sock", "/run/tsfc/a"),
    *("/run/tsfc/a/b.sock", "/run/tsfc/%n.sock", "/run/tsfc/.sock", "/var/run/tsfc/a.sock"),
    *("/run/tsfc-/a.sock", "/run/tsfcs/a.sock", "/run/tailscale/tailscaled.sock", "/etc/a.sock"),
)
CANDIDATES = [
    *(place.replace("?", chr(code)) for code in range(1, 128) for place in PLACES),
    *(
        "5",
        "1min 30s",
        "1min30s",
        "0.5s",
        "1d1d",
        "0s",
        "0s 1s",
        "1 5",
        "1.s",
        "1us",
        "0.1us",
        "0.001ms",
        "0.0001ms",
        "1000000s",
        "999999w",
    ),
    *(
        "1usec",
        "1msec",
        "1seconds",
        "1second",
        "1sec",
        "1minutes",
        "1minute",
        "1min",
        "1hours",
        "1hour",
        "1hr",
        "1days",
        "1day",
        "1weeks",
        "1week",
    ),
    *("1month", "1y", "1s" * 8, "1s" * 9),
    *(
        "",
        "/",
        "/a",
        "/a/",
        "//a",
        "/a/..",
        "/a/.b",
        "/a/b.prom",
        "/a/.b/c.prom",
        "/a/b.ndjson",
        "/a/b.ndjson.gz",
        "/a/b.ndjson.zst",
        "/a/b.ndjson.xz",
        "/b.ndjson",
        "/a/.prom",
        "/a.prom",
        "/a/b.prom.tmp",
        "/é/b.prom",
        "/run/a.sock",
    ),
    *(
        "tailscaled.service",
        "a@b.service",
        "a.timer",
        ".service",
        "é.service",
        "0",
        "999999999",
        "1000000000",
        "-1",
        "007",
    ),
    *LISTEN_ADDRESSES,
]


TYPES: dict[str, values.Value] = {
    "timeSpan": values.time_span,
    "absolutePath": values.absolute_path,
    "metricsPath": values.metrics_path,
    "capturePath": values.capture_path,
    "socketPath": values.socket_path,
    "serviceName": values.service_name,
    "listenAddress": values.listen_address,
}
"Types of the modules, and those of the options of `tsfc units`."


def test_a_type_accepts_the_same_values_in_nix_and_python(
    nix_instantiate: Callable[..., str],
) -> None:
    """But for refused directories, which the modules reject with an assertion."""
    accept = """
      { texts }:
      let
        types = import ./nix/types.nix { lib = import ./tests/nix/stub/lib.nix; };
      in
      builtins.mapAttrs (_: type: builtins.filter type.check (builtins.fromJSON texts)) types
    """
    arguments = ("--argstr", "texts", json.dumps(CANDIDATES), "--expr", accept)
    accepted = json.loads(nix_instantiate("--eval", "--strict", "--json", *arguments))

    def is_accepted(value: values.Value, text: str) -> bool:
        try:
            return value(text) == text
        except ArgumentTypeError as error:
            return (
                re.match(f"{re.escape(repr(text))} is (in|directly|not in) ", str(error))
                is not None
            )

    assert accepted == {
        name: [text for text in CANDIDATES if is_accepted(value, text)]
        for name, value in TYPES.items()
    } | {"labels": [], "seconds": [], "remedies": []}


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0:9199", "[::]:9199", "192.168.1.2:9199", "128.0.0.1:1", "[::2]:1"),
        *("100.63.255.255:1", "100.64.0.0:1", "100.127.255.255:1", "100.128.0.0:1"),
        *("127.0.0.1:9199", "[::1]:9199", "[0:0:0:0:0:0:0:1]:1", "[fd7a:115c:a1e0::1]:9199"),
        *("[fd7a:115c:a1e1::1]:9199", "100.99.1.2:1", "/run/tsfc/agent.sock"),
    ],
)
def test_the_module_and_tsfc_refuse_the_same_addresses_of_the_agent(
    evaluate: Evaluate, address: str
) -> None:
    enable = f'exporter.enable = true; agent = {{ enable = true; listen = "{address}";'
    ran = run(
        *("units", "--print", NO_SYSTEM, f"--package={TSFC}", "exporter", "--agent"),
        f"--agent-listen={address}",
    )
    says = failing(evaluate(f"{enable} }};"))
    assert [ran.status, len(says)] in ([0, 0], [2, 1])
    if says:
        assert says[0].startswith(
            f"atro.tailscale.agent.listen is {address}: everybody in that network could read it;"
        )
        assert "could read it" in ran.stderr
    assert failing(evaluate(f"{enable} listenAnywhere = true; }};")) == []


def test_the_module_and_tsfc_refuse_any_address_without_an_address(evaluate: Evaluate) -> None:
    options = "exporter.enable = true; agent = { enable = true; listenAnywhere = true; };"
    assert failing(evaluate(options)) == [
        (
            "atro.tailscale.agent.listenAnywhere has no effect without atro.tailscale.agent.listen; "
            "set it, too."
        )
    ]
    ran = run(
        *("units", "--print", NO_SYSTEM, f"--package={TSFC}", "exporter", "--agent"),
        "--agent-listen-anywhere",
    )
    assert (ran.status, ran.stdout) == (2, "")
    assert "--agent-listen-anywhere has no effect without --agent-listen" in ran.stderr


def test_another_address_of_the_agent_changes_its_service(evaluate: Evaluate) -> None:
    """NixOS opens another address only then: it does not restart changed sockets."""

    def service(agent: str) -> Any:
        config = evaluate(f"exporter.enable = true; agent = {{ enable = true; {agent} }};")
        return config["systemd"]["services"]["tailscale-agent"]

    one, other, none = map(
        service, ('listen = "127.0.0.1:9199";', 'listen = "127.0.0.1:9200";', "")
    )
    assert one != other
    assert one | {"restartTriggers": []} == other | {"restartTriggers": []}
    assert none["restartTriggers"] == []


REFUSED = [
    (
        "exporter.metricsPath",
        "/tmp/a.prom",  # noqa: S108 - named, not used
        "in /tmp, which the sandbox of the units hides; choose another directory",
    ),
    (
        "keepalive.metricsPath",
        "/var/lib/a.prom",
        (
            "directly in /var/lib, all of which the job could then change; "
            "choose a directory of its own, such as /var/lib/alloy"
        ),
    ),
    (
        "capture.output",
        "/etc/tsfc/c.ndjson",
        (
            "in /etc, which belongs to the system; "
            "choose a directory of its own, such as /var/lib/tailscale-capture"
        ),
    ),
    (
        "socket",
        "/run/tailscaled.sock",
        (
            "not in /run/tailscale or /run/tailscale-NAME, and the jobs could then use everything "
            'in its directory; start tailscaled with "--socket=/run/tailscale/tailscaled.sock" '
            "and RuntimeDirectory=tailscale"
        ),
    ),
]
"Options, paths and what is wrong with them."


@pytest.mark.parametrize(("option", "path", "problem"), REFUSED)
def test_a_path_that_opens_the_sandbox_fails_an_assertion(
    evaluate: Evaluate, option: str, path: str, problem: str
) -> None:
    job = option.partition(".")[0] if "." in option else "exporter"
    assert failing(evaluate(f'{job}.enable = true; {option} = "{path}";')) == [
        f"atro.tailscale.{option} is {path}, which is {problem}."
    ]


def test_nix_and_python_refuse_the_same_places_with_the_same_words(
    nix_instantiate: Callable[..., str],
) -> None:
    """Each directory of each list, a file in it and below, and names that begin alike."""
    directories = (
        *places.HIDDEN_DIRECTORIES,
        *places.SYSTEM_TREES,
        *places.SHARED_DIRECTORIES,
        *("/data", "/run/tailscale", "/run/tailscale-work", "/run/tailscale-watchdog", "/"),
    )
    paths = [
        f"{place}{directory}{rest}"
        for directory in directories
        for place in ("", "/var", "/srv")
        for rest in ("/a", "/a/b", "s/a", "-a/b")
    ]
    problems = """
      { texts }:
      let
        places = import ./nix/places.nix { lib = import ./tests/nix/stub/lib.nix; };
        paths = builtins.fromJSON texts;
      in
      {
        output = map (path: places.outputProblem path "/example") paths;
        socket = map places.socketProblem paths;
      }
    """
    arguments = ("--argstr", "texts", json.dumps(paths), "--expr", problems)
    assert json.loads(nix_instantiate("--eval", "--strict", "--json", *arguments)) == {
        "output": [places.output_problem(path, "/example") for path in paths],
        "socket": [places.socket_problem(path) for path in paths],
    }


def test_two_jobs_with_one_metrics_file_fail_an_assertion(evaluate: Evaluate) -> None:
    options = " ".join(
        f'{job} = {{ enable = true; metricsPath = "/a/b.prom"; }};'
        for job in ("exporter", "native-metrics")
    )
    message = (
        "atro.tailscale.{}.metricsPath is /a/b.prom, which {} writes as well: "
        "give each job a file of its own."
    )
    assert failing(evaluate(options)) == [
        message.format("exporter", "native-metrics"),
        message.format("native-metrics", "exporter"),
    ]


def test_the_agent_has_a_metrics_file_of_its_own(evaluate: Evaluate) -> None:
    options = (
        'exporter = { enable = true; metricsPath = "/a/b.prom"; }; agent.metricsPath = "/a/b.prom";'
    )
    assert failing(evaluate(options)) == []
    assert failing(evaluate(f"{options} agent.enable = true;")) == [
        f"atro.tailscale.{one}.metricsPath is /a/b.prom, which {other} writes as well: "
        "give each job a file of its own."
        for one, other in (("agent", "exporter"), ("exporter", "agent"))
    ]


LONG = ("1", "1s", "90", "1min 30s", "1.5h", "2 weeks", "1m", "5ms 1s", "10sec")
SHORT = ("500ms", "0.5", "0.5s", "900us", "1usec", "100 msec")


@pytest.mark.parametrize("span", [*LONG, *SHORT])
def test_the_agent_needs_intervals_of_a_second_or_more(evaluate: Evaluate, span: str) -> None:
    options = f'keepalive = {{ enable = true; interval = "{span}"; }};'
    assert failing(evaluate(options)) == []
    problem = (
        f"atro.tailscale.keepalive.interval is {span}: with atro.tailscale.agent.enable it must "
        "be 1s or more."
    )
    assert failing(evaluate(f"{options} agent.enable = true;")) == (
        [problem] if span in SHORT else []
    )


def test_the_command_line_of_the_agent_has_the_same_limit() -> None:
    for span in LONG:
        assert agent_values.interval(span) >= 1
    for span in SHORT:
        with pytest.raises(ArgumentTypeError):
            agent_values.interval(span)


def test_an_agent_without_jobs_has_no_unit(evaluate: Evaluate) -> None:
    alone = evaluate("agent.enable = true;", has_tailscaled="false")
    assert of_nixos(alone) == {"tmpfiles": {"": []}, "groups": {"": []}}
    assert alone["assertions"] == []


def test_a_job_may_use_the_metrics_file_of_a_disabled_job(evaluate: Evaluate) -> None:
    assert (
        failing(
            evaluate(
                'exporter = { enable = true; metricsPath = "/a/b.prom"; }; '
                'watchdog.metricsPath = "/a/b.prom";'
            )
        )
        == []
    )


@pytest.mark.parametrize("job", JOBS)
def test_an_enabled_job_requires_tailscaled(evaluate: Evaluate, job: str) -> None:
    assert failing(evaluate(f"{job}.enable = true;", has_tailscaled="false")) == [
        (
            f"atro.tailscale.{job}.enable is true, but tailscaled is not enabled: "
            "set services.tailscale.enable = true."
        )
    ]


def test_a_watchdog_without_keepalive_is_a_warning(evaluate: Evaluate) -> None:
    warning = (
        "atro.tailscale.watchdog.enable is true without keepalive: idle peers fall back to a "
        "relay, and each can cause a restart. Set atro.tailscale.keepalive.enable = true."
    )
    assert evaluate("watchdog.enable = true;")["warnings"] == [warning]
    assert evaluate("watchdog.enable = true;", module="watchdog")["warnings"] == [warning]
    assert evaluate(QUICK_START)["warnings"] == []
    assert evaluate("exporter.enable = true;")["warnings"] == []


@pytest.mark.parametrize(
    ("options", "useless"),
    [
        ("watchdog.budget = 6;", ["budget"]),
        ('watchdog.remedies = [ "restart" ];', ["remedies"]),
        ('watchdog.budget = 6; watchdog.policy = "guarded";', []),
    ],
)
def test_an_option_of_the_guarded_policy_needs_it(
    evaluate: Evaluate, options: str, useless: list[str]
) -> None:
    assert failing(evaluate(QUICK_START + options)) == [
        f"atro.tailscale.watchdog.{option} is an option of the guarded policy: "
        'set atro.tailscale.watchdog.policy = "guarded".'
        for option in useless
    ]


OTHER_SOCKET = 'socket = "/run/tailscale-b/tailscaled.sock"; '


@pytest.mark.parametrize("options", [QUICK_START, f"{QUICK_START} watchdog.cooldownSeconds = 30;"])
def test_a_watchdog_with_another_socket_needs_a_unit(evaluate: Evaluate, options: str) -> None:
    assert failing(evaluate(OTHER_SOCKET + options)) == [
        (
            "atro.tailscale.socket is /run/tailscale-b/tailscaled.sock, which may be that of "
            "another tailscaled than tailscaled.service: set atro.tailscale.watchdog.unit to the "
            "unit to restart."
        )
    ]


@pytest.mark.parametrize(
    "options",
    [
        f'{OTHER_SOCKET} {QUICK_START} watchdog.unit = "b.service";',
        f'{OTHER_SOCKET} {QUICK_START} watchdog.unit = "tailscaled.service";',
        f"{OTHER_SOCKET} {QUICK_START} watchdog.dryRun = true;",
        f"{OTHER_SOCKET} exporter.enable = true;",
        f'socket = "/var/run/tailscale/tailscaled.sock"; {QUICK_START}',
    ],
)
def test_a_given_unit_a_dry_run_and_the_default_socket_are_accepted(
    evaluate: Evaluate, options: str
) -> None:
    assert failing(evaluate(options)) == []
