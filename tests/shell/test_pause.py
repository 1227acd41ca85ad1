"""`tsfc watchdog --pause`: while the file exists, the watchdog only tells."""

from __future__ import annotations

from pathlib import Path

from shell.test_watchdog import Host, T
from support.processes import Forked
from support.statuses import encoded, peer

DUE = "RESTART: rpi3 on relay for 601s, restarting tailscaled\n"


def due(host: Host, *options: str) -> None:
    """Bring the host to where the next run at `T` restarts tailscaled."""
    host.set_status(encoded(peer("rpi3", "direct")))
    assert host.run(*options, now=T - 700).status == 0
    host.set_status(encoded(peer("rpi3", "derp")))
    assert host.run(*options, now=T - 601).stdout == "DETECTED: rpi3 transitioned to relay\n"


def test_nothing_is_restarted_while_the_file_exists(box: Path, forks: Forked) -> None:
    host, file = Host(box, forks), box / "pause"
    options = ("--policy", "guarded", "--pause", str(file))
    due(host, *options)
    file.touch()
    held = f"HELD: rpi3 on relay for 601s, not restarting: paused by {file}\n"
    assert host.run(*options) == (0, held, "")
    assert host.restarts() == []
    file.unlink()
    due(host, *options)
    assert host.run(*options) == (0, DUE, "")
    assert len(host.restarts()) > 0


def test_a_dangling_link_pauses(box: Path, forks: Forked) -> None:
    """Whatever is there, somebody put it there to pause."""
    host, file = Host(box, forks), box / "pause"
    options = ("--policy", "guarded", "--pause", str(file))
    due(host, *options)
    file.symlink_to("/nonexistent")
    assert host.run(*options).stdout.startswith("HELD: rpi3 ")
    assert host.restarts() == []
