"""The agent under systemd: one unit instead of the timers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.hosts import FILES, JOBS, METRICS, STATE, Host, hosting, require_bootable, service
from support.processes import wait_until

AGENT = "tailscale-agent.service"
TAILSCALED = "tailscaled.service"
MOST_EXPOSURE = 2.0
QUICK = tuple(f"--{job}-interval=1s" for job in JOBS)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host with all jobs in the agent."""
    require_bootable()
    with hosting("--agent", *QUICK, "--watchdog-max-relay-seconds=5") as host:
        yield host


def pid(host: Host) -> str:
    return host.machine.show(AGENT, "MainPID")


def exported_at(host: Host, name: str) -> float:
    """Return when a metrics file was written; 0 if there is none."""
    path = host.machine.path(f"{METRICS}/tailscale-{name}.prom")
    return path.stat().st_mtime if path.exists() else 0


def wait_for_runs(host: Host) -> None:
    """Wait until each job has written its file again, and tailscaled is up."""
    before = {name: exported_at(host, name) for name in FILES.values()}
    wait_until(
        lambda: all(exported_at(host, name) > at for name, at in before.items()),
        "all jobs have run",
    )
    wait_until(lambda: host.exported("peers")["tailscale_up"] == 1, "tailscaled is up")


def wait_for_other_agent(host: Host, before: str) -> None:
    wait_until(
        lambda: (
            pid(host) not in {before, "0"} and host.machine.show(AGENT, "ActiveState") == "active"
        ),
        "another agent runs",
    )


def test_the_agent_writes_the_metrics_of_all_jobs_and_its_own(host: Host) -> None:
    wait_for_runs(host)
    wait_until(lambda: exported_at(host, "agent"), "the agent has written its own metrics")
    assert host.exported("agent")["tailscale_agent_resident_memory_bytes"] > 0
    assert host.machine.show(AGENT, "StatusText") == "peers: 1 direct, 1 derp"
    assert host.machine.show(AGENT, "Type") == "notify"
    assert host.machine.show(AGENT, "WatchdogUSec") == "1min"
    assert host.machine.run("systemctl", "is-enabled", AGENT).stdout == "enabled\n"
    assert host.failed_units() == []


def test_lines_have_the_identifier_of_their_job(host: Host) -> None:
    wait_until(lambda: host.said("watchdog"), "the watchdog says something")
    assert host.said("watchdog")[0] == "DETECTED: rpi3 transitioned to relay"
    # The lines are of the unit of the agent, too.
    of_unit = host.machine.journal(f"--unit={AGENT}", "--identifier=tailscale-watchdog")
    assert of_unit[0] == "DETECTED: rpi3 transitioned to relay"
    assert not [line for line in host.said("agent") if "DETECTED" in line]


def test_its_unit_is_valid(host: Host) -> None:
    unit = f"/etc/systemd/system/{AGENT}"
    assert host.machine.run("systemd-analyze", "verify", unit) == (0, "", "")


def test_it_is_as_little_exposed_as_a_job(host: Host) -> None:
    analyzed = host.machine.run("systemd-analyze", "security", AGENT).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", analyzed)
    assert found
    assert float(found[1]) <= MOST_EXPOSURE


def test_it_is_not_root(host: Host) -> None:
    status = host.machine.path(f"/proc/{pid(host)}/status").read_text()
    assert re.search(r"^CapEff:\t0*2$", status, re.MULTILINE)
    (uid,) = re.findall(r"^Uid:\t(\d+)", status, re.MULTILINE)
    assert int(uid) >= 61184


def test_a_killed_agent_is_started_again(host: Host) -> None:
    before = pid(host)
    host.machine.run("kill", "-9", before)
    wait_for_other_agent(host, before)
    wait_for_runs(host)
    host.machine.run("systemctl", "reset-failed")


def test_a_hung_agent_is_started_again(host: Host) -> None:
    quick = "[Service]\nWatchdogSec=2s\nRestartSec=100ms\n"
    with host.overridden(AGENT, quick):
        host.machine.run("systemctl", "restart", AGENT)
        before = pid(host)
        host.machine.run("kill", "-STOP", before)
        wait_for_other_agent(host, before)
        wait_for_runs(host)
    host.machine.run("systemctl", "restart", AGENT)
    assert any("Watchdog timeout" in line for line in host.machine.journal(f"--unit={AGENT}"))


def test_a_restart_of_tailscaled_replaces_its_directory_and_the_agent_sees_the_new_one(
    host: Host,
) -> None:
    """Nobody restarts the agent: it ends, and its unit starts it again."""
    wait_for_runs(host)
    before = pid(host)
    host.machine.run("systemctl", "restart", TAILSCALED)
    wait_for_other_agent(host, before)
    wait_for_runs(host)
    assert host.machine.show(AGENT, "Result") == "success"
    assert any("/run/tailscale was replaced or is missing" in line for line in host.said("agent"))
    assert host.failed_units() == []


