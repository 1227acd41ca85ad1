from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import NAMES_FROM_HELL
from support.exec_line import command, exec_arguments, joined
from tsfc.cli import main as cli
from tsfc.cli.units import DEFAULTS, job_settings
from tsfc.core import duration
from tsfc.core.watchdog.policy import GuardedPolicy
from tsfc.shell import defaults
from tsfc.units.rendering import (
    AGENT,
    DEFAULT_JOBS,
    JOBS,
    RESTART_SOCKET,
    JobSettings,
    output_conflict,
    render_drop_in,
    render_sysusers,
    render_tmpfiles,
    render_units,
    unit_names,
    wanted_by,
)

PACKAGE = "/opt/tsfc"
PROGRAM = f"{PACKAGE}/bin/tsfc"
SOCKET = "/run/tailscale/tailscaled.sock"
SHIPPED = files("tsfc.units").joinpath("files")
INTERVALS = {
    "exporter": "30s",
    "native-metrics": "15s",
    "keepalive": "10s",
    "watchdog": "1min",
    "capture": "1min",
}
CAPTURE = "/var/lib/tailscale-capture/status.ndjson.zst"
METRICS = {
    "exporter": "/var/lib/alloy/tailscale-peers.prom",
    "native-metrics": "/var/lib/alloy/tailscale-native.prom",
    "watchdog": "/var/lib/alloy/tailscale-watchdog.prom",
}
COMMANDS = {
    "exporter": (
        *(PROGRAM, "exporter", "--socket", SOCKET),
        *("--metrics-path", METRICS["exporter"]),
    ),
    "native-metrics": (
        *(PROGRAM, "native-metrics", "--socket", SOCKET),
        *("--metrics-path", METRICS["native-metrics"]),
    ),
    "keepalive": (PROGRAM, "keepalive", "--socket", SOCKET),
    "watchdog": (
        *(PROGRAM, "watchdog", "--restart-socket", "/run/tailscale-watchdog/restart.sock"),
        *("--socket", SOCKET, "--max-relay-seconds", "600", "--cooldown-seconds", "600"),
        *("--unit", "tailscaled.service", "--metrics-path", METRICS["watchdog"]),
    ),
    "capture": (
        *(PROGRAM, "capture", "--max-size", "64M", "--keep", "5", "--socket", SOCKET),
        *("--output", CAPTURE),
    ),
}


def settings(job: str, *options: str) -> JobSettings:
    """Settings of a job, as the command line gives them."""
    parser = cli._command_parser("units")
    parsed = parser.parse_args(["--print", f"--package={PACKAGE}", *options])
    return job_settings(parsed, job, ())


def service(job: str, *options: str) -> str:
    """Text of the service of a job."""
    return render_units(settings(job, *options))[f"tailscale-{job}.service"]


@pytest.mark.parametrize("job", JOBS)
def test_the_shipped_units_are_those_of_the_default_options(job: str) -> None:
    shipped = {name: SHIPPED.joinpath(name).read_text(encoding="utf-8") for name in unit_names(job)}
    told = ("--watchdog-notify-exec=/usr/local/bin/notify",) if job == "watchdog" else ()
    rendered = render_units(settings(job, *told))
    service = f"tailscale-{job}.service"
    assert rendered | {service: render_units(settings(job))[service]} == shipped


def test_a_watchdog_that_tells_nobody_has_no_units_for_it() -> None:
    assert [name for name in render_units(settings("watchdog")) if "notify" in name] == []


def test_the_news_of_the_watchdog_go_to_the_socket_of_the_program() -> None:
    units = render_units(settings("watchdog", "--watchdog-notify-exec=/srv/tell"))
    listened = "/run/tailscale-watchdog/notify.sock"
    assert f'"--notify-socket" "{listened}"' in units["tailscale-watchdog.service"]
    assert f"ListenStream={listened}\n" in units["tailscale-watchdog-notify.socket"]
    assert 'ExecStart="/srv/tell"\n' in units["tailscale-watchdog-notify@.service"]


def test_each_shipped_unit_belongs_to_a_job() -> None:
    assert {file.name for file in SHIPPED.iterdir()} == {
        name for job in (*JOBS, AGENT) for name in unit_names(job)
    }


