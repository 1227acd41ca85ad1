"""Compare the agent with timers on real nodes: `python -m lab agent [MINUTES]`.

Six nodes look at the same two peers. On each kind of node there are three: one with
oneshots at the intervals of the timers, one with the agent, and one with the agent and
`--adaptive-keepalive`. The routers forget a NAT mapping after 30 s.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from lab import NAT, Lab, Node
from lab.background import in_background
from tsfc.cli.agent import FILES, INTERVALS

KINDS = (NAT.EASY, NAT.PUBLIC)
"Kinds of the nodes that look. A public node has direct paths to both peers."
PEERS = {"easy": NAT.EASY, "hard": NAT.HARD}
DIRECT, RELAY, IDLE = "direct", "relay", "idle"
TIMERS, AGENT, ADAPTIVE = "timers", "agent", "adaptive"
_VARIANTS = (TIMERS, AGENT, ADAPTIVE)
MAPPING_SECONDS = 30
"Time after which the routers forget a NAT mapping without packets."
SAMPLE_SECONDS = 2.0
WARM_UP_SECONDS = 40.0
"Time until all paths that can be direct are."
TICK_SECONDS = 5.0
"Divides the intervals of all jobs."
END_SECONDS = 10.0

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class Observer:
    """A node that looks, and what was measured on it."""

    node: Node
    variant: str
    others: tuple[str, ...]
    "Names of the nodes that it must not ping."
    cpu: float = 0.0
    "CPU seconds of its oneshots."
    paths: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    "By peer and path: the number of looks that showed it."
    looks: int = 0

    @property
    def directory(self) -> Path:
        """Directory of the metrics of its jobs."""
        return self.node.directory / "metrics"

    def arguments(self, job: str) -> list[str]:
        """Return the options of a job. No remedy can reach this machine's units."""
        match job:
            case "keepalive":
                return [f"--exclude-peer={name}" for name in self.others]
            case "watchdog":
                nowhere = self.node.directory / "no-helper"
                return ["--policy=guarded", "--unit=lab.service", f"--restart-socket={nowhere}"]
            case _:
                return []


@dataclass(frozen=True)
class Figures:
    """What has added up on a node so far."""

    pings: float
    "0 with oneshots, which do not count them."
    log_lines: int
    tailscaled_cpu: float
    "In seconds."
    tsfc_cpu: float
    "In seconds."


def compare(minutes: int) -> None:
    """Run all variants, and print what they cost and how direct their paths were."""
    names = {f"{variant}-{kind.value}": kind for kind in KINDS for variant in _VARIANTS}
    with Lab({**PEERS, **names}) as lab, ExitStack() as stack:
        for node in lab.nodes.values():
            node.place.outside.run(
                "sh",
                "-c",
                f"echo {MAPPING_SECONDS} >/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream",
            )
        observers = [
            Observer(lab.node(name), name.partition("-")[0], tuple(names.keys() - {name}))
            for name in names
        ]
        for observer in observers:
            observer.directory.mkdir()
            (observer.node.directory / "watchdog").mkdir()
            stack.enter_context(
                _timers(observer) if observer.variant == TIMERS else _agent(observer)
            )
        time.sleep(WARM_UP_SECONDS)
        before = [_figures(observer) for observer in observers]
        start = time.monotonic()
        unequal: Counter[str] = Counter()
        for minute in range(1, minutes + 1):
            while time.monotonic() < start + 60 * minute:
                for observer in observers:
                    _look(observer)
                time.sleep(SAMPLE_SECONDS)
            unequal += _unequal(observers)
            if minute % 10 == 0 or minute == minutes:
                print("\n".join(_report(observers, before, minute, unequal)), flush=True)


@contextmanager
def _agent(observer: Observer) -> Generator[None]:
    """Run the agent on a node."""
    command = [
        *("setpriv", "--pdeathsig=KILL", sys.executable, "-m", "tsfc", "agent"),
        f"--socket={observer.node.socket}",
        f"--metrics-dir={observer.directory}",
        f"--state-dir={observer.node.directory}/watchdog",
        *(["--adaptive-keepalive"] if observer.variant == ADAPTIVE else []),
        *(f"--{job}-args={' '.join(observer.arguments(job))}" for job in INTERVALS),
    ]
    with (observer.node.directory / "tsfc.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(END_SECONDS)


@contextmanager
def _timers(observer: Observer) -> Generator[None]:
    """Run the oneshots at the intervals of the timers."""

    def run(end: threading.Event) -> None:
        start = time.monotonic()
        for tick in itertools.count():
            due = [job for job, seconds in INTERVALS.items() if tick * TICK_SECONDS % seconds == 0]
            processes = [_oneshot(observer, job) for job in due]
            for process in processes:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                observer.cpu += usage.ru_utime + usage.ru_stime
            if end.wait(max(0.0, start + (tick + 1) * TICK_SECONDS - time.monotonic())):
                return

    with in_background(run):
        yield


def _oneshot(observer: Observer, job: str) -> subprocess.Popen[bytes]:
    options = [f"--socket={observer.node.socket}", *observer.arguments(job)]
    if job in FILES:
        options.append(f"--metrics-path={observer.directory / FILES[job]}")
    if job == "watchdog":
        options.append(f"--state-dir={observer.node.directory}/watchdog")
    with (observer.node.directory / "tsfc.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tsfc", job, *options], stdout=log, stderr=log
        )


