"""The watchdog restarts one unit, through its helper."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from support.booted import UNITS
from support.hosts import PACKAGE, STATE, TAILSCALED, Host, hosting, require_bootable, service
from support.processes import wait_until

TAILSCALED_SERVICE = "tailscaled.service"
WATCHDOG = service("watchdog")
SOCKET_UNIT = "tailscale-watchdog-restart.socket"
STAMP = "/run/tailscale-watchdog-restart/restarted"
"Seconds from boot to the last restart by the helper, and the change of the unit after it."
COOLDOWN_SECONDS = 600
LINES = r"""
DETECTED: rpi3 transitioned to relay
(WAITING: rpi3 on relay for [01]s \(threshold: 1s\)
)*RESTART: rpi3 on relay for [2-9]s, restarting tailscaled
(COOLDOWN: rpi3 exceeded threshold but in cooldown \(\d+s remaining\)
)+"""
STUCK = "1000000000\n"
"State of a peer that has been on relay since 2001."


ASK = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/tailscale-watchdog/restart.sock")
connection.sendall("".join(sys.argv[1:]).encode())
connection.shutdown(socket.SHUT_WR)
while piece := connection.recv(999):
    print(piece.decode(), end="")
"""


@pytest.fixture(scope="module")
def patient() -> Iterator[Host]:
    """A host with the default options, so tailscaled has just started."""
    require_bootable()
    with hosting() as host:
        yield host.without_timers()


@pytest.fixture(scope="module")
def booted_host() -> Iterator[Host]:
    require_bootable()
    with hosting("--watchdog-max-relay-seconds=0") as host:
        yield host.without_timers()


@pytest.fixture
def host(booted_host: Host) -> Host:
    """A host whose tailscaled runs and may be restarted at once."""
    booted_host.machine.run("rm", "-f", STAMP)
    booted_host.machine.run("systemctl", "reset-failed")
    booted_host.machine.run("systemctl", "start", TAILSCALED_SERVICE)
    return booted_host


def ask(host: Host, *request: str) -> str:
    """Ask the helper for a restart as root, or another request; return its response.

    A connection is closed without a response while systemd still cleans up the last
    helper; then ask again.
    """
    responses: list[str] = []

    def has_response() -> bool:
        responses.append(host.machine.run("python3", "-c", ASK, *request).stdout)
        return responses[-1] != ""

    wait_until(has_response, "the helper responds")
    return responses[-1]


def without_helper(host: Host) -> str:
    """Restart tailscaled as a watchdog does that runs as root, and return the outcome."""
    code = f"from tsfc.shell import systemd, waiting; print(waiting.run(systemd.restart('{TAILSCALED_SERVICE}')))"
    return host.machine.run(f"{PACKAGE}/bin/python3", "-c", code).stdout


def age_restart(host: Host, seconds: int) -> None:
    """Move the last restart by the helper back in time."""
    at, *rest = host.machine.path(STAMP).read_text().split()
    host.machine.path(STAMP).write_text(" ".join((str(int(at) - seconds), *rest)) + "\n")


def invocation(host: Host) -> str:
    """Return the ID of the current start of tailscaled."""
    return host.machine.show(TAILSCALED_SERVICE, "InvocationID")


def state(host: Host) -> str:
    """Return the state of tailscaled's unit."""
    return host.machine.show(TAILSCALED_SERVICE, "ActiveState")


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


def test_news_reach_the_program_that_is_to_be_told() -> None:
    """`cat` prints what it reads, and what it prints is in the journal."""
    require_bootable()
    with hosting("--watchdog-interval=1s", "--watchdog-notify-exec=/bin/cat") as host:
        told = ("journalctl", "-t", "tailscale-watchdog-notify", "--output=cat")
        wait_until(lambda: host.machine.run(*told).stdout != "", "the program was told")
        news = [json.loads(line) for line in host.machine.run(*told).stdout.splitlines()]
        assert [notice["line"] for notice in news] == host.said("watchdog")[: len(news)]
        assert {notice["kind"] for notice in news} == {"DETECTED"}


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
        assert host.machine.show(TAILSCALED_SERVICE, "ActiveState") == "active"
        assert counters(host) == (1, 0)
        assert host.failed_units() == []


