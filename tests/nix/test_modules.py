from __future__ import annotations

import json
import re
import subprocess
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.processes import run
from tsfc.units import values

ROOT = Path(__file__).parents[2]
DEFAULT_JOBS = ("exporter", "keepalive", "native-metrics", "watchdog")
JOBS = (*DEFAULT_JOBS, "capture")
QUICK_START = "exporter.enable = true; native-metrics.enable = true; keepalive.enable = true; watchdog.enable = true;"
TSFC = "/nix/store/00000000000000000000000000000000-tsfc"

Evaluate = Callable[..., Any]
Units = dict[str, dict[str, list[str]]]
"The lines of each section of each unit, sorted: in a unit their order says nothing, but for those of one name, which are few and the same."


@pytest.fixture
def evaluate(nix: Callable[..., subprocess.CompletedProcess[str]]) -> Evaluate:
    """What the modules make of `atro.tailscale`, given as the inside of an attribute set, on a host with tailscaled; where they refuse it, what is said."""

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
    """Returns what the assertions that do not hold say."""
    return [
        assertion["message"] for assertion in config["assertions"] if not assertion["assertion"]
    ]


def _texts(value: Any) -> list[str]:
    """Return the values of a directive as a unit has them."""
    if isinstance(value, list):
        return value
    return ["yes"] if value is True else [str(value)]


def of_nixos(config: Any) -> Units:
    """Returns the units that NixOS would write."""

    def lines(section: dict[str, Any]) -> list[str]:
        return sorted(f"{name}={text}" for name, value in section.items() for text in _texts(value))

    units: Units = {}
    for kind in ("service", "timer", "socket"):
        for name, unit in config["systemd"][f"{kind}s"].items():
            parts = {
                "Unit": {"Description": unit["description"], "After": unit.get("after", [])}
                | unit.get("unitConfig", {}),
                kind.title(): unit[f"{kind}Config"],
                "Install": {"WantedBy": unit["wantedBy"]},
            }
            units[f"{name}.{kind}"] = {
                section: lines(part) for section, part in parts.items() if lines(part)
            }
    units["tmpfiles"] = {"": sorted(config["systemd"]["tmpfiles"]["rules"])}
    return units


def of_tsfc(*flags: str) -> Units:
    """Returns the units that `tsfc units --print` prints."""
    ran = run("units", "--print", f"--package={TSFC}", *flags)
    assert (ran.status, ran.stderr) == (0, "")
    units: Units = {}
    tmpfiles: list[str] = []
    for path, text in re.findall(
        r"^# (/\S+)\n(.*?)(?=^# /|\Z)", ran.stdout, re.MULTILINE | re.DOTALL
    ):
        if path.startswith("/etc/tmpfiles.d/"):
            tmpfiles += text.split("\n")
        else:
            sections = re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
            units[path.rpartition("/")[2]] = {
                section: sorted(filter(None, lines.split("\n"))) for section, lines in sections
            }
    return units | {"tmpfiles": {"": sorted(filter(None, tmpfiles))}}


