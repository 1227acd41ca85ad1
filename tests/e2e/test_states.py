"""Jobs while tailscaled is stopped, hangs or is logged out, and afterwards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import NAT, Lab, Node
from support.processes import Completed, error_lines, series
from support.tailnets import exported, tsfc

JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")
UP = {"exporter": "tailscale_up", "native-metrics": "tailscale_native_metrics_up"}
SOURCES = ("localapi", "cli")
TIMEOUT_SECONDS = 1
LONG_AGO = "1000000000\n"


@pytest.fixture(scope="module")
def tailnet(release: str) -> Iterator[Lab]:
    with Lab(version=release, alpha=NAT.EASY, bravo=NAT.EASY) as lab:
        yield lab


@pytest.fixture
def alpha(tailnet: Lab) -> Node:
    """A node that is online before each test, whatever the previous test did."""
    node = tailnet.node("alpha")
    tailnet.wait_until(lambda: node.state() == "Running" and node.peer("bravo").get("Online"), 60)
    return node


def run_job(
    lab: Lab, job: str, box: Path, source: str = "localapi", *flags: str
) -> tuple[Completed, dict[str, float]]:
    """Run a job on alpha. Return the run and the series in its metrics file."""
    path = box / f"{job}.prom"
    state = ("--state-dir", str(box / "state")) if job == "watchdog" else ()
    options = ("--source", source, "--tailscale", str(lab.programs / "tailscale"))
    ran = tsfc(lab.node("alpha"), job, *options, "--metrics-path", str(path), *state, *flags)
    return ran, series(path.read_text()) if path.exists() else {}


def is_empty(exported: dict[str, float], job: str) -> bool:
    """Whether a job exported no peers and no native metrics, only that it is down."""
    if any("peer=" in name or name.startswith("tailscaled_") for name in exported):
        return False
    return job not in UP or exported[UP[job]] == 0


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("job", JOBS)
def test_a_job_reports_a_stopped_tailscaled_and_sees_it_again_after_the_start(
    tailnet: Lab, alpha: Node, box: Path, job: str, source: str
) -> None:
    run_job(tailnet, job, box, source)
    alpha.stop()
    try:
        ran, exported = run_job(tailnet, job, box, source)
    finally:
        alpha.start()
    (complaint,) = error_lines(job, ran)
    assert ran.status == 0, ran
    assert "connect" in complaint or "No such file" in complaint
    assert is_empty(exported, job)

    def has_recovered() -> bool:
        ran, exported = run_job(tailnet, job, box, source)
        assert ran.status == 0, ran
        return not is_empty(exported, job)

    tailnet.wait_until(lambda: alpha.state() == "Running" and alpha.peer("bravo").get("Online"), 60)
    if job != "keepalive":
        tailnet.wait_until(has_recovered, 10)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("job", JOBS)
def test_a_job_reports_a_tailscaled_that_hangs(
    tailnet: Lab, alpha: Node, box: Path, job: str, source: str
) -> None:
    """Connections to its socket succeed, but no response arrives."""
    run_job(tailnet, job, box, source)
    alpha.freeze()
    try:
        start = time.monotonic()
        ran, exported = run_job(tailnet, job, box, source, "--timeout", str(TIMEOUT_SECONDS))
        duration = time.monotonic() - start
    finally:
        alpha.thaw()
    (complaint,) = error_lines(job, ran)
    assert ran.status == 0, ran
    timeout = (
        f"timed out after {TIMEOUT_SECONDS} s" if source == "cli" else f"within {TIMEOUT_SECONDS} s"
    )
    assert timeout in complaint
    assert duration < TIMEOUT_SECONDS + 5
    assert is_empty(exported, job)


def test_runs_during_a_start_of_tailscaled_succeed_and_export_all_or_nothing(
    tailnet: Lab, alpha: Node, box: Path
) -> None:
    """First no socket, then no response, then no netmap, and finally the netmap."""
    path, views = box / "peers.prom", list[tuple[float, bool]]()
    alpha.stop()

    def is_up() -> bool:
        metrics = exported(alpha, path)
        views.append((metrics["tailscale_up"], 'tailscale_peer_online{peer="bravo"}' in metrics))
        return views[-1] == (1, True)

    assert not is_up()
    alpha.start()
    tailnet.wait_until(is_up, 60)
    assert views[0] == (0, False)
    assert set(views) == {(0, False), (1, True)}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_exports_no_peers_before_the_first_netmap(
    tailnet: Lab, alpha: Node, box: Path, job: str
) -> None:
    """The node knows no peers until the coordination server responds."""
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
        assert is_empty(exported, job)


@pytest.mark.parametrize(("command", "state"), [("down", "Stopped"), ("logout", "NeedsLogin")])
def test_jobs_export_no_peers_after_down_or_logout_until_up(
    tailnet: Lab, alpha: Node, box: Path, command: str, state: str
) -> None:
    alpha.tailscale(command)
    tailnet.wait_until(lambda: alpha.state() == state, 30)
    try:
        runs = {job: run_job(tailnet, job, box) for job in JOBS}
    finally:
        alpha.up()
    for job, (ran, metrics) in runs.items():
        assert ran.status == 0, ran
        assert job == "native-metrics" or is_empty(metrics, job)
    assert (
        runs["exporter"][1]["tailscale_exporter_last_success_timestamp_seconds"] > time.time() - 60
    )
    assert error_lines("watchdog", runs["watchdog"][0]) == [
        f"tailscaled is {state}, not Running: no peer can be judged, the state is kept"
    ]
    tailnet.wait_until(
        lambda: 'tailscale_peer_online{peer="bravo"}' in exported(alpha, box / "exporter.prom"), 60
    )


def test_the_watchdog_keeps_its_state_while_tailscaled_is_stopped(
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