def test_a_restart_that_fails_fails_the_run_and_starts_the_cooldown(host: Host) -> None:
    set_state(host, peer_rpi3=STUCK)
    try:
        with host.overridden(TAILSCALED_SERVICE, "[Service]\nExecStartPre=/bin/false\n"):
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
        host.machine.run("systemctl", "reset-failed", TAILSCALED_SERVICE)
        host.machine.run("systemctl", "restart", TAILSCALED_SERVICE)
    host.start("watchdog")
    assert host.said("watchdog")[-1].startswith("COOLDOWN: rpi3 ")
    assert host.failed_units() == []


def test_without_its_helper_a_run_fails_and_names_the_socket(host: Host) -> None:
    set_state(host, peer_rpi3=STUCK)
    before = invocation(host)
    host.machine.run("systemctl", "stop", SOCKET_UNIT)
    try:
        assert host.start("watchdog", check=False).status == 1
        assert (
            "see `systemctl status tailscale-watchdog-restart.socket`" in host.said("watchdog")[-1]
        )
        assert (invocation(host), counters(host)) == (before, (0, 1))
    finally:
        host.machine.run("systemctl", "start", SOCKET_UNIT)


def test_a_run_that_is_killed_during_a_restart_restarts_once() -> None:
    """The run is killed while tailscaled stops. The next run counts the restart."""
    require_bootable()
    slow = f"{TAILSCALED}ExecStop=/bin/sh -c 'until [ -e /run/go-on ]; do sleep 0.01; done'\n"
    with hosting(
        "--watchdog-max-relay-seconds=0", files={f"{UNITS}/tailscaled.service": slow}
    ) as host:
        host.without_timers()
        set_state(host, peer_rpi3=STUCK)
        before = invocation(host)
        host.machine.run("systemctl", "start", "--no-block", WATCHDOG)
        host.machine.wait_until(TAILSCALED_SERVICE, "ActiveState", "deactivating")
        host.machine.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", WATCHDOG)
        host.machine.wait_until(WATCHDOG, "ActiveState", "failed")
        host.machine.path("/run/go-on").touch()
        host.machine.wait_until(TAILSCALED_SERVICE, "ActiveState", "active")
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
    refused = host.machine.run(
        "setpriv",
        "--reuid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "python3",
        "-c",
        ASK,
        check=False,
    )
    assert "PermissionError" in refused.stderr
    before = invocation(host)
    assert ask(host) == "done\n"
    assert invocation(host) != before


SILENT = """
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/tailscale-watchdog/restart.sock")
print(connection.recv(999))
"""
"A client that sends nothing and waits, as that of tsfc 0.1."


def test_a_silent_client_asks_for_a_restart(host: Host) -> None:
    before = invocation(host)
    assert host.machine.run("python3", "-c", SILENT).stdout == "b'done\\n'\n"
    assert invocation(host) != before


@pytest.mark.parametrize(
    "request_", ["; reboot\n", "restarts\n", "x" * 100_000, "other-port; restart\n", "*\n"]
)
def test_another_request_is_refused_and_not_repeated(host: Host, request_: str) -> None:
    """A client can only ask for the remedies that the helper has."""
    before = invocation(host)
    sends = SILENT.replace("print", f"connection.sendall({request_.encode()!r})\nprint")
    assert host.machine.run("python3", "-c", sends).stdout == (
        "b'tailscaled.service is not changed: the request is neither restart nor other-port\\n'\n"
    )
    assert invocation(host) == before


def test_a_request_may_name_the_restart(host: Host) -> None:
    before = invocation(host)
    assert ask(host, "restart\n") == "done\n"
    assert invocation(host) != before


