"""Defects of the earlier shell scripts, one test each: processes and files."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import msgspec
import pytest

from support.processes import (
    Completed,
    Forked,
    ended,
    error_lines,
    run,
    series,
    started,
    tree,
    wait_until,
)
from support.programs import calls, program
from support.servers import DERP_PONG, DIRECT_PONG, Request, Response, serving, tailscaled
from support.statuses import encoded, peer
from tsfc.core.watchdog.files import LastRun
from tsfc.shell import clocks

T = 1_800_000_000
STUCK = encoded(peer("rpi3", "derp"))


class Watchdog:
    """Runs of the watchdog with one state directory and a `systemctl` that succeeds."""

    def __init__(self, box: Path, forks: Forked) -> None:
        self._forks = forks
        self._status = box / "status.json"
        self.state = box / "state"
        self.state.mkdir()
        self.programs = box / "bin"
        self.programs.mkdir()
        program(self.programs, "systemctl")
        self._metrics = box / "watchdog.prom"

    def run(self, status: bytes, *, now: int | None = T, at: Path | None = None) -> Completed:
        """Do one run on a status, or on the socket `at`."""
        source = (
            ["--status-file", str(self._status)]
            if at is None
            else ["--socket", str(at), "--source", "localapi", "--timeout", "0.3"]
        )
        self._status.write_bytes(status)
        clock = [] if now is None else ["--now", str(now)]
        files = ["--state-dir", str(self.state), "--metrics-path", str(self._metrics)]
        source.append("--unit=tailscaled.service")
        return self._forks.run("watchdog", *source, *clock, *files, programs=self.programs)

    def exported(self) -> dict[str, float]:
        """Return the metrics of the last run, without their common prefix."""
        return {
            name.removeprefix("tailscale_watchdog_"): value
            for name, value in series(self._metrics.read_text()).items()
        }

    def restarts(self) -> int:
        """Return the number of calls of systemctl."""
        return len(calls(self.programs, "systemctl"))


@pytest.fixture
def watchdog(box: Path, forks: Forked) -> Watchdog:
    """A watchdog without state."""
    return Watchdog(box, forks)


def test_defect_counters_lost_or_one_run_late(watchdog: Watchdog) -> None:
    """A run writes its own counts to its metrics file; later runs keep them."""
    watchdog.run(STUCK)
    assert watchdog.exported()["relay_detections_total"] == 1
    watchdog.run(STUCK, now=T + 601)
    assert watchdog.exported()["restarts_total"] == 1
    watchdog.run(encoded(peer("rpi3"), peer("nas", "derp")), now=T + 1300)
    watchdog.run(encoded(peer("rpi3"), peer("nas")), now=T + 1360)
    counted = {
        "restarts_total": 1,
        "relay_detections_total": 2,
        "recoveries_total": 2,
        "restart_failures_total": 0,
    }
    for now in (T + 1420, T + 1480):
        assert watchdog.exported() | counted == watchdog.exported()
        watchdog.run(b"no status", now=now)


def test_defect_restart_wipes_the_metrics_file(watchdog: Watchdog) -> None:
    """A run that restarts writes the same metrics as any other run."""
    watchdog.run(STUCK)
    ordinary = set(watchdog.exported())
    assert watchdog.run(STUCK, now=T + 601).stdout.startswith("RESTART: ")
    assert set(watchdog.exported()) == ordinary | {"last_restart_timestamp_seconds"}
    assert watchdog.exported()['peer_relay_duration_seconds{peer="rpi3"}'] == 601


def test_defect_keepalive_waits_for_nothing(box: Path) -> None:
    """A round ends with its last ping, not before; the server delays one response."""
    held: list[Request] = []

    def ping(request: Request) -> Response:
        if request.ip != "100.64.1.2":
            return DIRECT_PONG
        held.append(request)
        return None

    peers = [peer(f"p{n}", TailscaleIPs=[f"100.64.1.{n}"]) for n in (1, 2, 3)]
    with (
        serving(box / "s", tailscaled(encoded(*peers), ping)) as server,
        started(
            "keepalive",
            "--socket",
            str(box / "s"),
            "--ping-timeout",
            "60",
            "--metrics-path",
            str(box / "a.prom"),
        ) as process,
    ):
        wait_until(lambda: len(server.pings()) == 3, "all three are pinged")
        assert process.poll() is None
        assert not (box / "a.prom").exists()
        held[0].connection.sendall(DIRECT_PONG)
        held[0].connection.shutdown(socket.SHUT_WR)
        assert ended(process) == (0, "", "")
    assert series((box / "a.prom").read_text())['tailscale_keepalive_peers{result="direct"}'] == 3


def test_defect_dead_daemon_looks_alive(watchdog: Watchdog, box: Path) -> None:
    """The last run is updated, the last success is not, and no peer has a sample."""
    watchdog.run(encoded(peer("rpi3")))
    assert watchdog.exported()["last_success_timestamp_seconds"] == T
    ran = watchdog.run(b"", now=T + 60, at=box / "missing")
    assert ran.status == 0
    assert (
        watchdog.exported()["last_run_timestamp_seconds"],
        watchdog.exported()["last_success_timestamp_seconds"],
    ) == (T + 60, T)
    assert not [name for name in watchdog.exported() if "{" in name]

    options = ("--now", str(T + 60), "--metrics-path", str(box / "e.prom"))
    run("exporter", "--now", str(T), *options[2:], "--status-file", "-", stdin=STUCK)
    run("exporter", *options, "--socket", str(box / "missing"), "--source", "localapi")
    assert series((box / "e.prom").read_text()) == {
        "tailscale_up": 0,
        "tailscale_exporter_last_success_timestamp_seconds": T,
    }


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"never\n", b"-1\n", b"\xff\n", b"1e3\n", b"9" * 30]
)
def test_defect_corrupt_state_restarts_at_once(watchdog: Watchdog, content: bytes) -> None:
    """A damaged time counts as now; the file is repaired, so the run warns once."""
    for name in ("peer_rpi3", ".last_restart", ".restart_count"):
        (watchdog.state / name).write_bytes(content)
    ran = watchdog.run(STUCK)
    assert [complaint.split()[0] for complaint in error_lines("watchdog", ran)] == [
        "peer_rpi3",
        ".last_restart",
        ".restart_count",
    ]
    assert (ran.status, ran.stdout) == (0, "WAITING: rpi3 on relay for 0s (threshold: 600s)\n")
    assert watchdog.run(STUCK, now=T + 60) == (
        0,
        "WAITING: rpi3 on relay for 60s (threshold: 600s)\n",
        "",
    )
    assert (watchdog.restarts(), watchdog.exported()["restarts_total"]) == (0, 0)


@pytest.mark.parametrize(
    "meanwhile",
    [encoded(peer("rpi3", "offline")), encoded(), encoded(peer("rpi3", "derp", Expired=True))],
)
def test_defect_vanished_peer_returns_with_old_start(watchdog: Watchdog, meanwhile: bytes) -> None:
    watchdog.run(STUCK)
    status, lines, _ = watchdog.run(meanwhile, now=T + 300)
    assert (status, lines) == (0, "")
    assert not (watchdog.state / "peer_rpi3").exists()
    assert watchdog.run(STUCK, now=T + 700).stdout == "DETECTED: rpi3 transitioned to relay\n"
    assert watchdog.restarts() == 0


def test_defect_offline_counted_as_recovered(watchdog: Watchdog) -> None:
    watchdog.run(STUCK)
    assert watchdog.run(encoded(peer("rpi3", "offline")), now=T + 60).stdout == ""
    assert watchdog.exported()["recoveries_total"] == 0
    assert 'peer_state{peer="rpi3"}' not in watchdog.exported()


@pytest.mark.parametrize("step", [pytest.param(5000, id="forward"), pytest.param(-5000, id="back")])
def test_defect_clock_steps(watchdog: Watchdog, step: int) -> None:
    """The wall clock was set since the last run, which is 60 s ago by the boot clock.

    100 seconds on relay are 160 seconds now.
    """
    now = clocks.instant(None)
    if now.boot is None:
        pytest.skip("this system has no boot clock")
    then = msgspec.structs.replace(
        now,
        unix=now.unix - 60 - step,
        boot=msgspec.structs.replace(now.boot, seconds=now.boot.seconds - 60),
    )
    (watchdog.state / ".last_run").write_bytes(msgspec.json.encode(LastRun(at=then)))
    (watchdog.state / "peer_rpi3").write_text(f"{then.unix - 100}\n")
    ran = watchdog.run(STUCK, now=None)
    (complaint,) = error_lines("watchdog", ran)
    assert "the clock was set by " in complaint
    seconds = int(ran.stdout.removeprefix("WAITING: rpi3 on relay for ").partition("s")[0])
    assert 158 <= seconds <= 190
    assert watchdog.restarts() == 0


@pytest.mark.parametrize("ahead", [1, 10**6])
def test_defect_clock_steps_without_a_boot_clock(watchdog: Watchdog, ahead: int) -> None:
    """A stored time in the future becomes now: no negative age, no endless cooldown."""
    (watchdog.state / "peer_rpi3").write_text(f"{T + ahead}\n")
    (watchdog.state / ".last_restart").write_text(f"{T + ahead}\n")
    assert watchdog.run(STUCK).stdout == "WAITING: rpi3 on relay for 0s (threshold: 600s)\n"
    assert min(watchdog.exported().values()) == 0
    assert watchdog.run(STUCK, now=T + 601).stdout.startswith("RESTART: ")


def test_defect_one_hung_call_stops_everything(watchdog: Watchdog, box: Path) -> None:
    """A daemon or a peer that never responds costs its own timeout and nothing else."""
    begun = time.monotonic()
    with serving(box / "silent", lambda _: None):
        for job in ("exporter", "native-metrics", "keepalive"):
            options = (
                "--socket",
                str(box / "silent"),
                "--source",
                "localapi",
                "--timeout",
                "0.3",
                "--metrics-path",
                str(box / f"{job}.prom"),
            )
            ran = run(job, *options)
            assert (ran.status, len(error_lines(job, ran))) == (0, 1)
        assert len(error_lines("watchdog", watchdog.run(b"", at=box / "silent"))) == 1
    peers = [
        peer("hung", "derp", TailscaleIPs=["100.64.1.1"]),
        *(peer(f"p{n}", TailscaleIPs=[f"100.64.1.{n}"]) for n in range(2, 9)),
    ]
    with serving(
        box / "s",
        tailscaled(
            encoded(*peers), lambda request: None if request.ip == "100.64.1.1" else DIRECT_PONG
        ),
    ):
        assert run(
            "keepalive",
            "--socket",
            str(box / "s"),
            "--ping-timeout",
            "0.3",
            "--metrics-path",
            str(box / "a.prom"),
        ) == (0, "", "")
    exported = series((box / "a.prom").read_text())
    assert exported['tailscale_keepalive_peers{result="direct"}'] == 7
    assert exported['tailscale_keepalive_peers{result="no_reply"}'] == 1
    assert time.monotonic() - begun < 20


def test_defect_two_peers_in_one_series_share_no_file_either(watchdog: Watchdog) -> None:
    twins = encoded(peer("rpi3", "derp", ID="nA"), peer("rpi3", "derp", ID="nB"))
    assert watchdog.run(twins).stdout.splitlines() == [
        f"DETECTED: rpi3#{id_} transitioned to relay" for id_ in ("nA", "nB")
    ]
    assert {name for name in tree(watchdog.state) if name.startswith("peer_")} == {
        "peer_rpi3%23nA",
        "peer_rpi3%23nB",
    }


def test_a_slow_peer_does_not_delay_the_others(box: Path) -> None:
    """Pings to a relayed peer take seconds."""
    peers = [
        peer("slow", "derp", TailscaleIPs=["100.64.1.1"]),
        *(peer(f"p{n}", TailscaleIPs=[f"100.64.1.{n}"]) for n in range(2, 30)),
    ]
    with serving(
        box / "s",
        tailscaled(
            encoded(*peers),
            lambda request: DERP_PONG if request.ip == "100.64.1.1" else DIRECT_PONG,
        ),
    ) as server:
        assert run("keepalive", "--socket", str(box / "s"), "--count", "2") == (0, "", "")
    slow = [request.at for request in server.pings() if request.ip == "100.64.1.1"]
    assert max(request.at for request in server.pings() if request.ip != "100.64.1.1") < slow[1]
