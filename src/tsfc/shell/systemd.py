"""systemd: the restart of a unit."""

from __future__ import annotations

import shutil

from returns.result import Failure

from tsfc.core.watchdog.events import Done, Failed, Outcome
from tsfc.shell import program

TIMEOUT_SECONDS = 200.0
"A unit has, unless it says otherwise, 90 s to stop and 90 s to start (`DefaultTimeoutStopSec`, `DefaultTimeoutStartSec`)."


def restart(unit: str) -> Outcome:
    """Restarts the unit and waits until it has started again."""
    tried = f"restarting with `systemctl restart {unit}`"
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return Failed(f"{tried}: there is no systemctl on PATH; the watchdog needs systemd")
    ran = program.run((systemctl, "restart", unit), timeout=TIMEOUT_SECONDS)
    if isinstance(ran, Failure):
        problem: program.TooSlow | program.Unstartable = ran.failure()
        match problem:
            case program.TooSlow(seconds=seconds):
                return Failed(f"{tried}: not done within {seconds:g} s; see `systemctl status {unit}`")
            case program.Unstartable(detail=detail):
                return Failed(f"{tried}: {detail}; see `systemctl status {unit}`")
    completed = ran.unwrap()
    if completed.status != 0:
        return Failed(f"{tried}: {completed.complaint()}; see `systemctl status {unit}`, and --unit")
    return Done()