OF_ONE_JOB = {
    *("Description", "ExecStart", "SyslogIdentifier", "TimeoutStartSec", "StateDirectory"),
    *("Nice", "IOSchedulingClass", "BindPaths", "BindReadOnlyPaths"),
    *("CapabilityBoundingSet", "AmbientCapabilities", "MemoryMax", "TasksMax"),
    "StateDirectoryMode",
}
"Directives in which the services of the jobs may differ."


def test_all_jobs_have_the_same_sandbox() -> None:
    """The services have the same lines in the same order, but for known directives."""
    sandboxes = {
        tuple(
            line for line in service(job).splitlines() if line.partition("=")[0] not in OF_ONE_JOB
        )
        for job in JOBS
    }
    (sandbox,) = sandboxes
    assert "ProtectSystem=strict" in sandbox


def test_the_directory_of_an_output_is_created() -> None:
    """By tmpfiles, but for that of a capture, which systemd creates for the unit."""
    alloy = "d /var/lib/alloy - - - -\n"
    assert {job: render_tmpfiles(settings(job)) for job in JOBS} == {
        "exporter": alloy,
        "native-metrics": alloy,
        "keepalive": None,
        "watchdog": alloy,
        "capture": None,
    }


@pytest.mark.parametrize("job", ["exporter", "native-metrics", "keepalive"])
def test_a_job_needs_no_capability_in_the_own_directory(job: str) -> None:
    """The directory belongs to a group, and the job is a member."""
    own = settings(job, f"--{job}-metrics-path=/var/lib/tsfc/a.prom")
    text = render_units(own)[f"tailscale-{job}.service"]
    assert "CapabilityBoundingSet=\n" in text
    assert "AmbientCapabilities" not in text
    assert "BindPaths=-/var/lib/tsfc\nSupplementaryGroups=tsfc\n" in text
    assert render_tmpfiles(own) == "d /var/lib/tsfc 0775 root tsfc -\n"
    assert render_sysusers(own) == "g tsfc - -\n"


def test_the_watchdog_needs_the_capability_for_its_helper() -> None:
    own = settings("watchdog", "--watchdog-metrics-path=/var/lib/tsfc/a.prom")
    text = render_units(own)["tailscale-watchdog.service"]
    assert text == service("watchdog").replace(METRICS["watchdog"], "/var/lib/tsfc/a.prom").replace(
        "BindPaths=-/var/lib/alloy", "BindPaths=-/var/lib/tsfc"
    )
    assert render_tmpfiles(own) == "d /var/lib/tsfc 0775 root tsfc -\n"


def test_a_group_is_only_created_for_the_own_directory() -> None:
    below = settings("exporter", "--exporter-metrics-path=/var/lib/tsfc/below/a.prom")
    capture = settings("capture", "--capture-output=/var/lib/tsfc/a.ndjson")
    for other in (below, capture, *map(settings, JOBS)):
        assert render_sysusers(other) is None
        assert "SupplementaryGroups" not in render_units(other)[f"tailscale-{other.job}.service"]


def test_another_port_needs_a_drop_in_of_the_restarted_unit() -> None:
    """And nothing else has one, so that other hosts keep their tailscaled as it is."""
    options = ("--watchdog-policy=guarded", "--watchdog-remedies=restart,other-port")
    assert [render_drop_in(settings(job)) for job in JOBS] == [{}] * len(JOBS)
    assert [render_drop_in(settings(job, *options)) for job in JOBS if job != "watchdog"] == (
        [{}] * (len(JOBS) - 1)
    )
    text = (
        "[Service]\n# The file only exists during a restart on another port.\n"
        "EnvironmentFile=-/run/tailscale-watchdog-restart/port.env\n"
    )
    assert render_drop_in(settings("watchdog", *options, "--watchdog-unit=a@b.service")) == {
        "a@b.service.d/tailscale-watchdog.conf": text
    }
    assert (
        "RuntimeDirectory=tailscale-watchdog-restart\n"
        in (render_units(settings("watchdog"))["tailscale-watchdog-restart@.service"])
    )


