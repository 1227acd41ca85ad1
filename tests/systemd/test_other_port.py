"""The helper restarts tailscaled on another port, for one start."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.booted import UNITS
from support.hosts import CAPTURE, SOCKET, TSFC, Host, hosting, require_bootable
from systemd.test_restart import (
    COOLDOWN_SECONDS,
    STAMP,
    TAILSCALED_SERVICE,
    age_restart,
    ask,
    invocation,
    set_state,
)
from tsfc.core.watchdog.memory import Memory, PeerMemory
from tsfc.core.watchdog.state import Relay, State, encode
from tsfc.shell import clocks

INSTALL = (
    "--watchdog-max-relay-seconds=0",
    "--watchdog-policy=guarded",
    "--watchdog-remedies=restart,other-port",
)
PORT_FILE = "/run/tailscale-watchdog-restart/port.env"
SERVICE = f"""[Service]
RuntimeDirectory=tailscale
ExecStart=/bin/sh -c 'echo "$$*" >/run/port; exec {TSFC} stand-in --capture {CAPTURE} --socket {SOCKET}' sh --port=${{PORT}} $FLAGS
ExecStartPost=/bin/sh -c 'until [ -S {SOCKET} ]; do sleep 0.01; done'
TimeoutStopSec=5s
"""
"A stand-in that writes the arguments which tailscaled would get to /run/port."
DEBIAN = {
    "/etc/default/tailscaled": 'PORT="41641"\nFLAGS=""\n',
    f"{UNITS}/tailscaled.service": SERVICE.replace(
        "[Service]", "[Service]\nEnvironmentFile=/etc/default/tailscaled"
    ),
}
"As in Tailscale's package: `cmd/tailscaled/tailscaled.service` and `tailscaled.defaults`."
NIXOS = {
    f"{UNITS}/tailscaled.service": SERVICE,
    f"{UNITS}/tailscaled.service.d/overrides.conf": (
        '[Service]\nEnvironment="PORT=41641"\nEnvironment="FLAGS=--tun \'tailscale0\'"\n'
    ),
}
"As in nixpkgs: the package's unit without its file, and the module's variables."


@pytest.fixture(scope="module", params=[DEBIAN, NIXOS], ids=["debian", "nixos"])
def booted_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    require_bootable()
    with hosting(*INSTALL, files=request.param) as host:
        yield host.without_timers()


@pytest.fixture
def host(booted_host: Host) -> Host:
    """A host whose tailscaled runs on its own port and may be restarted at once."""
    booted_host.machine.run("rm", "-f", STAMP)
    booted_host.machine.run("systemctl", "restart", TAILSCALED_SERVICE)
    assert port(booted_host) == "41641"
    return booted_host


def port(host: Host) -> str:
    """Return the port with which tailscaled was started."""
    found = re.match("--port=([0-9]+)", host.machine.path("/run/port").read_text())
    assert found is not None
    return found[1]


def test_another_port_is_used_until_the_next_start(host: Host) -> None:
    """By a restart of the helper, or of an admin."""
    assert ask(host, "other-port\n") == "done\n"
    assert port(host) == "0"
    assert not host.machine.path(PORT_FILE).exists()
    age_restart(host, COOLDOWN_SECONDS)
    assert ask(host) == "done\n"
    assert port(host) == "41641"
    age_restart(host, COOLDOWN_SECONDS)
    assert ask(host, "other-port\n") == "done\n"
    assert port(host) == "0"
    host.machine.run("systemctl", "restart", TAILSCALED_SERVICE)
    assert port(host) == "41641"


def test_a_file_that_a_killed_helper_left_is_removed(host: Host) -> None:
    host.machine.path(PORT_FILE).parent.mkdir(mode=0o700, exist_ok=True)
    host.machine.path(PORT_FILE).write_text("PORT=0\n")
    assert ask(host) == "done\n"
    assert port(host) == "41641"
    assert not host.machine.path(PORT_FILE).exists()


def test_both_requests_have_one_limit(host: Host) -> None:
    assert ask(host, "other-port\n") == "done\n"
    before = invocation(host)
    for request in ((), ("restart\n",), ("other-port\n",)):
        assert "it is restarted at most once in 540 s" in ask(host, *request)
    assert (invocation(host), port(host)) == (before, "0")
    age_restart(host, COOLDOWN_SECONDS)
    assert ask(host) == "done\n"
    assert "it is restarted at most once in 540 s" in ask(host, "other-port\n")
    assert port(host) == "41641"


def test_a_stopped_unit_is_left_alone(host: Host) -> None:
    host.machine.run("systemctl", "stop", TAILSCALED_SERVICE)
    assert ask(host, "other-port\n") == (
        "tailscaled.service is stopped; a unit that was stopped on purpose is not restarted\n"
    )


def test_a_restart_that_fails_leaves_no_file(host: Host) -> None:
    with host.overridden(TAILSCALED_SERVICE, "[Service]\nExecStartPre=/bin/false\n"):
        assert "Job for tailscaled.service failed" in ask(host, "other-port\n")
    assert not host.machine.path(PORT_FILE).exists()


def without_helper(host: Host) -> str:
    """Do it as a watchdog does that runs as root, and return the outcome."""
    code = f"from tsfc.shell import systemd, waiting; print(waiting.run(systemd.restart_on_other_port('{TAILSCALED_SERVICE}')))"
    return host.machine.run("/opt/tsfc/bin/python3", "-c", code).stdout


def test_without_a_helper_the_same_is_done(host: Host) -> None:
    assert without_helper(host) == "Done()\n"
    assert port(host) == "0"
    assert not host.machine.path(PORT_FILE).exists()


def test_a_file_that_is_read_later_makes_the_change_impossible(host: Host) -> None:
    later = "[Service]\nEnvironmentFile=-/run/later.env\n"
    drop_in = host.machine.path(f"{UNITS}/{TAILSCALED_SERVICE}.d/zz.conf")
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(later)
    host.machine.run("systemctl", "daemon-reload")
    before = invocation(host)
    try:
        assert ask(host, "other-port\n") == (
            f"tailscaled.service does not read {PORT_FILE} after its other environment files\n"
        )
        assert "its last EnvironmentFile= is not port.env of the watchdog" in without_helper(host)
    finally:
        drop_in.unlink()
        host.machine.run("systemctl", "daemon-reload")
    assert invocation(host) == before


def test_a_unit_without_the_variable_cannot_be_changed(host: Host) -> None:
    fixed = "[Service]\nExecStart=\nExecStart=/bin/sleep inf --port=41641 $PORTS\n"
    before = invocation(host)
    with host.overridden(TAILSCALED_SERVICE, fixed):
        assert "does not use the variable PORT in ExecStart=" in ask(host, "other-port\n")
        assert "it does not use the variable PORT in ExecStart=" in without_helper(host)
    assert invocation(host) == before


def test_an_installation_without_the_remedy_removes_the_drop_in(host: Host) -> None:
    before = invocation(host)
    path = f"{UNITS}/tailscaled.service.d/tailscale-watchdog.conf"
    try:
        removed = host.tsfc("units", "--install", "watchdog", "--unset=watchdog-remedies")
        assert f"removed {path}\n" in removed.stdout
        host.without_timers()
        assert "does not read" in ask(host, "other-port\n")
    finally:
        host.tsfc("units", "--install", "watchdog", "--watchdog-remedies=restart,other-port")
        host.without_timers()
    assert host.machine.path(path).exists()
    assert invocation(host) == before


def test_a_pause_file_is_seen_in_the_sandbox(host: Host) -> None:
    """Root creates it with `touch`; it outlives the runs."""
    now = int(clocks.unix_time(None))
    due = State(
        relays={"rpi3": Relay(now - 1000, "nrpi3CNTRL")},
        policy="guarded",
        memory=Memory({"nrpi3CNTRL": PeerMemory(now - 2000)}, steady_since=now - 1000),
    )
    pause = "/run/tailscale-watchdog/pause"
    host.machine.run("touch", pause)
    try:
        for _ in range(2):
            set_state(host, **{"state.json": encode(due).decode()})
            host.start("watchdog")
            assert re.fullmatch(
                rf"HELD: rpi3 on relay for 1\d\d\ds, not restarting: paused by {pause}",
                host.said("watchdog")[-1],
            )
    finally:
        host.machine.run("rm", pause)
