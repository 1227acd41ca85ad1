"""The watchdog restarts one unit, through its helper."""

from __future__ import annotations

import re

import pytest

from support.booted import UNITS
from support.hosts import STATE, TAILSCALED, Host, hosting, require_bootable, service
from support.processes import wait_until

WATCHDOG = service("watchdog")
LINES = r"""
DETECTED: rpi3 transitioned to relay
(WAITING: rpi3 on relay for [01]s \(threshold: 1s\)
)*RESTART: rpi3 on relay for [2-9]s, restarting tailscaled
(COOLDOWN: rpi3 exceeded threshold but in cooldown \(\d+s remaining\)
)+"""
STUCK = "1000000000\n"
"State of a peer that has been on relay since 2001."


def invocation(host: Host) -> str:
    """Return the ID of the current start of tailscaled."""
    return host.machine.show("tailscaled.service", "InvocationID")


def set_state(host: Host, **files: str) -> None:
    """Replace the state by these files."""
    host.machine.run("sh", "-c", f"rm -rf {STATE}/* {STATE}/.[a-z]*; mkdir -p {STATE}")
    for name, text in files.items():
        host.machine.run("tee", f"{STATE}/{name}", stdin=text.encode())


def counters(host: Host) -> tuple[float, float]:
    """Return the number of restarts and of failed ones."""
    exported = host.exported("watchdog")
    return exported["tailscale_watchdog_restarts_total"], exported[
        "tailscale_watchdog_restart_failures_total"
    ]


def test_a_peer_on_relay_causes_one_restart_and_the_documented_lines() -> None:
    require_bootable()
    with hosting("--watchdog-interval=1s", "--watchdog-max-relay-seconds=1") as host:
        before = invocation(host)
        wait_until(
            lambda: (
                len([line for line in host.said("watchdog") if line.startswith("COOLDOWN")]) >= 2
            ),
            "the cooldown has begun",
        )
        host.machine.run("systemctl", "stop", "tailscale-watchdog.timer")
        text = "\n".join(host.said("watchdog")) + "\n"
        assert re.fullmatch(LINES.removeprefix("\n"), text), text
        assert (
            host.machine.run("journalctl", "-t", "tailscale-watchdog", "--output=cat").stdout
            == text
        )
        assert invocation(host) != before
        assert host.machine.show("tailscaled.service", "ActiveState") == "active"
        assert counters(host) == (1, 0)
        assert host.failed_units() == []


def test_a_restart_that_fails_fails_the_run_and_starts_the_cooldown(host: Host) -> None:
    set_state(host, peer_rpi3=STUCK)
    try:
        with host.overridden("tailscaled.service", "[Service]\nExecStartPre=/bin/false\n"):
            host.machine.run("systemctl", "start", WATCHDOG, check=False)
            assert host.machine.show(WATCHDOG, "Result") == "exit-code"
            assert counters(host) == (0, 1)
            (complaint,) = [
                line
                for line in host.said("watchdog")
                if line.startswith("tsfc watchdog: asking for a restart")
            ]
            assert "Job for tailscaled.service failed" in complaint
    finally:
        host.machine.run("systemctl", "restart", "tailscaled.service")
    host.start("watchdog")
    assert host.said("watchdog")[-1].startswith("COOLDOWN: rpi3 ")
    assert host.failed_units() == []


def test_without_its_helper_a_run_fails_and_names_the_socket(host: Host) -> None:
    set_state(host, peer_rpi3=STUCK)
    before = invocation(host)
    host.machine.run("systemctl", "stop", "tailscale-watchdog-restart.socket")
    try:
        assert host.start("watchdog", check=False).status == 1
        assert (
            "see `systemctl status tailscale-watchdog-restart.socket`" in host.said("watchdog")[-1]
        )
        assert (invocation(host), counters(host)) == (before, (0, 1))
    finally:
        host.machine.run("systemctl", "start", "tailscale-watchdog-restart.socket")


def test_a_run_that_is_killed_during_a_restart_restarts_once() -> None:
    """The run is killed while tailscaled stops. The next run counts the restart."""
    require_bootable()
    slow = f"{TAILSCALED}ExecStop=/bin/sh -c 'until [ -e /run/go-on ]; do sleep 0.01; done'\n"
    with hosting(files={f"{UNITS}/tailscaled.service": slow}) as host:
        host.without_timers()
        set_state(host, peer_rpi3=STUCK)
        before = invocation(host)
        host.machine.run("systemctl", "start", "--no-block", WATCHDOG)
        host.machine.wait_until("tailscaled.service", "ActiveState", "deactivating")
        host.machine.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", WATCHDOG)
        host.machine.wait_until(WATCHDOG, "ActiveState", "failed")
        host.machine.path("/run/go-on").touch()
        host.machine.wait_until("tailscaled.service", "ActiveState", "active")
        after = invocation(host)
        assert after != before
        host.start("watchdog")
        assert host.said("watchdog")[-1].startswith("COOLDOWN: rpi3 ")
        assert (
            "the run that restarted tailscaled ended before it knew the outcome: counted as done"
            in "\n".join(host.said("watchdog"))
        )
        assert (invocation(host), counters(host)) == (after, (1, 0))


def test_only_root_may_ask_the_helper_for_a_restart(host: Host) -> None:
    """A connection is a request; the helper does not read from it."""
    ask = (
        "import socket; "
        "connection = socket.socket(socket.AF_UNIX); "
        "connection.connect('/run/tailscale-watchdog/restart.sock'); "
        "connection.send(b'; reboot'); "
        "print(connection.recv(99))"
    )
    refused = host.machine.run(
        "setpriv",
        "--reuid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "python3",
        "-c",
        ask,
        check=False,
    )
    assert "PermissionError" in refused.stderr
    before = invocation(host)
    assert host.machine.run("python3", "-c", ask).stdout == "b'done\\n'\n"
    assert invocation(host) != before


@pytest.mark.parametrize("owner", ["root", "daemon"])
def test_the_state_of_the_shell_scripts_is_read(host: Host, owner: str) -> None:
    """They ran as root and created a directory; systemd moves it and leaves a link."""
    host.machine.run(
        "sh",
        "-c",
        f"rm -rf /var/lib/private/tailscale-watchdog {STATE}; install -d -o {owner} {STATE}",
    )
    for name, text in {
        ".restart_count": "7\n",
        ".detection_count": "11\n",
        "peer_bravo": STUCK,
        ".last_restart": "1000000000\n",
    }.items():
        host.machine.run("tee", f"{STATE}/{name}", stdin=text.encode())
    host.start("watchdog")
    exported = host.exported("watchdog")
    assert exported["tailscale_watchdog_restarts_total"] == 7
    assert exported["tailscale_watchdog_relay_detections_total"] == 12
    assert host.said("watchdog")[-2:] == [
        "RECOVERED: bravo back to direct",
        "DETECTED: rpi3 transitioned to relay",
    ]
    assert host.machine.run("cat", f"{STATE}/.detection_count").stdout == "12\n"


def test_a_dry_run_restarts_nothing() -> None:
    require_bootable()
    with hosting("--watchdog-dry-run") as host:
        host.without_timers()
        set_state(host, peer_rpi3=STUCK)
        before = invocation(host)
        host.start("watchdog")
        assert any(line.startswith("RESTART: rpi3") for line in host.said("watchdog"))
        assert invocation(host) == before