def test_timers_and_sockets_are_enabled_and_services_are_not() -> None:
    """A service is started by its timer or its socket."""
    targets = {name: wanted_by(name) for job in JOBS for name in unit_names(job)}
    assert targets == {
        **{f"tailscale-{job}.service": None for job in JOBS},
        **{f"tailscale-{job}.timer": "timers.target" for job in JOBS},
        "tailscale-watchdog-restart.socket": "sockets.target",
        "tailscale-watchdog-restart@.service": None,
        "tailscale-watchdog-notify.socket": "sockets.target",
        "tailscale-watchdog-notify@.service": None,
    }


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_only_ordered_after_tailscaled(job: str) -> None:
    """A stronger one would stop the watchdog when it restarts tailscaled."""
    text = service(job)
    assert "After=tailscaled.service\n" in text
    assert not [
        line
        for line in text.splitlines()
        if line.startswith(("Requires=", "Requisite=", "BindsTo=", "PartOf=", "Wants="))
    ]


Change = tuple[str, list[str], set[str], set[str]]
"Name of an option, options to give, lines that disappear, and lines that appear."


def lines(job: str, *options: str) -> Counter[str]:
    """Lines in the files of a job, after the kind of file; arguments one by one."""
    job_settings = settings(job, *options)
    found = Counter(
        f"tmpfiles: {line}" for line in (render_tmpfiles(job_settings) or "").split("\n")
    )
    for name, text in render_units(job_settings).items():
        kind = name.removeprefix(f"tailscale-{job}").removeprefix(".")
        for line in joined(text).splitlines():
            parts = (
                [f"argument {argument}" for argument in exec_arguments(line)]
                if line.startswith("ExecStart=")
                else [line]
            )
            found.update(f"{kind}: {part}" for part in parts)
    return found


def output_lines(path: str, directory: str, mode: str = "-") -> set[str]:
    return {
        f"service: argument {path}",
        f"service: BindPaths=-{directory}",
        f"tmpfiles: d {directory} {mode} - - -",
    }


CAPABILITY = {
    "service: CapabilityBoundingSet=CAP_DAC_OVERRIDE",
    "service: AmbientCapabilities=CAP_DAC_OVERRIDE",
}


def shared_changes(job: str) -> Iterator[Change]:
    yield (
        "package",
        ["--package=/opt/other"],
        {f"service: argument {PROGRAM}"},
        {"service: argument /opt/other/bin/tsfc"},
    )
    yield (
        "tailscale-package",
        ["--tailscale-package=/opt/tailscale"],
        set(),
        {"service: argument --tailscale", "service: argument /opt/tailscale/bin/tailscale"},
    )
    yield (
        "socket",
        ["--socket=/run/tailscale-b/a.sock"],
        {f"service: argument {SOCKET}", "service: BindReadOnlyPaths=-/run/tailscale"},
        {
            "service: argument /run/tailscale-b/a.sock",
            "service: BindReadOnlyPaths=-/run/tailscale-b",
        },
    )
    yield (
        "visible-paths",
        ["--visible-paths=/home/a", "--visible-paths=/b"],
        set(),
        {"service: BindReadOnlyPaths=-/home/a", "service: BindReadOnlyPaths=-/b"},
    )
    before, after = (
        {f"timer: OnBootSec={span}", f"timer: OnUnitActiveSec={span}"}
        for span in (INTERVALS[job], "2h 1s")
    )
    yield "interval", [f"--{job}-interval=2h 1s"], before, after
    yield (
        "args",
        [f"--{job}-args=--timeout '5 s'"],
        set(),
        {"service: argument --timeout", "service: argument 5 s"},
    )
    yield (
        "labels",
        ["--labels=tailscaled=work", "--labels=site=a b"],
        set(),
        set()
        if job == "capture"
        else {
            "service: argument --label",
            "service: argument tailscaled=work",
            "service: argument site=a b",
        },
    )


LIMITS = (
    '-restart@.service: Environment="UNIT=tailscaled.service" "COOLDOWN={}" "MAX_RELAY={}" '
    '"HELPER=%n"'
)
"The helper gets decimal numbers: its shell reads a leading 0 as octal."
UNIT_LINES = (
    "service: argument {}",
    '-restart@.service: Environment="UNIT={}" "COOLDOWN=600" "MAX_RELAY=600" "HELPER=%n"',
    "-restart@.service: Description=Restart of {} for tailscale-watchdog.service",
    "-restart.socket: Description=Requests of tailscale-watchdog.service for a restart of {}",
)
GUARDED, RESTART = ("--policy", "guarded"), ("--remedies", "restart")
SHIPPED_PROGRAM = '-notify@.service: ExecStart="/usr/local/bin/notify"'


