"""The sandbox of the units blocks all actions that a job must not perform."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.booted import UNITS
from support.hosts import JOBS, METRICS, PACKAGE, Host, hosting, require_bootable, service

PROBE = Path(__file__).with_name("probe.py").read_text()
PORT, ABSTRACT = "9", "tsfc-probe"
LISTENER = f"""
import socket, time
network = socket.create_server(("127.0.0.1", {PORT}))
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\\0{ABSTRACT}")
abstract.listen()
open("/run/listens", "w")
time.sleep(1e6)
"""
LISTENS = f"""[Service]
ExecStart={PACKAGE}/bin/python3 /opt/listener.py
ExecStartPost=/bin/sh -c 'until [ -e /run/listens ]; do sleep 0.01; done'
"""
AGENT = "[Service]\nType=oneshot\nRestart=no\nRestartForceExitStatus=\nWatchdogSec=0\n"
"Directives with which the unit of the agent runs the probe once."
PRIVATE = {f"write in {directory}" for directory in ("/home", "/root", "/tmp", "/var/tmp")}  # noqa: S108
"Attempts that may succeed, because the job has a private directory there."


@contextmanager
def probing(*options: str, jobs: Sequence[str], service_type: str = "") -> Generator[Host]:
    """Boot a host on which the units of these jobs, or of the agent, run the probe."""
    require_bootable()
    probe = f"{service_type}[Service]\nExecStart=\nExecStart={PACKAGE}/bin/python3 /opt/probe.py"
    drop_ins = {
        f"{UNITS}/{service(job)}.d/probe.conf": f"{probe} {job} {PORT} {ABSTRACT}\n" for job in jobs
    }
    secrets = {"/root/secret": "x", "/var/lib/tailscale/tailscaled.state": "x"}
    listener = {"/opt/listener.py": LISTENER, f"{UNITS}/listens.service": LISTENS}
    files = {"/opt/probe.py": PROBE} | drop_ins | listener | secrets
    with hosting(*options, files=files) as host:
        host.machine.run("systemctl", "start", "listens.service")
        yield host


@pytest.fixture(scope="module")
def probed() -> Iterator[Host]:
    """A host whose jobs run the probe."""
    with probing(jobs=JOBS) as host:
        yield host.without_timers()


def test_each_attempt_succeeds_outside_of_the_sandbox(probed: Host) -> None:
    """Otherwise a refusal inside would prove nothing."""
    outcomes = json.loads(
        probed.machine.run("python3", "/opt/probe.py", "outside", PORT, ABSTRACT).stdout
    )
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "done"} == {}


@pytest.mark.parametrize("job", JOBS)
def test_each_attempt_fails_in_the_sandbox_of_a_job(probed: Host, job: str) -> None:
    """Except that the watchdog may ask for a restart."""
    assert allowed_to(probed, job) == ({"ask for a restart"} if job == "watchdog" else set())


def test_each_attempt_fails_in_the_sandbox_of_the_agent() -> None:
    """It has the watchdog, so it may ask for a restart."""
    with probing("--agent", jobs=("agent",), service_type=AGENT) as host:
        assert allowed_to(host, "agent") == {"ask for a restart"}


def allowed_to(host: Host, job: str) -> set[str]:
    """Start the probe of a job, and return the attempts that had an effect outside."""
    host.start(job)
    outcomes = json.loads(host.said(job)[-1])
    left = host.machine.run(
        "sh", "-c", f"find / -xdev -name 'probe.{job}'; find /tmp /run /dev -name 'probe.{job}'"
    )
    assert left.stdout == ""
    return {name for name, outcome in outcomes.items() if outcome == "done"} - PRIVATE


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_not_root_and_may_only_write_its_file(probed: Host, job: str) -> None:
    """Root may change anything over tailscaled's socket (`ipn/ipnserver/server.go`)."""
    properties = probed.machine.run(
        "systemctl", "show", "--property=DynamicUser,CapabilityBoundingSet,BindPaths", service(job)
    ).stdout
    assert "DynamicUser=yes\n" in properties
    writes = job != "keepalive"
    assert (
        "CapabilityBoundingSet=cap_dac_override\n" in properties,
        f"BindPaths=-{METRICS}:{METRICS}" in properties,
    ) == (writes, writes)
