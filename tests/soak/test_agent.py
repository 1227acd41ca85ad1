"""The agent for as many runs as in a day: neither memory nor descriptors grow."""

from __future__ import annotations

import itertools
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from support.processes import series
from support.programs import calls, program
from support.servers import DERP_PONG, DIRECT_PONG, Request, Response, http, serving, tailscaled
from support.statuses import encoded, peer

RUNS = 1440
"Runs of the watchdog in a day."
HOURS = 24
"Parts of the test. After each one, memory and descriptors are measured."
FAULT_RUNS = 5
"Runs of the watchdog in each fault of a part."
DEADLINE_SECONDS = 120.0
"Time for one state of tailscaled."
GROWTH_BYTES = 2**20
"Allowed from the second to the last quarter; single pages come and go."
SPARE_DESCRIPTORS = 3
"Connections that a measurement may find open by chance."
USERMETRICS = b"# TYPE tailscaled_routes gauge\ntailscaled_routes 1\n"

AGENT = """
import sys
from tsfc.agent import agent
from tsfc.cli import agent as options, main

speed = 1200
agent.OWN_SECONDS /= speed
options.INTERVALS.update({job: seconds / speed for job, seconds in options.INTERVALS.items()})
options.STATUS_AGES["keepalive"] /= speed
sys.exit(main.main(sys.argv[1:]))
"""
"The agent with intervals of hundredths of a second."


class Mood(Enum):
    """What tailscaled does."""

    USUAL = auto()
    DOWN = auto()
    SILENT = auto()
    SLOW = auto()
    "It sends responses in pieces."
    GARBAGE = auto()
    "What it sends is not HTTP."
    TORN = auto()
    "Its JSON ends too soon."


@dataclass
class Daemon:
    """A tailscaled that can be told what to do. It keeps connections."""

    mood: Mood = Mood.USUAL
    hour: int = 0
    "One peer has another name in each hour."

    def respond(self, request: Request) -> Response:
        """Respond to a request as it does in this mood."""
        match self.mood:
            case Mood.SILENT:
                return None
            case Mood.GARBAGE:
                return b"\0nothing that is HTTP\r\n\r\n" * 100
            case Mood.TORN:
                return http(b'{"BackendState": "Running", "Peer": {"nodekey:')
            case _:
                response = self._usual(request)
                size = 100 if self.mood is Mood.SLOW else len(response)
                pieces = (response[at : at + size] for at in range(0, len(response), size))
                return itertools.chain(pieces, itertools.repeat(b""))

    def _usual(self, request: Request) -> bytes:
        status = encoded(peer("nas"), peer("pi", "derp"), peer(f"guest{self.hour}"))
        pong = DERP_PONG if self.hour % 2 else DIRECT_PONG
        response = tailscaled(status, lambda _: pong, USERMETRICS)(request)
        assert isinstance(response, bytes)
        return response.replace(b"Connection: close\r\n", b"")


@contextmanager
def _agent(box: Path) -> Generator[subprocess.Popen[bytes]]:
    """Run the agent, with a `systemctl` that succeeds."""
    for name in ("metrics", "state", "bin"):
        (box / name).mkdir()
    program(box / "bin", "systemctl")
    options = [
        "--adaptive-keepalive",
        f"--socket={box}/s",
        f"--metrics-dir={box}/metrics",
        f"--state-dir={box}/state",
        f"--listen={box}/http",
        "--timeout=0.2",
        "--keepalive-args=--count=1 --ping-timeout=0.2",
        "--watchdog-args=--unit=x.service --max-relay-seconds=0 --cooldown-seconds=2",
    ]
    with (
        (box / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-c", AGENT, "agent", *options],
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": f"{box}/bin:{os.environ['PATH']}"},
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(DEADLINE_SECONDS) == 0


def _wait_for(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert process.poll() is None, "the agent has ended"
        assert time.monotonic() < deadline, "the agent does not go on"
        time.sleep(0.01)


def _runs(box: Path) -> int:
    """Runs of the watchdog."""
    path = box / "metrics" / "tailscale-agent.prom"
    found = series(path.read_text()) if path.exists() else {}
    return round(found.get('tailscale_agent_runs_total{command="watchdog"}', 0))


def _scrape(box: Path) -> None:
    """Ask for the metrics, once to the end and once not."""
    for is_patient in (True, False):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE_SECONDS)
            client.connect(f"{box}/http")
            client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while is_patient and client.recv(2**16):
                pass


def _resident_bytes(process: subprocess.Popen[bytes]) -> int:
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _descriptors(process: subprocess.Popen[bytes]) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def test_a_day_of_runs_and_faults_leaves_nothing(box: Path, *, repetitions: int) -> None:
    runs = RUNS * repetitions // 1000
    faults = [mood for mood in Mood if mood is not Mood.USUAL]
    usual_runs = max(1, runs // HOURS - FAULT_RUNS * len(faults))
    daemon = Daemon()
    memory: list[int] = []
    descriptors: list[int] = []
    with _agent(box) as process:

        def go_on(mood: Mood, number: int) -> None:
            daemon.mood = mood
            end = _runs(box) + number
            _wait_for(lambda: _runs(box) >= end, process)

        for daemon.hour in range(HOURS):
            with serving(box / "s", daemon.respond):
                for mood in faults:
                    if mood is not Mood.DOWN:
                        go_on(mood, FAULT_RUNS)
                _scrape(box)
                go_on(Mood.USUAL, usual_runs)
                memory.append(_resident_bytes(process))
                descriptors.append(_descriptors(process))
            (box / "s").unlink()
            go_on(Mood.DOWN, FAULT_RUNS)
    quarter = HOURS // 4
    early, late = memory[quarter : 2 * quarter], memory[-quarter:]
    mebibytes = [round(size / 2**20, 1) for size in memory]
    print(f"resident memory in MiB: {mebibytes}; descriptors: {descriptors}")  # noqa: T201 - as -rP
    assert calls(box / "bin", "systemctl"), "the watchdog has restarted tailscaled"
    assert statistics.median(late) - statistics.median(early) <= GROWTH_BYTES
    assert max(descriptors[-quarter:]) <= max(descriptors[:quarter]) + SPARE_DESCRIPTORS
