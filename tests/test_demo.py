"""`make demo`: a day of a simulated tailnet, and nothing else on this machine."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import series
from support.programs import calls, program
from support.terminals import output_of

DEMO = Path(__file__).parents[1] / "tools/demo.py"


def _restarts(box: Path) -> float:
    """The number of restarts that the watchdog of the demo has made."""
    for metrics in box.glob("tsfc-demo-*/metrics/tailscale-watchdog.prom"):
        return series(metrics.read_text())["tailscale_watchdog_restarts_total"]
    return 0


def _mentioning(box: Path) -> list[str]:
    """Return the command lines, of all processes, that contain the path of a directory."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [command] if str(box) in command else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_that_the_demo_started(box: Path, number: int) -> None:
    program(box, "systemctl", ":")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(DEMO)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={"PATH": str(box), "TMPDIR": str(box), "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(theirs)
    names: list[str] = []

    def end_after_a_restart(_: bytes) -> None:
        if not names and _restarts(box):
            names.extend(_mentioning(box))
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # as a terminal does
            else:
                process.send_signal(number)

    output = output_of(process, ours, end_after_a_restart).decode()
    assert process.returncode == (0 if number == signal.SIGINT else 143)
    assert len(names) == 3
    assert _mentioning(box) == []
    assert list(box.glob("tsfc-demo-*")) == []
    assert calls(box, "systemctl") == []
    if number == signal.SIGINT:
        assert "RESTART: nas on relay for " in output
