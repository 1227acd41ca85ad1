"""The watchdog pings a peer whose data plane may be dead, through tailscaled."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.processes import run
from support.servers import DERP_PONG, DIRECT_PONG, Request, Response, serving, tailscaled
from support.statuses import encoded, peer


def _status(rx: int, tx: int) -> bytes:
    return encoded(peer("nas", RxBytes=rx, TxBytes=tx))


def _pings(box: Path, policy: str, *options: str) -> list[str]:
    """Run the watchdog twice; return the types of the pings of the second run."""
    arguments = (
        *("watchdog", "--policy", policy, "--state-dir", str(box / "state")),
        *("--metrics-path", str(box / "watchdog.prom"), "--unit", "none.service"),
    )
    sent: list[str] = []

    def ping(request: Request) -> Response:
        kind = request.target.rpartition("type=")[2]
        sent.append(kind)
        return DERP_PONG if kind == "TSMP" else DIRECT_PONG

    for tx in (1000, 5000):
        path = box / f"sock{tx}"
        with serving(path, tailscaled(_status(100, tx), ping)):
            ran = run(*arguments, "--socket", str(path), *options)
        # Each server has a socket of its own, so tailscaled seems to have been started.
        assert (ran.status, ran.stdout) == (0, "")
    assert "tailscale_watchdog_data_plane_dead{" not in (box / "watchdog.prom").read_text()
    return sent


def test_a_suspect_is_pinged_through_wireguard_and_without(box: Path) -> None:
    assert sorted(_pings(box, "guarded")) == ["TSMP", "TSMP", "disco"]


@pytest.mark.parametrize("options", [("--now", "1800000000")], ids=["another-time"])
def test_without_a_present_tailscaled_nothing_is_pinged(
    box: Path, options: tuple[str, ...]
) -> None:
    assert _pings(box, "guarded", *options) == []


def test_the_documented_policy_pings_nobody(box: Path) -> None:
    assert _pings(box, "documented") == []