def _look(observer: Observer) -> None:
    peers = {peer["HostName"]: peer for peer in observer.node.peers()}
    observer.looks += 1
    for name in PEERS:
        peer = peers[name]
        path = IDLE if not peer["Active"] else DIRECT if peer["CurAddr"] else RELAY
        observer.paths[name, path] += 1


def _figures(observer: Observer) -> Figures:
    own = _series(observer.directory / "tailscale-agent.prom")
    return Figures(
        sum(value for (name, _), value in own.items() if name == "tailscale_keepalive_pings_total"),
        observer.node.log.read_bytes().count(b"\n"),
        observer.node.cpu_seconds(),
        observer.cpu
        if observer.variant == TIMERS
        else own["tailscale_agent_cpu_seconds_total", frozenset()],
    )


def _series(path: Path) -> Series:
    """Read a metrics file; without series if it does not exist."""
    with suppress(FileNotFoundError):
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(path.read_text())
            for sample in family.samples
        }
    return {}


def _unequal(observers: list[Observer]) -> Counter[str]:
    """Compare the exporter's files of timers and agents.

    Return the names that differ: in their labels, or in their values for the peers. The
    other nodes in the lab are not the same peers to each node.
    """
    found: Counter[str] = Counter()
    for kind in KINDS:
        timers, agent = (
            _series(observer.directory / FILES["exporter"])
            for observer in observers
            if observer.node.place.nat is kind and observer.variant in {TIMERS, AGENT}
        )
        found.update(f"{name} (labels)" for name in _shapes(timers) ^ _shapes(agent))
        peers = [
            {key: series[key] for key in series if _is_of_peer(key[1])}
            for series in (timers, agent)
        ]
        found.update({name for name, _ in dict(peers[0].items() ^ peers[1].items())})
    return found


def _shapes(series: Series) -> set[str]:
    """The names of all series with those of their labels."""
    return {f"{name}{sorted(label for label, _ in labels)}" for name, labels in series}


def _is_of_peer(labels: frozenset[tuple[str, str]]) -> bool:
    return dict(labels).get("peer") in PEERS


def _report(
    observers: list[Observer], before: list[Figures], minutes: int, unequal: Counter[str]
) -> Iterator[str]:
    """Return the lines of a Markdown table, with costs of one minute."""
    yield f"after {minutes} minutes:"
    shown = [(name, path) for name in PEERS for path in (DIRECT, IDLE)]
    heads = [f"{path} to {name}, %" for name, path in shown]
    costs = ("pings", "log lines", "tailscaled, CPU ms", "tsfc, CPU ms")
    yield f"| node | looks | {' | '.join((*heads, *costs))} |"
    yield f"|{'---|' * (2 + len(heads) + len(costs))}"
    for observer, start in zip(observers, before, strict=True):
        now = _figures(observer)
        cells = (
            observer.node.name,
            f"{observer.looks}",
            *(f"{100 * observer.paths[key] / observer.looks:.2f}" for key in shown),
            "-" if observer.variant == TIMERS else f"{(now.pings - start.pings) / minutes:.1f}",
            f"{(now.log_lines - start.log_lines) / minutes:.1f}",
            f"{1000 * (now.tailscaled_cpu - start.tailscaled_cpu) / minutes:.0f}",
            f"{1000 * (now.tsfc_cpu - start.tsfc_cpu) / minutes:.0f}",
        )
        yield f"| {' | '.join(cells)} |"
    for observer in observers:
        lines = (observer.node.directory / "tsfc.log").read_text().splitlines()
        yield f"{observer.node.name} printed {len(lines)} lines: {sorted(set(lines))[:5]}"
    compared = minutes * len(KINDS)
    yield f"{compared} comparisons of the exporter's files; different: {dict(unequal) or 'nothing'}"
