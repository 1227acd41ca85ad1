"""Keepalive on a real tailnet: how it keeps the paths between nodes direct."""

from __future__ import annotations

import re
import resource
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import NAT, Lab, Node
from support.processes import error_lines, series
from support.tailnets import tsfc

INTERVAL_SECONDS = 10.0
"Documented interval of keepalive."
ROUNDS = 10
COLD_SECONDS = 60.0
"A session ends 45 s after the last ping; tailscaled trusts its path for 6.5 s more."
LONGEST_MOMENT_SECONDS = 3.5
"A late pong shows a direct path as relay until the next heartbeat, 3 s later at most."
TOTAL_MOMENTS_SECONDS = 5.0
"Limit of all moments on relay within a hundred seconds."
SOURCES = ("localapi", "cli")


@pytest.mark.parametrize("source", SOURCES)
def test_idle_nodes_become_direct_within_two_rounds_and_stay_direct_while_pinged(
    release: str, source: str, box: Path
) -> None:
    with Lab(version=release, alpha=NAT.EASY, bravo=NAT.EASY) as lab:
        alpha, path = lab.node("alpha"), box / "keepalive.prom"
        # Without a flag, tsfc uses the LocalAPI because the socket is available.
        flags = source_flags(lab, source) if source == "cli" else ()
        assert not alpha.peer("bravo")["Active"]
        with rounds(alpha, "--metrics-path", str(path), *flags) as starts:
            # Direct within two rounds; the third round finds it direct.
            lab.wait_until(lambda: alpha.is_direct("bravo"), 2 * INTERVAL_SECONDS)
            lab.wait_until(lambda: len(starts) >= 3, 2 * INTERVAL_SECONDS)
            samples = sample_path(alpha, until=starts[2] + ROUNDS * INTERVAL_SECONDS)
            exported = series(path.read_text())
        # Direct for ten rounds, but for short moments.
        assert len(samples) >= ROUNDS * INTERVAL_SECONDS * 0.9
        lengths = moments(samples)
        assert max(lengths, default=0) <= LONGEST_MOMENT_SECONDS, lengths
        assert sum(lengths) <= TOTAL_MOMENTS_SECONDS, lengths
        assert exported['tailscale_keepalive_peers{result="direct"}'] == 1
        assert len(results(exported)) == 1
        latency = exported['tailscale_keepalive_peer_latency_seconds{path="direct",peer="bravo"}']
        assert 0 <= latency < 1
        assert latency > 0 or source == "cli"  # the CLI rounds to milliseconds
        # Idle without keepalive.
        lab.wait_until(
            lambda: not alpha.is_direct("bravo") and not alpha.peer("bravo")["Active"], COLD_SECONDS
        )


def source_flags(lab: Lab, source: str) -> tuple[str, ...]:
    """Return the flags that select a source of tsfc."""
    return ("--source", source, "--tailscale", str(lab.programs / "tailscale"))


def results(exported: dict[str, float]) -> set[str]:
    """Return the results of the pings that at least one peer has."""
    return {
        match[1]
        for name, value in exported.items()
        if value and (match := re.fullmatch(r'tailscale_keepalive_peers\{result="(.*)"\}', name))
    }


@contextmanager
def rounds(node: Node, *flags: str) -> Generator[list[float]]:
    """Run keepalive within the block as its timer does; each round must succeed.

    Yield the list of the starts of the rounds, on the monotonic clock.
    """
    end, starts, failures = threading.Event(), list[float](), list[str]()

    def run_rounds() -> None:
        while not end.is_set():
            starts.append(time.monotonic())
            ran = tsfc(node, "keepalive", *flags)
            if ran.status != 0 or error_lines("keepalive", ran):
                failures.append(str(ran))
            end.wait(INTERVAL_SECONDS - (time.monotonic() - starts[-1]))

    thread = threading.Thread(target=run_rounds)
    thread.start()
    try:
        yield starts
    finally:
        end.set()
        thread.join()
    assert failures == []


def sample_path(node: Node, *, until: float) -> list[tuple[float, bool]]:
    """Sample whether bravo is direct, each second, and each 0.1 s while on relay.

    Return pairs of the time on the monotonic clock and whether the path was direct.
    """
    samples: list[tuple[float, bool]] = []
    pause = threading.Event()
    while (now := time.monotonic()) < until:
        samples.append((now, node.is_direct("bravo")))
        pause.wait(1.0 if samples[-1][1] else 0.1)
    return samples


def moments(samples: list[tuple[float, bool]]) -> list[float]:
    """Return the seconds of each moment on relay."""
    lengths: list[float] = []
    start = None
    for at, is_direct in samples:
        if start is None and not is_direct:
            start = at
        elif start is not None and is_direct:
            lengths.append(at - start)
            start = None
    return lengths if start is None else [*lengths, samples[-1][0] - start]


def test_both_sources_export_the_same_metrics(box: Path) -> None:
    """For a direct peer, one on relay and an unreachable one."""
    with Lab(alpha=NAT.EASY, bravo=NAT.EASY, carol=NAT.NO_UDP, delta=NAT.EASY) as lab:
        alpha = lab.node("alpha")
        lab.node("delta").freeze()
        lab.wait_until(lambda: alpha.ping("bravo").get("Endpoint"), 30)
        names: list[set[str]] = []
        for source in SOURCES:
            path = box / f"{source}.prom"
            flags = ("--metrics-path", str(path), "--ping-timeout", "1", *source_flags(lab, source))
            assert error_lines("keepalive", tsfc(alpha, "keepalive", *flags)) == []
            exported = series(path.read_text())
            assert results(exported) == {"direct", "derp", "no_reply"}
            names.append({name for name in exported if name.startswith("tailscale_keepalive_peer")})
        assert names[0] == names[1]


def test_the_localapi_costs_less_cpu_time_than_the_cli() -> None:
    """CPU time of tsfc with its children; `python -m lab measure cost` prints it."""
    with Lab(alpha=NAT.EASY, bravo=NAT.EASY) as lab:
        alpha = lab.node("alpha")
        lab.wait_until(lambda: alpha.ping("bravo").get("Endpoint"), 30)
        cost = dict.fromkeys(SOURCES, 0.0)
        for source in 10 * SOURCES:
            before = children_cpu_seconds()
            ran = tsfc(alpha, "keepalive", *source_flags(lab, source))
            assert ran.status == 0, ran
            cost[source] += children_cpu_seconds() - before
        assert cost["localapi"] < cost["cli"]
        assert alpha.cpu_seconds() < cost["localapi"]


def children_cpu_seconds() -> float:
    """Return the CPU time of all children of this process that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