def shipped_lines(unit: str) -> set[str]:
    """Lines of a unit of the watchdog, with its name before each, as `lines` has them."""
    text = SHIPPED.joinpath(f"tailscale-watchdog{unit}").read_text(encoding="utf-8")
    return {f"{unit}: {line}" for line in text.splitlines()}


CHANGES: list[tuple[str, Change]] = [
    *((job, change) for job in JOBS for change in shared_changes(job)),
    *(
        (
            job,
            (
                "metrics-path",
                [f"--{job}-metrics-path=/srv/metrics/a.prom"],
                output_lines(path, "/var/lib/alloy"),
                output_lines("/srv/metrics/a.prom", "/srv/metrics"),
            ),
        )
        for job, path in METRICS.items()
    ),
    *(
        (
            job,
            (
                "metrics-dir",
                ["--metrics-dir=/srv/metrics"],
                output_lines(path, "/var/lib/alloy"),
                output_lines(path.replace("/var/lib/alloy", "/srv/metrics"), "/srv/metrics"),
            ),
        )
        for job, path in METRICS.items()
    ),
    (
        "keepalive",
        (
            "metrics-path",
            ["--keepalive-metrics-path=/srv/metrics/a.prom"],
            {"service: CapabilityBoundingSet="},
            output_lines("/srv/metrics/a.prom", "/srv/metrics")
            | CAPABILITY
            | {"service: argument --metrics-path"},
        ),
    ),
    (
        "exporter",
        (
            "accept-health",
            ["--exporter-accept-health=*routes*", "--exporter-accept-health=a b"],
            set(),
            {
                "service: argument --accept-health",
                "service: argument *routes*",
                "service: argument a b",
            },
        ),
    ),
    (
        "watchdog",
        (
            "exclude-peers",
            ["--watchdog-exclude-peers=nas", "--watchdog-exclude-peers=my phone"],
            set(),
            {
                "service: argument --exclude-peer",
                "service: argument nas",
                "service: argument my phone",
            },
        ),
    ),
    (
        "keepalive",
        (
            "exclude-peers",
            ["--keepalive-exclude-peers=my phone"],
            set(),
            {"service: argument --exclude-peer", "service: argument my phone"},
        ),
    ),
    (
        "keepalive",
        (
            "exclude-os",
            ["--keepalive-exclude-os=iOS"],
            set(),
            {"service: argument --exclude-os", "service: argument iOS"},
        ),
    ),
    (
        "exporter",
        ("omit-users", ["--exporter-omit-users"], set(), {"service: argument --omit-users"}),
    ),
    (
        "watchdog",
        (
            "policy",
            ["--watchdog-policy=guarded"],
            set(),
            {f"service: argument {part}" for part in (*GUARDED, "--budget", "6", *RESTART)},
        ),
    ),
    (
        "watchdog",
        (
            "budget",
            ["--watchdog-policy=guarded", "--watchdog-budget=2"],
            set(),
            {f"service: argument {part}" for part in (*GUARDED, "--budget", "2", *RESTART)},
        ),
    ),
    (
        "watchdog",
        (
            "remedies",
            ["--watchdog-policy=guarded", "--watchdog-remedies=other-port"],
            set(),
            {
                f"service: argument {part}"
                for part in (*GUARDED, "--budget", "6", "--remedies", "other-port")
            },
        ),
    ),
    (
        "watchdog",
        (
            "notify-exec",
            ["--watchdog-notify-exec=/srv/tell"],
            set(),
            {
                "service: argument --notify-socket",
                "service: argument /run/tailscale-watchdog/notify.sock",
                *shipped_lines("-notify.socket"),
                *(shipped_lines("-notify@.service") - {SHIPPED_PROGRAM}),
                "-notify@.service: argument /srv/tell",
            },
        ),
    ),
    ("watchdog", ("dry-run", ["--watchdog-dry-run"], set(), {"service: argument --dry-run"})),
    (
        "watchdog",
        (
            "unit",
            ["--watchdog-unit=other.service"],
            {line.format("tailscaled.service") for line in UNIT_LINES},
            {line.format("other.service") for line in UNIT_LINES},
        ),
    ),
    *(
        (
            "watchdog",
            (
                option,
                [f"--watchdog-{option}=1min"],
                {"service: argument 600", LIMITS.format("600", "600")},
                {"service: argument 60", LIMITS.format(*limits)},
            ),
        )
        for option, limits in {
            "max-relay-seconds": ("600", "60"),
            "cooldown-seconds": ("60", "600"),
        }.items()
    ),
    (
        "capture",
        (
            "output",
            ["--capture-output=/srv/c/a.ndjson"],
            {
                f"service: argument {CAPTURE}",
                "service: StateDirectory=tailscale-capture",
                "service: StateDirectoryMode=0700",
                "service: CapabilityBoundingSet=",
            },
            output_lines("/srv/c/a.ndjson", "/srv/c", ":0700") | CAPABILITY,
        ),
    ),
    ("capture", ("redact", ["--capture-redact"], set(), {"service: argument --redact"})),
]


