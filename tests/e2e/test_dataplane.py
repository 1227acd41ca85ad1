"""A router drops WireGuard and passes disco: the guarded policy on a real tailscaled."""

from __future__ import annotations

from pathlib import Path

from lab import NAT, Lab
from support.processes import series
from support.tailnets import tsfc
from tsfc.core.watchdog.dataplane import SUSPICIOUS_BYTES

DEADLINE = 60.0
DEAD = (
    "DEAD: bravo direct, but no data comes back: disco pings are answered, TSMP pings are lost; "
    "no restart mends that"
)
DEAD_METRIC = 'tailscale_watchdog_data_plane_dead{peer="bravo"}'


def test_a_dead_data_plane_is_found_and_causes_no_restart(release: str, box: Path) -> None:
    with Lab(version=release, alpha=NAT.EASY, bravo=NAT.EASY) as lab:
        alpha = lab.node("alpha")

        def watch() -> list[str]:
            """Run the watchdog, which must succeed; return its lines."""
            ran = tsfc(
                alpha,
                *("watchdog", "--policy=guarded", f"--state-dir={box}/state"),
                *(f"--metrics-path={box}/watchdog.prom", "--unit=none.service"),
                f"--restart-socket={box}/none",
            )
            assert (ran.status, ran.stderr) == (0, ""), ran
            return ran.stdout.splitlines()

        def metrics() -> dict[str, float]:
            """The metrics of the last run."""
            return series((box / "watchdog.prom").read_text())

        def is_answered() -> bool:
            """Whether the peer is direct, and answers through WireGuard."""
            return bool(alpha.ping("bravo", "TSMP")) and alpha.is_direct("bravo")

        def unanswered_bytes() -> int:
            """Bytes sent since the fault without any received; -1 if any were."""
            peer = alpha.peer("bravo")
            return int(peer["TxBytes"] - sent) if peer["RxBytes"] == received else -1

        # The watchdog has seen the traffic of the peer.
        lab.wait_until(lambda: alpha.ping("bravo").get("Endpoint"), DEADLINE)
        lab.wait_until(is_answered, DEADLINE)
        lab.block_wireguard("alpha")
        sent, received = (alpha.peer("bravo")[key] for key in ("TxBytes", "RxBytes"))
        assert watch() == []

        # What is sent is lost, and the path stays direct.
        lost = ("ping", "--tsmp", "-c", "20", "--timeout=50ms", "bravo")
        alpha.tailscale(*lost, check=False)
        lab.wait_until(lambda: unanswered_bytes() >= SUSPICIOUS_BYTES, DEADLINE)
        assert watch() == [DEAD]
        assert metrics()[DEAD_METRIC] == 1
        assert alpha.is_direct("bravo")

        # The next run does not repeat the line.
        assert watch() == []
        assert metrics()[DEAD_METRIC] == 1

        # Data comes back.
        lab.unblock_wireguard("alpha")
        lab.wait_until(is_answered, DEADLINE)
        assert watch() == []
        assert DEAD_METRIC not in metrics()

        # Nothing was restarted.
        assert metrics()["tailscale_watchdog_restarts_total"] == 0
        assert metrics()["tailscale_watchdog_restart_failures_total"] == 0
