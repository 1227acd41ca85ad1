"""The resource limits of the units: they protect the host, and jobs stay far below."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from support.hosts import CAPTURE, JOBS, PACKAGE, TSFC, Host, hosting, require_bootable, service
from support.statuses import encoded, peer

ALL_JOBS = (*JOBS, "capture")
MIB = 2**20
LIMITS = dict.fromkeys(ALL_JOBS, (512, 128)) | {"keepalive": (1024, 4096)}
"Maximum memory in MiB, and maximum number of processes and threads, by job."
MEASURED = f"""#!{PACKAGE}/bin/python3
import json, resource, subprocess, sys
status = subprocess.call(["{TSFC}.real", *sys.argv[1:]])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
with open("/proc/self/oom_score_adj") as file:
    score = int(file.read())
print(json.dumps({{"peak_mib": peak, "oom_score_adj": score}}), flush=True)
sys.exit(status)
"""
"A program that runs tsfc and prints what a limit would apply to."
CLI_PEERS = 200
PONG = "pong from p1 (100.64.0.2) via 192.0.2.7:41641 in 5ms"
CLI = f"""#!/bin/sh
case "$*" in
  *status*) cat /opt/status.json ;;
  *) sleep 1; echo '{PONG}' ;;
esac
"""
"A `tailscale` whose pings take so long that they all run at once."


@pytest.fixture(scope="module")
def crowded() -> Iterator[Host]:
    """A host in a tailnet of 10,000 peers, half of them on relay, with all jobs and without timers."""
    require_bootable()
    paths = ("direct", "derp")
    peers = (peer(f"p{number}", paths[number % 2]) for number in range(10_000))
    line = f'{{"captured_at": 0, "status": {encoded(*peers).decode()}}}\n'
    with hosting(*ALL_JOBS, files={CAPTURE: line}) as host:
        host.machine.run("systemctl", "stop", *(f"tailscale-{job}.timer" for job in ALL_JOBS))
        host.machine.run("mv", TSFC, f"{TSFC}.real")
        program = host.machine.path(TSFC)
        program.write_text(MEASURED)
        program.chmod(0o755)
        yield host


@pytest.mark.parametrize("job", ALL_JOBS)
def test_systemd_limits_memory_without_swap_and_processes_of_a_job(crowded: Host, job: str) -> None:
    memory, tasks = LIMITS[job]
    assert [
        crowded.machine.show(service(job), name)
        for name in ("MemoryMax", "MemorySwapMax", "TasksMax")
    ] == [str(memory * MIB), "0", str(tasks)]


@pytest.mark.parametrize("job", ALL_JOBS)
def test_ten_thousand_peers_need_less_than_half_of_the_memory(crowded: Host, job: str) -> None:
    """And the kernel ends the job before tailscaled if the host is out of memory."""
    crowded.start(job)
    measured = json.loads(crowded.said(job)[-1])
    assert measured["peak_mib"] < LIMITS[job][0] / 2
    assert measured["oom_score_adj"] == 1000
    assert crowded.failed_units() == []


def test_the_limits_allow_a_process_of_the_cli_for_each_of_many_peers() -> None:
    """Only on a host whose control groups count processes can this fail."""
    require_bootable()
    peers = (
        peer(f"p{number}", TailscaleIPs=[f"100.64.{number // 250}.{number % 250 + 1}"])
        for number in range(1, CLI_PEERS + 1)
    )
    files = {"/opt/tailscale/bin/tailscale": CLI, "/opt/status.json": encoded(*peers).decode()}
    options = (
        "--tailscale-package=/opt/tailscale",
        "--keepalive-extra-args=--source=cli",
        "--keepalive-metrics-path=/var/lib/alloy/tailscale-keepalive.prom",
    )
    with hosting("keepalive", *options, files=files) as host:
        host.machine.run("systemctl", "stop", "tailscale-keepalive.timer")
        host.start("keepalive")
        assert host.said("keepalive") == []
        pinged = host.exported("keepalive")['tailscale_keepalive_peers{result="direct"}']
        assert pinged == CLI_PEERS