@pytest.mark.parametrize(
    ("job", "options", "removed", "added"),
    [
        pytest.param(job, options, removed, added, id=f"{job}-{name}")
        for job, (name, options, removed, added) in CHANGES
    ],
)
def test_an_option_changes_only_these_lines(
    job: str, options: list[str], removed: set[str], added: set[str]
) -> None:
    before, after = lines(job), lines(job, *options)
    assert (set(before - after), set(after - before)) == (removed, added)


def test_the_changes_of_each_option_are_tested() -> None:
    shared = {"package", "tailscale-package", "socket", "metrics-dir", "visible-paths", "labels"}
    tested = {f"--{name}" if name in shared else f"--{job}-{name}" for job, (name, *_) in CHANGES}
    assert tested == {
        string
        for action in cli._command_parser("units")._actions
        for string in action.option_strings
    } - {
        *("-h", "--help", "--print", "--install", "--uninstall", "--upgrade", "--uninstall-own"),
        *("--root", "--instance", "--reset", "--unset", "--agent", "--agent-metrics-path"),
        *("--agent-adaptive-keepalive", "--agent-listen", "--agent-listen-anywhere"),
        *(f"--{job}-extra-args" for job in JOBS),  # the former spelling
    }


def test_an_option_that_is_not_given_is_absent() -> None:
    """So that it does not replace the one of the installed units."""
    parser = cli._command_parser("units")
    assert DEFAULTS.keys() & vars(parser.parse_args(["--print"])).keys() == set()
    assert {action.dest for action in parser._actions if action.default == "==SUPPRESS=="} == {
        "help",
        *DEFAULTS,
    }


@pytest.mark.parametrize("job", JOBS)
def test_a_job_has_this_command_and_extra_arguments_follow(job: str) -> None:
    extra = (f"--{job}-extra-args=--now", f"--{job}-extra-args=7")
    assert command(service(job)) == COMMANDS[job]
    assert command(service(job, *extra)) == (*COMMANDS[job], "--now", "7")


def test_no_option_changes_the_script_of_the_restart_helper() -> None:
    """It reads the name of the unit from its environment, so the shell does not parse it."""
    options = ("--watchdog-unit=tailscaled@a.service", "--watchdog-cooldown-seconds=5")
    name = "tailscale-watchdog-restart@.service"
    changed, default = (render_units(settings("watchdog", *given))[name] for given in (options, ()))
    assert command(changed) == command(default)
    assert (
        'Environment="UNIT=tailscaled@a.service" "COOLDOWN=5" "MAX_RELAY=600" "HELPER=%n"\n'
        in changed
    )


HOSTILE = [
    *(text for text in NAMES_FROM_HELL.values() if "\0" not in text),
    *("%", "%%", "%n", "%%n", "$", "$$", "$HOME", "${HOME}", "$0"),
    *("'", '"', "\\", "\\\\", "\\x41", "\\;", ";", "#", "-", "@", " ", "\t"),
    *("{socket}", "{value}", "{job}", "{directory}", "{package}", "{unknown}", "{}", "{{value}}"),
    *("a\nExecStart=/bin/b", "\x85BindPaths=/", "\x7f\x85\x01", "\N{PILE OF POO}", "é" * 3),
    *("tailscaled.service", "BindReadOnlyPaths=-/run/tailscale"),
]
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.text(st.sampled_from("%$\\\"'{} \n;vx0")),
)