def test_the_helper_restarts_once_per_cooldown_whoever_asks(host: Host) -> None:
    """A watchdog that has lost its state cannot restart tailscaled in a loop."""
    assert ask(host) == "done\n"
    after = invocation(host)
    for _ in range(7):
        assert re.fullmatch(
            r"tailscaled\.service was restarted \d+ s ago; "
            r"it is restarted at most once in 540 s\n",
            ask(host),
        )
    assert (invocation(host), state(host)) == (after, "active")
    set_state(host, peer_rpi3=STUCK)
    assert host.start("watchdog", check=False).status == 1
    assert "tailscaled.service was restarted " in host.said("watchdog")[-1]
    assert invocation(host) == after


def test_a_request_right_after_the_cooldown_is_granted(host: Host) -> None:
    """Even if the restart itself took long: only the requests count."""
    assert ask(host) == "done\n"
    between = invocation(host)
    age_restart(host, COOLDOWN_SECONDS)
    assert ask(host) == "done\n"
    assert invocation(host) != between


def test_a_restart_that_took_longer_than_the_limit_does_not_delay_the_next_one(
    patient: Host,
) -> None:
    """The start of tailscaled is then younger than the limit, but it is the helper's."""
    patient.machine.run("systemctl", "stop", TAILSCALED_SERVICE)
    patient.machine.run("systemctl", "start", TAILSCALED_SERVICE)
    changed = patient.machine.show(TAILSCALED_SERVICE, "StateChangeTimestampMonotonic")
    uptime = int(float(patient.machine.path("/proc/uptime").read_text().split()[0]))
    stamp = patient.machine.path(STAMP)
    stamp.parent.mkdir(mode=0o700, exist_ok=True)
    stamp.write_text(f"{uptime - COOLDOWN_SECONDS} {changed}\n")
    try:
        assert ask(patient) == "done\n"
    finally:
        stamp.unlink()


def test_a_tailscaled_that_has_just_been_started_is_not_restarted(patient: Host) -> None:
    before = invocation(patient)
    assert re.fullmatch(
        r"tailscaled\.service was started \d+ s ago; "
        r"it is not restarted in the first 540 s\n",
        ask(patient),
    )
    assert invocation(patient) == before


def test_a_tailscaled_that_was_stopped_on_purpose_is_left_alone(host: Host) -> None:
    assert ask(host) == "done\n"
    age_restart(host, COOLDOWN_SECONDS)
    host.machine.run("systemctl", "stop", TAILSCALED_SERVICE)
    assert ask(host) == (
        "tailscaled.service is stopped; a unit that was stopped on purpose is not restarted\n"
    )
    assert state(host) == "inactive"


def test_a_failed_restart_can_be_repeated_after_each_cooldown(host: Host) -> None:
    with host.overridden(TAILSCALED_SERVICE, "[Service]\nExecStartPre=/bin/false\n"):
        for _ in range(3):
            assert "Job for tailscaled.service failed" in ask(host)
            host.machine.wait_until(TAILSCALED_SERVICE, "ActiveState", "failed")
            assert "was restarted" in ask(host)
            age_restart(host, COOLDOWN_SECONDS)
    assert ask(host) == "done\n"
    assert state(host) == "active"


@pytest.mark.parametrize("restart", ["helper", "systemctl"])
def test_a_unit_at_its_start_limit_is_restarted(host: Host, restart: str) -> None:
    """By the helper, and by a watchdog that runs as root without it."""
    limited = (
        "[Unit]\nStartLimitIntervalSec=1h\n"
        "[Service]\nExecStartPre=/bin/sh -c '! test -e /run/broken'\n"
    )
    broken = host.machine.path("/run/broken")
    with host.overridden(TAILSCALED_SERVICE, limited):
        broken.touch()
        host.machine.run("systemctl", "restart", TAILSCALED_SERVICE, check=False)
        host.machine.wait_until(TAILSCALED_SERVICE, "ActiveState", "failed")
        broken.unlink()
        assert host.machine.run("systemctl", "start", TAILSCALED_SERVICE, check=False).status == 1
        assert (ask(host) if restart == "helper" else without_helper(host)) in {
            "done\n",
            "Done()\n",
        }
        assert state(host) == "active"