@pytest.mark.parametrize("directory", [METRICS, STATE])
def test_an_agent_whose_directory_was_replaced_sees_the_new_one(host: Host, directory: str) -> None:
    wait_for_runs(host)
    before = pid(host)
    real = host.machine.run("readlink", "-f", directory).stdout.strip()
    host.machine.run("rm", "-r", real)
    if directory == METRICS:
        host.machine.run("mkdir", real)
    wait_for_other_agent(host, before)
    wait_for_runs(host)
    host.machine.run("test", "-s", f"{STATE}/state.json")
    assert any(f"{directory} was replaced" in line for line in host.said("agent"))
    assert host.failed_units() == []


def test_a_stop_of_tailscaled_does_not_stop_the_agent(host: Host) -> None:
    host.machine.run("systemctl", "stop", TAILSCALED)
    try:
        wait_until(lambda: host.exported("peers")["tailscale_up"] == 0, "the exporter says so")
    finally:
        host.machine.run("systemctl", "start", TAILSCALED)
    host.machine.run("systemctl", "restart", AGENT)
    wait_for_runs(host)


def test_the_watchdog_in_the_agent_restarts_tailscaled_through_its_helper() -> None:
    require_bootable()
    with hosting("--agent", *QUICK, "--watchdog-max-relay-seconds=1") as host:
        before = host.machine.show(TAILSCALED, "InvocationID")
        wait_until(
            lambda: any(line.startswith("COOLDOWN") for line in host.said("watchdog")),
            "the cooldown has begun",
        )
        assert host.machine.show(TAILSCALED, "InvocationID") != before
        assert host.exported("watchdog")["tailscale_watchdog_restarts_total"] == 1
        assert not [line for line in host.said("watchdog") if "ended before" in line]
        assert host.failed_units() == []


SOCKET = "tailscale-agent.socket"
ASK = """
import http.client, socket, sys
address = sys.argv[1]
is_path = address.startswith("/")
connection = http.client.HTTPConnection("localhost" if is_path else address, timeout=30)
if is_path:
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(address)
connection.request("GET", "/healthz")
print(connection.getresponse().status)
"""


def healthz(host: Host, address: str) -> str:
    """Return the status of the answer of the agent; an empty text if there is none."""
    return host.machine.run("python3", "-c", ASK, address, check=False).stdout.strip()


def wait_until_healthy(host: Host, address: str) -> None:
    wait_until(lambda: healthz(host, address) == "200", f"the agent answers on {address}")


def test_the_agent_answers_requests_without_a_network() -> None:
    require_bootable()
    with hosting("--agent", *QUICK, "--agent-listen=127.0.0.1:9199") as host:
        wait_until_healthy(host, "127.0.0.1:9199")
        assert host.machine.show(AGENT, "PrivateNetwork") == "yes"
        for unit in (AGENT, SOCKET):
            path = f"/etc/systemd/system/{unit}"
            assert host.machine.run("systemd-analyze", "verify", path) == (0, "", "")

        # The socket outlives the process.
        before = pid(host)
        host.machine.run("kill", "-9", before)
        wait_for_other_agent(host, before)
        wait_until_healthy(host, "127.0.0.1:9199")
        host.machine.run("systemctl", "reset-failed")

        # A request starts the agent, unless the socket is stopped, too.
        host.machine.run("systemctl", "stop", AGENT)
        wait_until_healthy(host, "127.0.0.1:9199")
        host.machine.run("systemctl", "stop", SOCKET)
        assert host.machine.show(AGENT, "ActiveState") == "inactive"
        assert healthz(host, "127.0.0.1:9199") == ""
        host.machine.run("systemctl", "start", AGENT)
        wait_until_healthy(host, "127.0.0.1:9199")
        assert host.failed_units() == []


def test_a_request_starts_an_agent_that_refuses_its_arguments_only_once() -> None:
    """Without `FlushPending=`, the request would start it again and again."""
    require_bootable()
    refusing = "[Service]\nType=exec\nExecStart=\nExecStart=/bin/sh -c 'exit 2'\n"
    with hosting("--agent", *QUICK, "--agent-listen=127.0.0.1:9199") as host:
        wait_until_healthy(host, "127.0.0.1:9199")
        host.machine.run("systemctl", "stop", AGENT)
        with host.overridden(AGENT, refusing):
            assert healthz(host, "127.0.0.1:9199") == ""

            def ends() -> list[str]:
                lines = host.machine.journal(f"--unit={AGENT}")
                return [line for line in lines if "status=2" in line]

            wait_until(ends, "the agent has ended")
            assert len(ends()) == 1
            assert host.machine.show(SOCKET, "ActiveState") == "active"


CONNECT = "import socket; socket.create_connection(('127.0.0.1', 9199))"
HOLD = "import socket, time; server = socket.create_server(('127.0.0.1', 9199)); time.sleep(1000)"