@given(st.lists(TEXTS), st.lists(TEXTS))
def test_arguments_reach_the_job_unchanged(extra: list[str], excluded: list[str]) -> None:
    """Whatever they contain. No argument becomes a line of its own."""
    text = service("keepalive", *(f"--keepalive-extra-args={argument}" for argument in extra))
    assert command(text) == (*COMMANDS["keepalive"], *extra)
    assert text.count("\n") == service("keepalive").count("\n")
    text = service(
        "watchdog",
        *(f"--watchdog-exclude-peers={peer}" for peer in excluded),
        *(f"--watchdog-extra-args={argument}" for argument in extra),
    )
    at = COMMANDS["watchdog"].index("--unit")
    peers = tuple(part for name in excluded for part in ("--exclude-peer", name))
    assert command(text) == (*COMMANDS["watchdog"][:at], *peers, *COMMANDS["watchdog"][at:], *extra)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_a_hostile_argument_reaches_the_job_unchanged(text: str) -> None:
    """Each of them, whatever Hypothesis tries; and the other lines of the unit stay."""
    options = (f"--watchdog-extra-args={text}", "--watchdog-metrics-path=/srv/m/a.prom")
    unit = service("watchdog", *options)
    assert command(unit)[-1] == text
    without = service("watchdog", options[1])
    assert [line for line in unit.split("\n") if not line.startswith("ExecStart=")] == [
        line for line in without.split("\n") if not line.startswith("ExecStart=")
    ]


def test_two_jobs_may_not_write_one_file() -> None:
    """The message names the file and both jobs. Jobs without a file never conflict."""
    exporter = settings("exporter", "--exporter-metrics-path=/a/b.prom")
    native_metrics = settings("native-metrics", "--native-metrics-metrics-path=/a/c.prom")
    watchdog = settings("watchdog", "--watchdog-metrics-path=/a/b.prom")
    assert output_conflict([]) is None
    assert output_conflict([settings(job) for job in JOBS]) is None
    assert output_conflict([settings("keepalive"), settings("keepalive")]) is None
    assert output_conflict([exporter, settings("keepalive"), native_metrics, watchdog]) == (
        "exporter and watchdog both write /a/b.prom; give each job a file of its own"
    )


def test_each_job_is_a_command() -> None:
    assert set(JOBS) <= set(cli.COMMANDS)
    assert set(JOBS) - set(DEFAULT_JOBS) == {"capture"}


@pytest.mark.parametrize("job", JOBS)
def test_the_default_metrics_path_is_that_of_the_job(job: str) -> None:
    parser = cli._command_parser(job)
    path = parser.get_default("default_metrics_path")
    assert path == METRICS.get(job)
    assert job == "capture" or settings(job).output == path


def test_the_default_socket_is_that_of_the_jobs() -> None:
    """But not through the link that is `/var/run`: the sandbox hides `/var`."""
    assert f"/var{SOCKET}" == defaults.SOCKET


def test_the_defaults_of_the_watchdog_are_those_of_its_command_line() -> None:
    watchdog = cli._command_parser("watchdog")
    for name in ("max_relay_seconds", "cooldown_seconds"):
        assert duration.parse(DEFAULTS[f"watchdog_{name}"]) == watchdog.get_default(name)
    for units_option, option in {
        "watchdog_exclude_peers": "exclude_peer",
        "watchdog_policy": "policy",
        "watchdog_dry_run": "dry_run",
    }.items():
        assert str(DEFAULTS[units_option]) == str(watchdog.get_default(option))
    # Options of one policy have its defaults.
    policy = GuardedPolicy()
    assert DEFAULTS["watchdog_budget"] == str(policy.budget)
    assert DEFAULTS["watchdog_remedies"] == ",".join(policy.remedies)
    assert policy.pause_file == defaults.PAUSE_FILE
    # The command knows it for the default socket only.
    assert watchdog.get_default("unit") is None
    assert DEFAULTS["watchdog_unit"] == defaults.UNIT
    assert watchdog.get_default("state_dir") == defaults.STATE_DIR == "/var/lib/tailscale-watchdog"
    assert "StateDirectory=tailscale-watchdog\n" in service("watchdog")


