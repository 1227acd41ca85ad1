"""Agent and oneshots do the same in the same world, and can be exchanged at any time.

The world is simulated, and so is the time: a wait takes none.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace
from returns.result import Failure, Result

from support.processes import tree
from tsfc.agent import agent as agents
from tsfc.agent.agent import Agent, AgentJob
from tsfc.agent.loop import Crashed, Loop
from tsfc.cli.agent import INTERVALS, STATUS_AGES
from tsfc.core.faults import Down, Fault
from tsfc.core.keepalive import NOBODY
from tsfc.core.report import Report
from tsfc.core.tailscale.ping import Ping, PingKind
from tsfc.core.tailscale.status import Status, decode
from tsfc.core.watchdog.policy import GuardedPolicy, Policy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Attempt, Done, Outcome
from tsfc.offline.simulation import scenario
from tsfc.offline.simulation.spans import default
from tsfc.offline.simulation.world import World
from tsfc.shell import runs, waiting
from tsfc.shell.host import Host
from tsfc.shell.jobs import exporter, keepalive
from tsfc.shell.system import System
from tsfc.shell.tailscaled import observe
from tsfc.shell.tailscaled.observe import RunOptions
from tsfc.shell.tailscaled.pings import Round
from tsfc.shell.waiting import Waiting

HOUR = 3600.0
JOBS = ("exporter", "keepalive", "watchdog")


class _Node:
    """A simulated node, its clocks, and what its jobs print."""

    def __init__(self, name: str, directory: Path) -> None:
        found = scenario.find(name).unwrap()
        self.world = World(replace(found, node=replace(found.node, keepalive=default(0))), seed=1)
        self.start = int(found.start)
        "Unix time at which its time begins."
        self.directory = directory
        self.now = 0.0
        self.lines: list[str] = []
        self.pings = 0
        "Number of pings that were sent."
        (directory / "state").mkdir(parents=True)

    def clock(self, _: int = 0) -> float:
        """Boot clock and monotonic clock."""
        return 1000.0 + self.now

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let all jobs of this process run on this node."""
        monkeypatch.setattr(time, "time", lambda: self.start + self.now)
        monkeypatch.setattr(time, "monotonic", self.clock)
        monkeypatch.setattr(time, "clock_gettime", self.clock)
        monkeypatch.setattr(observe, "observe", self._observe)
        monkeypatch.setattr(observe, "tailscaled_start", self._start)
        monkeypatch.setattr(System, "ping", self._ping)
        monkeypatch.setattr(System, "apply", self._apply)
        monkeypatch.setattr(System, "log", self._print)
        monkeypatch.setattr(System, "warn", self._print)
        monkeypatch.setattr(agents, "Loop", partial(_VirtualLoop, self))

    def _start(self, _: RunOptions) -> int | None:
        return self.world.tailscaled_start

    def _print(self, line: str) -> None:
        self.lines.append(line)

    async def _observe(self, _options: RunOptions, _find: object) -> Result[Status, Fault]:
        self.world.advance(self.now)
        raw = self.world.observe()
        return Failure(Down(raw)) if isinstance(raw, str) else decode(raw)

    async def _ping(
        self,
        pings: tuple[Ping, ...],
        *,
        count: int,
        timeout: float,
        kind: PingKind = PingKind.DISCO,
    ) -> Round:
        del count, timeout
        self.world.advance(self.now)
        self.pings += len(pings)
        return Round({ping.peer: (self.world.ping(ping.ip, kind),) for ping in pings}, None)

    async def _apply(self, _: Attempt) -> Outcome:
        self.world.advance(self.now)
        self.world.restart()
        return Done()


class _EndError(Exception):
    """The simulated time is over."""


class _VirtualLoop(Loop):
    """A loop whose waits take no time."""

    end = math.inf

    def __init__(self, node: _Node, crashed: Crashed) -> None:
        super().__init__(crashed)
        self._node = node

    def turn(self, deadline: float) -> None:
        """Advance the node's clocks to the deadline, or that of a coroutine before it."""
        first = min([deadline, *(at for at, *_ in self._deadlines[:1])])
        if first - 1000.0 >= self.end:
            raise _EndError
        self._node.now = max(self._node.now, first - 1000.0)
        super().turn(self._node.clock())