def test_an_address_that_another_program_uses_costs_only_http() -> None:
    """The jobs run, and a restart of the agent opens the address once it is free."""
    require_bootable()
    with hosting("--agent", *QUICK) as host:
        host.machine.run("systemd-run", "--unit=holder", "python3", "-c", HOLD)
        wait_until(
            lambda: host.machine.run("python3", "-c", CONNECT, check=False).status == 0,
            "the address is used",
        )
        failed = host.tsfc("units", "--install", "--agent-listen=127.0.0.1:9199", check=False)
        assert failed.status == 1
        assert f" {SOCKET}`: exit status 1: Job failed" in failed.stderr
        wait_for_runs(host)
        assert host.failed_units() == [SOCKET]
        assert host.said("agent")[-1] == (
            "tsfc agent: listening on systemd: systemd passed 0 sockets, not 1; see "
            f"`systemctl status {SOCKET}`, then restart the agent. The jobs run without HTTP"
        )

        # As after a boot.
        host.machine.run("systemctl", "stop", AGENT)
        host.machine.run("systemctl", "start", AGENT)
        wait_for_runs(host)

        host.machine.run("systemctl", "stop", "holder")
        host.machine.run("systemctl", "restart", AGENT)
        wait_until_healthy(host, "127.0.0.1:9199")
        assert host.failed_units() == []


def test_each_change_of_the_address_takes_effect_at_once() -> None:
    require_bootable()
    with hosting("--agent", *QUICK) as host:
        for address in ("127.0.0.1:9199", "127.0.0.1:9200", "/run/tsfc/agent.sock"):
            host.tsfc("units", "--install", f"--agent-listen={address}")
            wait_until_healthy(host, address)
        assert healthz(host, "127.0.0.1:9199") == healthz(host, "127.0.0.1:9200") == ""
        assert host.machine.run("stat", "-c%a %U", "/run/tsfc/agent.sock").stdout == "600 root\n"

        host.tsfc("units", "--install", "--agent-listen=/run/tsfc/other.sock")
        wait_until_healthy(host, "/run/tsfc/other.sock")
        assert host.machine.run("ls", "/run/tsfc").stdout == "other.sock\n"

        # An address of Tailscale that this host does not have yet.
        host.tsfc("units", "--install", "--agent-listen=100.64.0.99:9199")
        assert host.machine.show(SOCKET, "ActiveState") == "active"
        assert host.machine.show(AGENT, "ActiveState") == "active"

        assert host.machine.run("ls", "/run/tsfc").stdout == ""

        host.tsfc("units", "--install", "--unset=agent-listen")
        assert host.machine.show(SOCKET, "LoadState") == "not-found"
        assert host.machine.show(SOCKET, "ActiveState") == "inactive"
        assert host.machine.show(AGENT, "ActiveState") == "active"

        host.tsfc("units", "--install", "--agent-listen=127.0.0.1:9199")
        wait_until_healthy(host, "127.0.0.1:9199")
        host.tsfc("units", "--uninstall")
        assert healthz(host, "127.0.0.1:9199") == ""
        assert host.machine.show(SOCKET, "ActiveState") == "inactive"
        assert host.failed_units() == []


def active(host: Host) -> set[str]:
    """Return the active units of tsfc that stay."""
    listed = host.machine.run(
        "systemctl",
        *("list-units", "--plain", "--no-legend", "--state=active", "tailscale-*"),
    ).stdout
    names = {line.split()[0] for line in listed.splitlines()}
    return {name for name in names if name.endswith(".timer") or name == AGENT}


def test_a_switch_to_the_agent_and_back_leaves_nothing_of_the_other_kind() -> None:
    require_bootable()
    timers = {f"tailscale-{job}.timer" for job in JOBS}
    with hosting("--watchdog-max-relay-seconds=999") as host:
        assert active(host) == timers
        host.start("watchdog")
        host.tsfc("units", "--install", "--agent")
        assert active(host) == {AGENT}
        wait_for_runs(host)
        # The time on relay goes on.
        wait_until(
            lambda: any(line.startswith("WAITING: rpi3") for line in host.said("watchdog")),
            "the watchdog of the agent knows the relay",
        )
        assert len([line for line in host.said("watchdog") if "DETECTED" in line]) == 1
        for job in JOBS:
            assert host.machine.show(service(job), "LoadState") == "not-found"

        host.tsfc("units", "--install", "--unset=agent")
        assert active(host) == timers
        assert host.machine.show(AGENT, "LoadState") == "not-found"
        assert host.machine.show(AGENT, "ActiveState") == "inactive"
        host.start("watchdog")
        assert host.said("watchdog")[-1].startswith("WAITING: rpi3")
        assert host.failed_units() == []

        host.tsfc("units", "--install", "--agent")
        host.tsfc("units", "--uninstall")
        assert active(host) == set()
        left = host.machine.run("find", "/etc/systemd/system", "-name", "tailscale-*")
        assert left.stdout == ""