METRICS_OPTION: tuple[str, str | None, dict[str, object]] = (
    "metrics-path",
    "/srv/m/a.prom",
    {"metrics_path": "/srv/m/a.prom"},
)
OPTIONS: dict[str, list[tuple[str, str | None, dict[str, object]]]] = {
    "exporter": [
        METRICS_OPTION,
        ("accept-health", "*$a*", {"accept_health": ["*$a*"]}),
        ("omit-users", None, {"omit_users": True}),
    ],
    "native-metrics": [METRICS_OPTION],
    "keepalive": [
        METRICS_OPTION,
        ("exclude-peers", "$nas", {"exclude_peer": ["$nas"]}),
        ("exclude-os", "iOS", {"exclude_os": ["iOS"]}),
    ],
    "watchdog": [
        METRICS_OPTION,
        ("max-relay-seconds", "7", {"max_relay_seconds": 7}),
        ("cooldown-seconds", "8", {"cooldown_seconds": 8}),
        ("exclude-peers", "$nas", {"exclude_peer": ["$nas"]}),
        ("policy", "guarded", {"policy": "guarded"}),
        ("budget", "8", {"budget": 8}),
        ("remedies", "restart,other-port", {"remedies": ("restart", "other-port")}),
        ("dry-run", None, {"dry_run": True}),
        ("unit", "a.service", {"unit": "a.service", "restart_socket": RESTART_SOCKET}),
    ],
    "capture": [
        (
            "output",
            "/srv/c/a.ndjson",
            {"output": "/srv/c/a.ndjson", "max_size": 64 * 2**20, "keep": 5},
        ),
        ("redact", None, {"redact": True}),
    ],
}
"Options of each job, their values, and what the job reads."


@pytest.mark.parametrize("job", JOBS)
def test_a_job_reads_its_options_from_its_command_line(job: str) -> None:
    options = [
        *("--tailscale-package=/opt/ts", "--socket=/run/tailscale-a/b"),
        *(f"--{job}-extra-args=--timeout", f"--{job}-extra-args=3"),
        *(
            f"--{job}-{name}" if value is None else f"--{job}-{name}={value}"
            for name, value, _ in OPTIONS[job]
        ),
    ]
    expected: dict[str, object] = {
        "tailscale": "/opt/ts/bin/tailscale",
        "socket": "/run/tailscale-a/b",
        "timeout": 3,
    }
    for *_, read in OPTIONS[job]:
        expected |= read
    _, name, *arguments = command(service(job, *options))
    assert name == job
    assert vars(cli._command_parser(job).parse_args(arguments)).items() >= expected.items()


def test_the_watchdog_asks_where_its_helper_listens() -> None:
    units = render_units(settings("watchdog"))
    assert f"ListenStream={RESTART_SOCKET}\n" in units["tailscale-watchdog-restart.socket"]
    assert "BindReadOnlyPaths=-/run/tailscale-watchdog\n" in units["tailscale-watchdog.service"]


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        (r"/bin/a b  c", ("/bin/a", "b", "c")),
        (r"""/bin/a "b c" 'd "e"' "" """, ("/bin/a", "b c", 'd "e"', "")),
        (r"/bin/a \x41\u00e9\s\t\\ %%n $$HOME", ("/bin/a", "Aé \t\\", "%n", "$HOME")),
        (r'"/bin/a" "a\"b" "\U0001f369"', ("/bin/a", 'a"b', "\N{DOUGHNUT}")),
    ],
)
def test_the_parser_of_these_tests_reads_the_examples_of_the_manual(
    line: str, arguments: tuple[str, ...]
) -> None:
    assert exec_arguments(f"ExecStart={line}") == arguments


@pytest.mark.parametrize(
    "line",
    [
        "/bin/a %n",
        "/bin/a $HOME",
        "/bin/a ${HOME}",
        '/bin/a "b',
        "/bin/a ; /bin/b",
        "/bin/a \\",
        "/bin/a\nb",
        '/bin/a "\\u0000"',
    ],
)
def test_the_parser_of_these_tests_rejects_specifiers_variables_and_unfinished_lines(
    line: str,
) -> None:
    with pytest.raises(AssertionError):
        exec_arguments(f"ExecStart={line}")