def test_the_options_have_their_defaults(evaluate: Evaluate) -> None:
    """Names, types and values are a contract: hosts have them in their configurations."""
    assert evaluate("")["atro"]["tailscale"] == {
        "package": TSFC,
        "tailscalePackage": None,
        "socket": "/run/tailscale/tailscaled.sock",
        "visiblePaths": [],
        "exporter": {
            "enable": False,
            "interval": "30s",
            "metricsPath": "/var/lib/alloy/tailscale-peers.prom",
            "extraArgs": [],
        },
        "native-metrics": {
            "enable": False,
            "interval": "15s",
            "metricsPath": "/var/lib/alloy/tailscale-native.prom",
            "extraArgs": [],
        },
        "keepalive": {"enable": False, "interval": "10s", "metricsPath": None, "extraArgs": []},
        "watchdog": {
            "enable": False,
            "interval": "1min",
            "maxRelaySeconds": 600,
            "cooldownSeconds": 600,
            "excludePeers": [],
            "dryRun": False,
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


def test_nothing_is_enabled_by_itself(evaluate: Evaluate) -> None:
    config = evaluate("", has_tailscaled="false")
    assert of_nixos(config) == {"tmpfiles": {"": []}}
    assert config["assertions"] == []


SETTINGS: dict[str, tuple[str, list[str]]] = {
    "quick start": (QUICK_START, []),
    "exporter": (
        'exporter = { enable = true; interval = "1min 30s"; metricsPath = "/srv/m/a.prom"; };',
        ["exporter", "--exporter-interval=1min 30s", "--exporter-metrics-path=/srv/m/a.prom"],
    ),
    "keepalive": (
        'keepalive = { enable = true; metricsPath = "/srv/m/k.prom"; extraArgs = [ "--count" "1" ]; };',
        [
            "keepalive",
            "--keepalive-metrics-path=/srv/m/k.prom",
            "--keepalive-extra-args=--count",
            "--keepalive-extra-args=1",
        ],
    ),
    "watchdog": (
        (
            "watchdog = { enable = true; maxRelaySeconds = 0; cooldownSeconds = 30; "
            'excludePeers = [ "a b" "%n $HOME \\"q\\" \\\\ é" "{socket}" ]; dryRun = true; unit = "x@y.service"; };'
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
    "capture": (
        'capture = { enable = true; interval = "10s"; output = "/srv/c/c.ndjson"; redact = true; extraArgs = [ "--redact-key=k" ]; };',
        [
            "capture",
            "--capture-interval=10s",
            "--capture-output=/srv/c/c.ndjson",
            "--capture-redact",
            "--capture-extra-args=--redact-key=k",
        ],
    ),
    "all": (f"{QUICK_START} capture.enable = true;", [*DEFAULT_JOBS, "capture"]),
    "shared": (
        f'socket = "/srv/ts/s.sock"; visiblePaths = [ "/root/a" "/home/b" ]; {QUICK_START} native-metrics.extraArgs = [ "--timeout=3" ];',
        [
            "--socket=/srv/ts/s.sock",
            "--visible-paths=/root/a",
            "--visible-paths=/home/b",
            "--native-metrics-extra-args=--timeout=3",
        ],
    ),
    "the rest": (
        (
            f'{QUICK_START} exporter.extraArgs = [ "" "\\t\\\\" ]; keepalive.interval = "1.5h"; '
            'native-metrics = { interval = "7"; metricsPath = "/srv/n/n.prom"; }; '
            'watchdog = { interval = "2 weeks"; metricsPath = "/srv/.w/w.prom"; extraArgs = [ "{value}" "${HOME}%%" ]; };'
        ).replace("${", "\\${"),
        [
            *("--exporter-extra-args=", "--exporter-extra-args=\t\\", "--keepalive-interval=1.5h"),
            *("--native-metrics-interval=7", "--native-metrics-metrics-path=/srv/n/n.prom"),
            *(
                "--watchdog-interval=2 weeks",
                "--watchdog-metrics-path=/srv/.w/w.prom",
                "--watchdog-extra-args={value}",
                "--watchdog-extra-args=${HOME}%%",
            ),
        ],
    ),
}
ELSEWHERE = {"enable", "package", "tailscalePackage"}
"The options that no setting has: a job that is named is enabled, and a package is no path to Nix."


def test_each_option_is_in_a_setting(evaluate: Evaluate) -> None:
    """So that all of them mean the same to both."""
    tailscale = evaluate("")["atro"]["tailscale"]
    named = {(job, option) for job in JOBS for option in tailscale[job]} | {
        ("", option) for option in tailscale.keys() - JOBS
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

    assert {flag(job, option) for job, option in named if option not in ELSEWHERE} == flags


@pytest.mark.parametrize("name", SETTINGS)
def test_a_module_and_tsfc_make_the_same_units_line_by_line(evaluate: Evaluate, name: str) -> None:
    options, flags = SETTINGS[name]
    config = evaluate(options)
    assert failing(config) == []
    assert of_nixos(config) == of_tsfc(*flags)


def test_the_quick_start_is_complete(evaluate: Evaluate) -> None:
    """Four services, four timers, and the watchdog's helper, which only its socket starts."""
    units = of_nixos(evaluate(QUICK_START))
    helper = {"tailscale-watchdog-restart.socket", "tailscale-watchdog-restart@.service"}
    assert set(units) == {
        f"tailscale-{job}.{kind}" for job in DEFAULT_JOBS for kind in ("service", "timer")
    } | helper | {"tmpfiles"}
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


def test_what_evaluates_modules_and_has_no_sockets_gets_the_rest(
    evaluate: Evaluate, tmp_path: Path
) -> None:
    host = tmp_path / "host.nix"
    host.write_text(
        (ROOT / "tests/nix/stub/host.nix").read_text().replace("systemd.sockets", "systemd.others")
    )
    config = evaluate(QUICK_START, host=str(host))
    assert set(config["systemd"]) == {"services", "timers", "others", "tmpfiles"}
    assert f"tailscale-{JOBS[0]}" in config["systemd"]["timers"]


REFUSED_BY_TYPE = {
    'exporter.interval = "1 minn";': 'exporter.interval\' is not of type `a systemd time span longer than 0, such as "30s" or "1min 30s"\'',
    'exporter.interval = "0s";': "exporter.interval' is not of type `a systemd time span longer than 0",
    "exporter.interval = 30;": "exporter.interval' is not of type `a systemd time span longer than 0",
    'exporter.metricsPath = "peers.prom";': 'exporter.metricsPath\' is not of type `an absolute path of a ".prom" file',
    'exporter.metricsPath = "/var/lib/alloy/peers.txt";': 'exporter.metricsPath\' is not of type `an absolute path of a ".prom" file',
    'exporter.metricsPath = "/peers.prom";': 'exporter.metricsPath\' is not of type `an absolute path of a ".prom" file in a directory,',
    "exporter.metricsPath = null;": "exporter.metricsPath' is not of type",
    'keepalive.metricsPath = "/a/%h/b.prom";': "keepalive.metricsPath' is not of type `null or an absolute path",
    "watchdog.maxRelaySeconds = -1;": "watchdog.maxRelaySeconds' is not of type",
    'watchdog.maxRelaySeconds = "600";': "watchdog.maxRelaySeconds' is not of type",
    'watchdog.unit = "tailscaled";': 'watchdog.unit\' is not of type `a service name that ends in ".service", such as "tailscaled.service"\'',
    'watchdog.excludePeers = "nas";': "watchdog.excludePeers' is not of type",
    'watchdog.dryRun = "yes";': "watchdog.dryRun' is not of type",
    'socket = "tailscaled.sock";': "socket' is not of type `an absolute path of a socket",
    'exporter.interval = "999999999w";': "exporter.interval' is not of type `a systemd time span longer than 0",
    'exporter.interval = "5s\\nOnCalendar=daily";': "exporter.interval' is not of type `a systemd time span longer than 0",
    'keepalive.extraArgs = [ "--count" 1 ];': "keepalive.extraArgs' is not of type",
    'capture.output = "/srv/c/status.json";': 'capture.output\' is not of type `an absolute path of a ".ndjson"',
    "capture.metricsPath = null;": "The option `atro.tailscale.capture.metricsPath' does not exist",
    'visiblePaths = [ "a" ];': "visiblePaths' is not of type `an absolute path",
    "watchdog.cooldownSeconds = 1000000000;": "watchdog.cooldownSeconds' is not of type",
    'exporter.enable = "true";': "exporter.enable' is not of type",
    "exporter.unit = null;": "The option `atro.tailscale.exporter.unit' does not exist",
    "exporters.enable = true;": "The option `atro.tailscale.exporters' does not exist",
    "watchdog.maxRelaySecond = 1;": "The option `atro.tailscale.watchdog.maxRelaySecond' does not exist",
}


@pytest.mark.parametrize("options", REFUSED_BY_TYPE)
def test_a_wrong_value_is_refused_by_its_type_which_says_what_it_has_to_be(
    evaluate: Evaluate, options: str
) -> None:
    said = evaluate(options)
    assert isinstance(said, str), said
    assert REFUSED_BY_TYPE[options] in said


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
]


TYPES: dict[str, values.Value] = {
    "timeSpan": values.time_span,
    "absolutePath": values.absolute_path,
    "metricsPath": values.metrics_path,
    "capturePath": values.capture_path,
    "socketPath": values.socket_path,
    "serviceName": values.service_name,
}
"Types of the modules, and those of the options of `tsfc units`."


def test_a_type_accepts_the_same_values_in_nix_and_python(
    nix_instantiate: Callable[..., str],
) -> None:
    """But for hidden directories, which the modules reject with an assertion."""
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
        except ArgumentTypeError:
            return False

    assert accepted == {
        name: [text for text in CANDIDATES if is_accepted(value, text)]
        for name, value in TYPES.items()
    } | {"seconds": []}


REFUSED_BY_ASSERTION = {
    'exporter.metricsPath = "/home/me/a.prom";': [
        "atro.tailscale.exporter.metricsPath is /home/me/a.prom, but the sandbox of the units hides /home: choose another directory."
    ],
    'exporter.metricsPath = "/tmp/a.prom";': [
        "atro.tailscale.exporter.metricsPath is /tmp/a.prom, but the sandbox of the units hides /tmp: choose another directory."
    ],
    'capture = { enable = true; output = "/root/c.ndjson"; };': [
        "atro.tailscale.capture.output is /root/c.ndjson, but the sandbox of the units hides /root: choose another directory."
    ],
    'socket = "/run/user/1000/s";': [
        "atro.tailscale.socket is /run/user/1000/s, but the sandbox of the units hides /run/user: choose another directory."
    ],
    'native-metrics = { enable = true; metricsPath = "/a/b.prom"; }; exporter.metricsPath = "/a/b.prom";': [
        "atro.tailscale.exporter.metricsPath is /a/b.prom, which native-metrics writes as well: give each job a file of its own.",
        "atro.tailscale.native-metrics.metricsPath is /a/b.prom, which exporter writes as well: give each job a file of its own.",
    ],
}


@pytest.mark.parametrize("options", REFUSED_BY_ASSERTION)
def test_what_cannot_work_is_refused_by_an_assertion_which_says_what_to_do(
    evaluate: Evaluate, options: str
) -> None:
    assert failing(evaluate(f"exporter.enable = true; {options}")) == REFUSED_BY_ASSERTION[options]


@pytest.mark.parametrize("directory", values.HIDDEN_DIRECTORIES)
def test_a_path_in_a_hidden_directory_fails_an_assertion(
    evaluate: Evaluate, directory: str
) -> None:
    config = evaluate(f'exporter = {{ enable = true; metricsPath = "{directory}/a.prom"; }};')
    (message,) = failing(config)
    assert message.endswith(
        f" is {directory}/a.prom, but the sandbox of the units hides {directory}: "
        "choose another directory."
    )


def test_a_file_of_a_job_that_is_not_enabled_is_nobodys(evaluate: Evaluate) -> None:
    assert (
        failing(
            evaluate(
                'exporter = { enable = true; metricsPath = "/a/b.prom"; }; watchdog.metricsPath = "/a/b.prom";'
            )
        )
        == []
    )


@pytest.mark.parametrize("job", JOBS)
def test_without_tailscaled_there_is_nothing_to_do(evaluate: Evaluate, job: str) -> None:
    assert failing(evaluate(f"{job}.enable = true;", has_tailscaled="false")) == [
        f"atro.tailscale.{job}.enable is true, but tailscaled is not enabled: set services.tailscale.enable = true."
    ]