def _jobs(node: _Node, policy: Policy) -> dict[str, Callable[[System], Waiting[int]]]:
    """One run of each job, as the commands make it."""

    def export(host: Host) -> Waiting[Report]:
        return exporter.run(host, last_exposition=str, accept_health=(), omits_users=False)

    def ping(host: Host) -> Waiting[Report]:
        return keepalive.run(host, count=1, ping_timeout=5.0, excluded=NOBODY)

    state = str(node.directory / "state")
    return {
        "exporter": lambda host: runs.run(host, export),
        "watchdog": lambda host: runs.watchdog(host, state_dir=state, policy=policy),
        # Its pings change what the others would see after them at the same moment.
        "keepalive": lambda host: runs.run(host, ping),
    }


def _host(node: _Node, job: str) -> System:
    return System(job, RunOptions(metrics_path=str(node.directory / f"{job}.prom")))


def _run_agent(node: _Node, policy: Policy, until: float, *, is_adaptive: bool = False) -> None:
    jobs = [
        AgentJob(_host(node, job), INTERVALS[job], run, STATUS_AGES[job])
        for job, run in _jobs(node, policy).items()
    ]
    agent = Agent(jobs, _host(node, "agent"), is_adaptive=is_adaptive)
    agent._loop.end = until  # type: ignore[attr-defined]
    with pytest.raises(_EndError):
        agent.run()
    node.now = until


def _run_oneshots(node: _Node, policy: Policy, until: float) -> None:
    jobs = _jobs(node, policy)
    while node.now < until:
        for job, run in jobs.items():
            if node.now % INTERVALS[job] == 0:
                waiting.run(run(_host(node, job)))
        node.now += 10.0


def _played(
    directory: Path,
    name: str,
    policy: Policy,
    parts: Mapping[float, Callable[[_Node, Policy, float], None]],
) -> tuple[list[str], Mapping[str, bytes | None]]:
    """What the jobs have printed and written after all parts, each up to its time."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        node = _Node(name, directory)
        node.patch(monkeypatch)
        for until, run in parts.items():
            run(node, policy, until)
    (directory / "agent.prom").unlink(missing_ok=True)
    return node.lines, tree(directory)


@pytest.mark.parametrize(
    "policy", [ThresholdPolicy(), GuardedPolicy()], ids=["documented", "guarded"]
)
@pytest.mark.parametrize("name", ["restart-cures", "permanent-relay", "daemon-dead", "flapping"])
def test_the_agent_does_what_oneshots_do(box: Path, name: str, policy: Policy) -> None:
    oneshots = _played(box / "oneshots", name, policy, {3 * HOUR: _run_oneshots})
    agent = _played(box / "agent", name, policy, {3 * HOUR: _run_agent})
    assert agent[0] == oneshots[0]
    assert agent[1] == oneshots[1]
    assert agent[1]["watchdog.prom"]


def test_they_can_be_exchanged_at_any_time(box: Path) -> None:
    name, policy = "restart-cures", ThresholdPolicy()
    oneshots = _played(box / "oneshots", name, policy, {6 * HOUR: _run_oneshots})
    parts = {
        1 * HOUR: _run_agent,
        2.5 * HOUR: _run_oneshots,
        4 * HOUR: _run_agent,
        6 * HOUR: _run_oneshots,
    }
    exchanged = _played(box / "exchanged", name, policy, parts)
    assert exchanged == oneshots
    assert any(line.startswith("RESTART") for line in exchanged[0])


@pytest.mark.parametrize(
    "name", ["restart-cures", "permanent-relay", "flapping", "wan-change", "suspend"]
)
def test_with_adaptive_keepalive_the_watchdog_says_the_same(box: Path, name: str) -> None:
    found: dict[bool, tuple[list[str], int]] = {}
    for is_adaptive in (False, True):
        with pytest.MonkeyPatch.context() as monkeypatch:
            node = _Node(name, box / str(is_adaptive))
            node.patch(monkeypatch)
            _run_agent(node, ThresholdPolicy(), 3 * HOUR, is_adaptive=is_adaptive)
        found[is_adaptive] = (node.lines, node.pings)
    assert found[True][0] == found[False][0]
    assert found[True][1] < 0.6 * found[False][1]
