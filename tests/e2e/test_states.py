"""A tailscaled that is not running, not answering, or not in a tailnet: each job says so, and goes on where it is again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import NAT, Lab, Node
from support.processes import Ran, complaints, series
from support.tailnets import exported, tsfc

JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")
UP = {"exporter": "tailscale_up", "native-metrics": "tailscale_native_metrics_up"}
WAYS = ("localapi", "cli")
TIMEOUT_SECONDS = 1
LONG_AGO = "1000000000\n"


@pytest.fixture(scope="module")
def tailnet(release: str) -> Iterator[Lab]:
    with Lab(version=release, alpha=NAT.EASY, bravo=NAT.EASY) as lab:
        yield lab


@pytest.fixture
def alpha(tailnet: Lab) -> Node:
    """A node that is in its tailnet before a test, whatever the last one did."""
    node = tailnet.node("alpha")
    tailnet.wait_until(lambda: node.state() == "Running" and node.peer("bravo").get("Online"), 60)
    return node


def run_job(
    lab: Lab, job: str, box: Path, way: str = "localapi", *flags: str
) -> tuple[Ran, dict[str, float]]:
    """Runs a job, and returns what it has exported as well."""
    path = box / f"{job}.prom"
    state = ("--state-dir", str(box / "state")) if job == "watchdog" else ()
    program = ("--source", way, "--tailscale", str(lab.programs / "tailscale"))
    ran = tsfc(lab.node("alpha"), job, *program, "--metrics-path", str(path), *state, *flags)
    return ran, series(path.read_text()) if path.exists() else {}


def sees_nothing(exported: dict[str, float], job: str) -> bool:
    """Reports whether a job has exported that there was nothing to see: no peer, and no sample of before."""
    if any("peer=" in name or name.startswith("tailscaled_") for name in exported):
        return False
    return job not in UP or exported[UP[job]] == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("job", JOBS)
def test_a_daemon_that_is_stopped_and_started(
    tailnet: Lab, alpha: Node, box: Path, job: str, way: str
) -> None:
    run_job(tailnet, job, box, way)
    alpha.stop()
    try:
        ran, exported = run_job(tailnet, job, box, way)
    finally:
        alpha.start()
    (complaint,) = complaints(job, ran)
    assert ran.status == 0, ran
    assert "connect" in complaint or "No such file" in complaint
    assert sees_nothing(exported, job)

    def is_seen() -> bool:
        ran, exported = run_job(tailnet, job, box, way)
        assert ran.status == 0, ran
        return not sees_nothing(exported, job)

    tailnet.wait_until(lambda: alpha.state() == "Running" and alpha.peer("bravo").get("Online"), 60)
    if job != "keepalive":
        tailnet.wait_until(is_seen, 10)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("job", JOBS)
def test_a_daemon_that_hangs(tailnet: Lab, alpha: Node, box: Path, job: str, way: str) -> None:
    """Its socket takes the connection, and nobody answers."""
    run_job(tailnet, job, box, way)
    alpha.freeze()
    try:
        began = time.monotonic()
        ran, exported = run_job(tailnet, job, box, way, "--timeout", str(TIMEOUT_SECONDS))
        took = time.monotonic() - began
    finally:
        alpha.thaw()
    (complaint,) = complaints(job, ran)
    assert ran.status == 0, ran
    assert f"within {TIMEOUT_SECONDS} s" in complaint
    assert took < TIMEOUT_SECONDS + 5
    assert sees_nothing(exported, job)


def test_all_through_a_start_each_run_ends_well_and_shows_no_half_of_it(
    tailnet: Lab, alpha: Node, box: Path
) -> None:
    """No socket yet, then a socket and no answer, then an answer and no netmap, then the netmap."""
    path, seen = box / "peers.prom", list[tuple[float, bool]]()
    alpha.stop()

    def is_up() -> bool:
        found = exported(alpha, path)
        seen.append((found["tailscale_up"], 'tailscale_peer_online{peer="bravo"}' in found))
        return seen[-1] == (1, True)

    assert not is_up()
    alpha.start()
    tailnet.wait_until(is_up, 60)
    assert seen[0] == (0, False)
    assert set(seen) == {(0, False), (1, True)}


@pytest.mark.parametrize("job", JOBS)
def test_before_the_first_netmap(tailnet: Lab, alpha: Node, box: Path, job: str) -> None:
    """The coordination server does not answer, so a tailscaled that starts knows no peer, however long it waits."""
    os.kill(tailnet.control.pid, signal.SIGSTOP)
    try:
        alpha.restart()
        tailnet.wait_until(
            lambda: alpha.state() in {"NoState", "Starting"} and alpha.status()["Peer"] is None, 30
        )
        ran, exported = run_job(tailnet, job, box)
    finally:
        os.kill(tailnet.control.pid, signal.SIGCONT)
    assert ran.status == 0, ran
    if job == "native-metrics":
        assert exported["tailscale_native_metrics_up"] == 1
        assert exported['tailscaled_outbound_bytes_total{path="direct_ipv4"}'] == 0
    else:
        assert sees_nothing(exported, job)


def down(node: Node) -> None:
    node.tailscale("down")


def logout(node: Node) -> None:
    node.tailscale("logout")


@pytest.mark.parametrize(("leave", "state"), [(down, "Stopped"), (logout, "NeedsLogin")])
def test_after_down_or_logout_there_is_no_peer_and_after_up_there_is(
    tailnet: Lab, alpha: Node, box: Path, leave: Callable[[Node], None], state: str
) -> None:
    leave(alpha)
    tailnet.wait_until(lambda: alpha.state() == state, 30)
    try:
        outcomes = {job: run_job(tailnet, job, box) for job in JOBS}
    finally:
        alpha.up()
    for job, (ran, found) in outcomes.items():
        assert ran.status == 0, ran
        assert job == "native-metrics" or sees_nothing(found, job)
    assert (
        outcomes["exporter"][1]["tailscale_exporter_last_success_timestamp_seconds"]
        > time.time() - 60
    )
    assert complaints("watchdog", outcomes["watchdog"][0]) == [
        f"tailscaled is {state}, not Running: no peer can be judged, all is kept as it was"
    ]
    tailnet.wait_until(
        lambda: 'tailscale_peer_online{peer="bravo"}' in exported(alpha, box / "exporter.prom"), 60
    )


def test_the_watchdog_forgets_nothing_while_it_sees_nothing(
    tailnet: Lab, alpha: Node, box: Path
) -> None:
    state = box / "state"
    state.mkdir(mode=0o700)
    (state / "peer_bravo").write_text(LONG_AGO)
    (state / ".last_restart").write_text(f"{time.time():.0f}\n")
    alpha.stop()
    try:
        run_job(tailnet, "watchdog", box)
        assert (state / "peer_bravo").read_text() == LONG_AGO
    finally:
        alpha.start()
    tailnet.wait_until(lambda: alpha.state() == "Running" and alpha.peer("bravo").get("Online"), 60)
    ran, _ = run_job(tailnet, "watchdog", box)
    assert ran.status == 0, ran
    assert (state / "peer_bravo").read_text() == LONG_AGO
