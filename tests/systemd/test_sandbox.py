"""The sandbox of the units blocks all actions that a job must not perform."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
PRIVATE = {f"write in {directory}" for directory in ("/home", "/root", "/tmp", "/var/tmp")}  # noqa: S108
"Attempts that may succeed, because the job has a private directory there."


@pytest.fixture(scope="module")
def probed() -> Iterator[Host]:
    """A host whose jobs run the probe."""
    require_bootable()
    probe = f"[Service]\nExecStart=\nExecStart={PACKAGE}/bin/python3 /opt/probe.py"
    drop_ins = {
        f"{UNITS}/{service(job)}.d/probe.conf": f"{probe} {job} {PORT} {ABSTRACT}\n" for job in JOBS
    }
    secrets = {"/root/secret": "x", "/var/lib/tailscale/tailscaled.state": "x"}
    listener = {"/opt/listener.py": LISTENER, f"{UNITS}/listens.service": LISTENS}
    with hosting(files={"/opt/probe.py": PROBE} | drop_ins | listener | secrets) as host:
        host.without_timers()
        host.machine.run("systemctl", "start", "listens.service")
        yield host


def test_each_attempt_succeeds_outside_of_the_sandbox(probed: Host) -> None:
    """Otherwise a refusal inside would prove nothing."""
    outcomes = json.loads(
        probed.machine.run("python3", "/opt/probe.py", "outside", PORT, ABSTRACT).stdout
    )
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "done"} == {}


@pytest.mark.parametrize("job", JOBS)
def test_each_attempt_fails_in_the_sandbox_of_a_job(probed: Host, job: str) -> None:
    """Except that the watchdog may ask for a restart."""
    probed.start(job)
    outcomes = json.loads(probed.said(job)[-1])
    allowed = {"ask for a restart"} if job == "watchdog" else set[str]()
    assert {name for name, outcome in outcomes.items() if outcome == "done"} - PRIVATE == allowed
    assert (
        probed.machine.run(
            "sh", "-c", f"find / -xdev -name 'probe.{job}'; find /tmp /run /dev -name 'probe.{job}'"
        ).stdout
        == ""
    )


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