def test_without_a_helper_a_stopped_tailscaled_is_left_alone(host: Host) -> None:
    host.machine.run("systemctl", "stop", TAILSCALED_SERVICE)
    assert "tailscaled.service is stopped" in without_helper(host)
    assert state(host) == "inactive"


def test_a_unit_that_the_last_restart_left_stopped_is_started(host: Host) -> None:
    """A restart whose dependency fails leaves the unit inactive, not failed."""
    required = f"{UNITS}/required.service"
    host.machine.path(required).write_text("[Service]\nType=oneshot\nExecStart=/bin/false\n")
    needs = "[Unit]\nRequires=required.service\nAfter=required.service\n"
    try:
        with host.overridden(TAILSCALED_SERVICE, needs):
            assert "A dependency job for tailscaled.service failed" in ask(host)
            assert state(host) == "inactive"
        # A reload of the units is not a change of the unit.
        age_restart(host, COOLDOWN_SECONDS)
        assert ask(host) == "done\n"
        assert state(host) == "active"
    finally:
        host.machine.path(required).unlink()
        host.machine.run("systemctl", "daemon-reload")


def test_a_flood_of_requests_stops_neither_the_socket_nor_tailscaled(host: Host) -> None:
    assert ask(host) == "done\n"
    before = invocation(host)
    flood = """
import socket
connections = [socket.socket(socket.AF_UNIX) for _ in range(400)]
for connection in connections:
    connection.connect("/run/tailscale-watchdog/restart.sock")
for connection in connections:
    while connection.recv(999):
        pass
"""
    host.machine.run("python3", "-c", flood)
    assert host.machine.show(SOCKET_UNIT, "ActiveState") == "active"
    assert (invocation(host), state(host)) == (before, "active")
    age_restart(host, COOLDOWN_SECONDS)
    wait_until(lambda: ask(host) == "done\n", "the helper restarts again")


def test_a_request_during_a_restart_is_refused_at_once(host: Host) -> None:
    """So two requests at the same time cannot both pass the check of the limit."""
    slow = "[Service]\nExecStop=/bin/sh -c 'until [ -e /run/go-on ]; do sleep 0.01; done'\n"
    both = (
        ASK.partition("while")[0]
        + """
second = socket.socket(socket.AF_UNIX)
second.connect("/run/tailscale-watchdog/restart.sock")
print(second.recv(999))
open("/run/go-on", "w")
print(connection.recv(999))
"""
    )
    try:
        with host.overridden(TAILSCALED_SERVICE, slow):
            assert host.machine.run("python3", "-c", both).stdout == "b''\nb'done\\n'\n"
    finally:
        host.machine.run("rm", "-f", "/run/go-on")


def test_only_root_can_change_what_the_helper_remembers(host: Host) -> None:
    assert ask(host) == "done\n"
    for path in (STAMP, STAMP.rpartition("/")[0]):
        stat = host.machine.run("stat", "--format=%U %a", path).stdout.split()
        assert stat == ["root", "600" if path == STAMP else "700"]


def test_a_helper_that_does_not_start_is_named_in_the_error(host: Host) -> None:
    set_state(host, peer_rpi3=STUCK)
    broken = "[Service]\nExecStart=\nExecStart=/nonexistent/helper\n"
    with host.overridden("tailscale-watchdog-restart@.service", broken):
        assert host.start("watchdog", check=False).status == 1
    assert host.said("watchdog")[-1].endswith(
        "the connection was closed without a response; "
        "see `journalctl -u 'tailscale-watchdog-restart*'`"
    )


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
