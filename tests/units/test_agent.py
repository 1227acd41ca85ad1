"""`tsfc units --agent`: the jobs in one unit, and the way there and back."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import NAMES_FROM_HELL
from support.exec_line import command
from support.processes import Completed, error_lines, run
from tsfc.cli import agent as command_line
from tsfc.cli import main as cli
from tsfc.cli.units import agent_settings, job_settings
from tsfc.shell import defaults
from tsfc.units.rendering import AGENT, AGENT_JOBS, JOBS, render_units

PACKAGE = "/opt/tsfc"
UNITS = "etc/systemd/system"
AGENT_UNIT = "tailscale-agent.service"
HELPERS = {"tailscale-watchdog-restart.socket", "tailscale-watchdog-restart@.service"}
TIMERS = {f"tailscale-{job}.{kind}" for job in AGENT_JOBS for kind in ("service", "timer")}
SOCKET_LINK = "sockets.target.wants/tailscale-watchdog-restart.socket"
AGENT_LINK = f"multi-user.target.wants/{AGENT_UNIT}"


def rendered(*options: str, jobs: tuple[str, ...] = AGENT_JOBS) -> str:
    """Text of the service of the agent."""
    parser = cli._command_parser("units")
    parsed = parser.parse_args(["--print", "--agent", f"--package={PACKAGE}", *options])
    runs = tuple(job_settings(parsed, job, (), parsed.instance) for job in jobs)
    (text,) = render_units(agent_settings(parsed, runs)).values()
    return text


def arguments_of_jobs(text: str) -> dict[str, list[str]]:
    """Arguments that the agent gives to each job, as it reads them."""
    parsed = cli._command_parser("agent").parse_args(command(text)[2:])
    return {job: getattr(parsed, f"{job}_args".replace("-", "_")) for job in parsed.jobs}


def test_the_agent_runs_the_same_jobs_as_the_command() -> None:
    assert tuple(command_line.INTERVALS) == AGENT_JOBS
    assert set(AGENT_JOBS) < set(JOBS)
    assert f"/var/lib/alloy/{command_line.AGENT_FILE}" == defaults.AGENT_PATH


@given(
    st.lists(
        st.one_of(
            st.sampled_from([text for text in NAMES_FROM_HELL.values() if "\0" not in text]),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        )
    )
)
def test_each_job_gets_the_arguments_of_its_oneshot(excluded: list[str]) -> None:
    """Whatever they contain; those that all jobs have, the agent gives to them."""
    shared = ("--tailscale-package=/opt/ts", "--socket=/run/tailscale-a/b", "--labels=a=b c")
    options = (
        *(f"--watchdog-exclude-peers={name}" for name in excluded),
        *(f"--keepalive-exclude-os={name}" for name in excluded),
        *(
            "--exporter-omit-users",
            "--watchdog-policy=guarded",
            "--exporter-extra-args=--timeout=3",
        ),
    )
    text = rendered(*shared, *options)
    parsed = cli._command_parser("units").parse_args(["--print", *shared, *options])
    of_agent = {"--tailscale", "/opt/ts/bin/tailscale", "--socket", "/run/tailscale-a/b"}
    of_agent |= {"--label", "a=b c"}
    for job, arguments in arguments_of_jobs(text).items():
        oneshot = command(render_units(job_settings(parsed, job, ()))[f"tailscale-{job}.service"])
        assert arguments == [part for part in oneshot[2:] if part not in of_agent]
    assert of_agent <= set(command(text))


def test_the_agent_has_the_intervals_of_the_jobs() -> None:
    arguments = command(rendered("--keepalive-interval=1min 5s"))
    intervals = {job: arguments[arguments.index(f"--{job}-interval") + 1] for job in AGENT_JOBS}
    assert intervals == {
        "exporter": "30s",
        "native-metrics": "15s",
        "keepalive": "1min 5s",
        "watchdog": "1min",
    }


def test_the_sandbox_shows_what_the_jobs_need() -> None:
    lines = rendered(
        "--exporter-metrics-path=/srv/a/e.prom", "--watchdog-metrics-path=/srv/b/w.prom"
    ).splitlines()
    assert [line for line in lines if line.startswith("BindPaths=")] == [
        "BindPaths=-/srv/a",
        "BindPaths=-/var/lib/alloy",
        "BindPaths=-/srv/b",
    ]
    # It binds the directory, because each restart of tailscaled makes a new socket.
    for path in ("/run/tailscale", "/run/systemd/journal", "/run/systemd/notify"):
        assert f"BindReadOnlyPaths=-{path}" in lines


def test_without_the_watchdog_nothing_of_it_is_shown() -> None:
    without = rendered(jobs=("exporter", "keepalive"))
    assert "tailscale-watchdog" in rendered()
    assert "watchdog" not in without
    assert "StateDirectory" not in without


def test_in_the_own_directory_only_the_watchdog_needs_a_capability() -> None:
    own = tuple(
        f"--{name}-metrics-path=/var/lib/tsfc/{name}.prom"
        for name in ("exporter", "native-metrics", "watchdog", "agent")
    )
    without = rendered(*own, jobs=("exporter", "native-metrics", "keepalive"))
    assert "CAP_DAC_OVERRIDE" not in without
    assert "BindPaths=-/var/lib/tsfc\nSupplementaryGroups=tsfc\n\n[Install]\n" in without
    assert "AmbientCapabilities=CAP_DAC_OVERRIDE\n" in rendered(*own)


def test_the_agent_starts_after_tailscaled_and_does_not_stop_with_it() -> None:
    lines = rendered().splitlines()
    assert "After=tailscaled.service" in lines
    assert not [
        line
        for line in lines
        if line.startswith(("Requires=", "Requisite=", "BindsTo=", "PartOf=", "Wants="))
    ]


@pytest.fixture
def root(box: Path) -> Path:
    """Root of an empty file system."""
    root = box / "root"
    root.mkdir()
    return root


def units(root: Path, *arguments: str, action: str = "install") -> Completed:
    return run("units", f"--{action}", "--root", str(root), *arguments)


def install(root: Path, *arguments: str) -> list[str]:
    """Install, which must succeed without a warning, and return the printed lines."""
    ran = units(root, f"--package={PACKAGE}", *arguments)
    assert (ran.status, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


def names(root: Path) -> set[str]:
    """Names of the installed units and links."""
    top = root / UNITS
    return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir()}


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


WITH_AGENT = {AGENT_UNIT, AGENT_LINK, SOCKET_LINK, *HELPERS}
WITH_TIMERS = {
    *TIMERS,
    *HELPERS,
    SOCKET_LINK,
    *(f"timers.target.wants/tailscale-{job}.timer" for job in AGENT_JOBS),
}


def test_a_switch_either_way_leaves_no_unit_of_the_other_kind(root: Path) -> None:
    options = ("--watchdog-exclude-peers=a b", "--exporter-interval=7min")
    install(root, *options)
    with_timers = tree(root)
    assert names(root) == WITH_TIMERS
    lines = install(root, "--agent")
    assert names(root) == WITH_AGENT
    assert {f"removed {root}/{UNITS}/{name}" for name in WITH_TIMERS - WITH_AGENT} <= set(lines)
    assert f"enabled {AGENT_UNIT}" in lines
    assert "kept '--watchdog-exclude-peers=a b' for watchdog" in lines
    text = (root / UNITS / AGENT_UNIT).read_text()
    assert "--exclude-peer" in arguments_of_jobs(text)["watchdog"]
    assert ("--exporter-interval", "7min") in zip(command(text), command(text)[1:], strict=False)

    # Without --agent it stays.
    lines = install(root)
    assert f"kept --agent for {', '.join(AGENT_JOBS)}" in lines
    assert (root / UNITS / AGENT_UNIT).read_text() == text

    install(root, "--unset=agent")
    assert names(root) == WITH_TIMERS
    assert tree(root) == with_timers


def test_a_reset_goes_back_to_timers(root: Path) -> None:
    install(root, "--agent")
    install(root, "--reset")
    assert names(root) == WITH_TIMERS


def test_all_installed_jobs_move_together_and_capture_keeps_its_timer(root: Path) -> None:
    capture = {"tailscale-capture.service", "tailscale-capture.timer"}
    capture |= {"timers.target.wants/tailscale-capture.timer"}
    install(root, "exporter", "keepalive", "capture", "--keepalive-interval=20s")
    install(root, "exporter", "--agent")
    assert names(root) == {AGENT_UNIT, AGENT_LINK, *capture}
    text = (root / UNITS / AGENT_UNIT).read_text()
    assert list(arguments_of_jobs(text)) == ["exporter", "keepalive"]
    assert '"20s"' in text
    install(root, "capture", "--capture-redact")
    assert (root / UNITS / AGENT_UNIT).read_text() == text
    # A job that is installed later joins the agent.
    install(root, "native-metrics")
    joined = (root / UNITS / AGENT_UNIT).read_text()
    assert list(arguments_of_jobs(joined)) == ["exporter", "native-metrics", "keepalive"]
    install(root, "keepalive", "--unset=agent")
    assert AGENT_UNIT not in names(root)
    assert {"tailscale-exporter.timer", "tailscale-keepalive.timer", *capture} <= names(root)


def test_a_reset_of_one_job_of_the_agent_keeps_the_options_of_the_others(root: Path) -> None:
    install(root, "--agent", "--exporter-interval=7min", "--keepalive-interval=20s")
    install(root, "exporter", "--reset")
    assert names(root) == WITH_AGENT
    text = (root / UNITS / AGENT_UNIT).read_text()
    assert '"7min"' not in text
    assert '"20s"' in text


def with_metrics(root: Path) -> dict[str, str]:
    """Write the metrics files of all jobs, and return the tree."""
    directory = root / "var/lib/alloy"
    directory.mkdir(parents=True)
    for name in ("agent", "peers", "native", "watchdog"):
        (directory / f"tailscale-{name}.prom").write_text("")
    return tree(root)


def test_uninstall_removes_both_kinds(root: Path) -> None:
    before = with_metrics(root)
    install(root, "--agent")
    (root / UNITS / "tailscale-exporter.timer").write_text(
        "# Written by `tsfc units --install`, before an interrupted switch\n"
    )
    ran = units(root, action="uninstall")
    assert (ran.status, ran.stderr, tree(root), names(root)) == (0, "", before, set())
    for name in ("agent", "peers", "native", "watchdog"):
        assert f"kept {root}/var/lib/alloy/tailscale-{name}.prom; delete it" in ran.stdout


def test_a_job_of_the_agent_can_be_uninstalled_alone(root: Path) -> None:
    with_metrics(root)
    install(root, "--agent", "--keepalive-interval=20s")
    ran = units(root, "exporter", "watchdog", action="uninstall")
    assert (ran.status, ran.stderr) == (0, "")
    assert names(root) == {AGENT_UNIT, AGENT_LINK}
    text = (root / UNITS / AGENT_UNIT).read_text()
    assert list(arguments_of_jobs(text)) == ["native-metrics", "keepalive"]
    assert '"20s"' in text
    kept = [line for line in ran.stdout.splitlines() if "delete it" in line]
    assert [line.partition(";")[0].rpartition("/")[2] for line in kept] == [
        "tailscale-peers.prom",
        "tailscale-watchdog.prom",
    ]
    assert units(root, "native-metrics", "keepalive", action="uninstall").status == 0
    assert names(root) == set()


def test_a_job_that_the_agent_does_not_run_is_uninstalled_as_before(root: Path) -> None:
    install(root, "--agent")
    install(root, "capture")
    before = (root / UNITS / AGENT_UNIT).read_text()
    assert units(root, "capture", action="uninstall").status == 0
    assert (root / UNITS / AGENT_UNIT).read_text() == before
    assert names(root) == WITH_AGENT


def test_an_instance_has_an_agent_of_its_own(root: Path) -> None:
    install(root, "--agent")
    install(
        root,
        *("--agent", "--instance=work", "--socket=/run/tailscale-work/tailscaled.sock"),
        "--watchdog-unit=work.service",
    )
    text = (root / UNITS / "tailscale-agent-work.service").read_text()
    arguments = command(text)
    parsed = cli._command_parser("agent").parse_args(arguments[2:])
    assert parsed.instance == "work"
    assert parsed.label == {"tailscaled": "work"}
    assert parsed.metrics_path == "/var/lib/alloy/tailscale-agent-work.prom"
    assert "--state-dir /var/lib/tailscale-watchdog-work" in shlex.join(parsed.watchdog_args)
    for line in (
        "After=tailscale-watchdog-restart-work.socket",
        "BindReadOnlyPaths=-/run/tailscale-watchdog-work",
        "StateDirectory=tailscale-watchdog-work",
        "SyslogIdentifier=tailscale-agent-work",
    ):
        assert f"\n{line}\n" in text
    assert names(root) > WITH_AGENT
    units(root, "--instance=work", action="uninstall")
    assert names(root) == WITH_AGENT


@pytest.mark.parametrize("options", [[], ["--agent-adaptive-keepalive"]])
def test_adaptive_keepalive_is_an_option_of_the_agent(root: Path, options: list[str]) -> None:
    install(root, "--agent", *options)
    text = (root / UNITS / AGENT_UNIT).read_text()
    parsed = cli._command_parser("agent").parse_args(command(text)[2:])
    assert parsed.adaptive_keepalive is bool(options)


AGENT_SOCKET = "tailscale-agent.socket"
AGENT_SOCKET_LINK = f"sockets.target.wants/{AGENT_SOCKET}"


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9199", "[fd7a:115c:a1e0::1]:9199", "100.64.0.7:80", "/run/tsfc/a.sock"]
)
def test_an_agent_that_listens_gets_its_socket_from_systemd(root: Path, address: str) -> None:
    """Its sandbox has no network, so it cannot open the socket."""
    install(root, "--agent")
    without = (root / UNITS / AGENT_UNIT).read_text()
    lines = install(root, f"--agent-listen={address}")
    assert f"enabled {AGENT_SOCKET}" in lines
    assert names(root) == {*WITH_AGENT, AGENT_SOCKET, AGENT_SOCKET_LINK}
    text = (root / UNITS / AGENT_UNIT).read_text()
    parsed = cli._command_parser("agent").parse_args(command(text)[2:])
    assert (parsed.listen, parsed.listen_anywhere) == ("systemd", False)
    assert f"[Unit]\nWants={AGENT_SOCKET}\nPartOf={AGENT_SOCKET}\nAfter={AGENT_SOCKET}\n" in text
    assert "\nPrivateNetwork=yes\n" in text
    assert f"\nListenStream={address}\n" in (root / UNITS / AGENT_SOCKET).read_text()

    lines = install(root, "--unset=agent-listen")
    assert f"removed {root}/{UNITS}/{AGENT_SOCKET}" in lines
    assert names(root) == WITH_AGENT
    assert (root / UNITS / AGENT_UNIT).read_text() == without


@pytest.mark.parametrize("back", [["--unset=agent"], ["--reset"]])
def test_a_switch_to_timers_removes_the_socket_of_the_agent(root: Path, back: list[str]) -> None:
    install(root, "--agent", "--agent-listen=127.0.0.1:9199")
    install(root, *back)
    assert names(root) == WITH_TIMERS


def test_uninstall_removes_the_socket_of_the_agent(root: Path) -> None:
    install(root, "--agent", "--agent-listen=127.0.0.1:9199")
    units(root, "exporter", action="uninstall")
    assert {AGENT_SOCKET, AGENT_SOCKET_LINK} < names(root)
    units(root, action="uninstall")
    assert names(root) == set()


def test_an_instance_listens_on_a_socket_of_its_own(root: Path) -> None:
    socket = "tailscale-agent-work.socket"
    install(
        root,
        *("exporter", "--agent", "--instance=work", "--socket=/run/tailscale-work/tailscaled.sock"),
        "--agent-listen=127.0.0.1:9200",
    )
    text = (root / UNITS / "tailscale-agent-work.service").read_text()
    assert f"[Unit]\nWants={socket}\nPartOf={socket}\nAfter={socket}\n" in text
    assert "tailscale-agent-work.service" in (root / UNITS / socket).read_text()
    assert f"sockets.target.wants/{socket}" in names(root)


def test_any_address_is_possible_if_it_is_asked_for(root: Path) -> None:
    install(root, "--agent", "--agent-listen=192.168.0.1:9199", "--agent-listen-anywhere")
    assert AGENT_SOCKET in names(root)


def test_a_foreign_unit_of_the_other_kind_stays(root: Path) -> None:
    own = root / UNITS / "tailscale-exporter.timer"
    own.parent.mkdir(parents=True)
    own.write_text("[Timer]\n")
    install(root, "--agent")
    assert own.read_text() == "[Timer]\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--agent-metrics-path=/srv/m/a.prom"],
            "--agent-metrics-path is an option of the agent; give --agent",
        ),
        (
            ["--agent-adaptive-keepalive"],
            "--agent-adaptive-keepalive is an option of the agent; give --agent",
        ),
        (
            ["--agent-listen=127.0.0.1:9199"],
            "--agent-listen is an option of the agent; give --agent",
        ),
        (
            ["--agent", "--agent-listen=0.0.0.0:9199"],
            (
                "--agent-listen 0.0.0.0:9199: everybody in that network could read it; "
                "use 127.0.0.1 or a Tailscale IP, or add --agent-listen-anywhere"
            ),
        ),
        (
            ["--agent", "--agent-listen-anywhere"],
            (
                "--agent-listen-anywhere has no effect without --agent-listen; give it, too, "
                "or drop a kept option with --unset agent-listen-anywhere"
            ),
        ),
        (
            ["--agent", "--keepalive-interval=500ms"],
            "--keepalive-interval 500ms: the agent needs 1s or more",
        ),
        (
            ["--agent", "--agent-metrics-path=/var/lib/alloy/tailscale-peers.prom"],
            (
                "exporter and agent both write /var/lib/alloy/tailscale-peers.prom; "
                "give each job a file of its own"
            ),
        ),
        (
            ["capture", "--agent"],
            "--agent has no effect: its job is not one of capture; name the job, too",
        ),
    ],
)
def test_what_the_agent_cannot_do_is_reported_in_one_line(
    root: Path, arguments: list[str], says: str
) -> None:
    ran = units(root, f"--package={PACKAGE}", *arguments)
    assert (error_lines("units", ran), ran.status, ran.stdout, any(root.iterdir())) == (
        [says],
        2,
        "",
        False,
    )


def test_the_jobs_of_an_agent_share_what_one_process_has_once(root: Path) -> None:
    install(root, "--agent")
    before = tree(root)
    ran = units(root, "exporter", f"--package={PACKAGE}", "--labels=a=b")
    assert error_lines("units", ran) == [
        (
            "the jobs of the agent are one process, but differ in --labels; "
            "give it without the names of jobs, to set it for all"
        )
    ]
    assert (ran.status, tree(root)) == (2, before)
    install(root, "--labels=a=b")
    assert "--label" in command((root / UNITS / AGENT_UNIT).read_text())


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("# Options of exporter: {", "# Options of exporter: [", "the record is damaged"),
        ("# Options of ", "# ", "there is no record of them"),
    ],
)
def test_a_damaged_record_of_the_agent_changes_nothing(
    root: Path, old: str, new: str, problem: str
) -> None:
    install(root, "--agent")
    service = root / UNITS / AGENT_UNIT
    service.write_text(service.read_text().replace(old, new))
    before = tree(root)
    ran = units(root)
    (complaint,) = error_lines("units", ran)
    assert problem in complaint
    assert str(service) in complaint
    assert (ran.status, tree(root)) == (1, before)
    install(root, "--reset", "--agent")
    assert names(root) == WITH_AGENT


def test_print_shows_the_agent_and_no_timer(root: Path) -> None:
    ran = units(root, "--agent", f"--package={PACKAGE}", action="print")
    assert f"# /{UNITS}/{AGENT_UNIT}\n{rendered()}" in ran.stdout
    assert "OnUnitActiveSec" not in ran.stdout
    assert AGENT in ran.stdout
