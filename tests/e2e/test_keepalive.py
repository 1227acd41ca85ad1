"""Two nodes behind easy NATs are direct for as long as keepalive pings them, and not without it."""

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
from support.processes import complaints, series
from support.tailnets import tsfc

INTERVAL_SECONDS = 10.0
"The documented one."
ROUNDS = 10
COLD_SECONDS = 60.0
"A session ends 45 s after the last ping, and its path is trusted for 6.5 s more, of which the last heartbeat may have been 3 s before."
LONGEST_MOMENT_SECONDS = 3.5
"Of a direct path that shows as relay, which it does when pongs are late: the next heartbeat, 3 s later at most, brings it back."
MOST_OF_ALL_MOMENTS_SECONDS = 5.0
"Of a hundred seconds."
WAYS = {"localapi": (), "cli": ("--source", "cli")}


@pytest.mark.parametrize("way", WAYS)
def test_idle_nodes_become_direct_within_two_rounds_stay_so_for_ten_and_go_cold_without(
    release: str, way: str, box: Path
) -> None:
    with Lab(version=release, alpha=NAT.EASY, bravo=NAT.EASY) as lab:
        alpha, path = lab.node("alpha"), box / "keepalive.prom"
        flags = (
            "--metrics-path",
            str(path),
            *WAYS[way],
            *(("--tailscale", str(lab.programs / "tailscale")) if way == "cli" else ()),
        )
        assert not alpha.peer("bravo")["Active"]
        with rounds(alpha, *flags) as began:
            lab.wait_until(lambda: alpha.is_direct("bravo"), 2 * INTERVAL_SECONDS)
            lab.wait_until(
                lambda: len(began) >= 3, 2 * INTERVAL_SECONDS
            )  # the third round finds it direct
            seen = sampled_each_second(alpha, until=began[2] + ROUNDS * INTERVAL_SECONDS)
            exported = series(path.read_text())
        assert len(seen) >= ROUNDS * INTERVAL_SECONDS * 0.9
        lengths = moments(seen)
        assert max(lengths, default=0) <= LONGEST_MOMENT_SECONDS, lengths
        assert sum(lengths) <= MOST_OF_ALL_MOMENTS_SECONDS, lengths
        assert exported['tailscale_keepalive_peers{result="direct"}'] == 1
        assert (
            sum(
                value
                for name, value in exported.items()
                if name.startswith("tailscale_keepalive_peers{")
            )
            == 1
        )
        latency = exported['tailscale_keepalive_peer_latency_seconds{path="direct",peer="bravo"}']
        assert 0 <= latency < 1
        assert latency > 0 or way == "cli"  # the program says whole milliseconds
        lab.wait_until(
            lambda: not alpha.is_direct("bravo") and not alpha.peer("bravo")["Active"], COLD_SECONDS
        )


@contextmanager
def rounds(node: Node, *flags: str) -> Generator[list[float]]:
    """Runs keepalive as its timer does while the block lasts; gives when each round began, on the monotonic clock. Each has to end well."""
    over, began, wrong = threading.Event(), list[float](), list[str]()

    def keep() -> None:
        while not over.is_set():
            began.append(time.monotonic())
            ran = tsfc(node, "keepalive", *flags)
            if ran.status != 0 or complaints("keepalive", ran):
                wrong.append(str(ran))
            over.wait(INTERVAL_SECONDS - (time.monotonic() - began[-1]))

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield began
    finally:
        over.set()
        thread.join()
    assert wrong == []


def sampled_each_second(node: Node, *, until: float) -> list[tuple[float, bool]]:
    """Returns when the peer was looked at and whether it was direct then, each second, and after one that was not ten times as often."""
    seen: list[tuple[float, bool]] = []
    pause = threading.Event()
    while (now := time.monotonic()) < until:
        seen.append((now, node.is_direct("bravo")))
        pause.wait(1.0 if seen[-1][1] else 0.1)
    return seen


def moments(seen: list[tuple[float, bool]]) -> list[float]:
    """Returns how long each moment was in which the peer was not direct: from the first look that found it so to the next that did not."""
    lengths: list[float] = []
    began = None
    for at, is_direct in seen:
        if began is None and not is_direct:
            began = at
        elif began is not None and is_direct:
            lengths.append(at - began)
            began = None
    return lengths if began is None else [*lengths, seen[-1][0] - began]


def test_both_ways_say_the_same(box: Path) -> None:
    """What each answers for a direct peer, one on relay and one that does not answer."""
    with Lab(alpha=NAT.EASY, bravo=NAT.EASY, carol=NAT.NO_UDP, delta=NAT.EASY) as lab:
        alpha = lab.node("alpha")
        lab.node("delta").freeze()
        lab.wait_until(lambda: alpha.ping("bravo").get("Endpoint"), 30)
        found: list[set[str]] = []
        for way in WAYS:
            path = box / f"{way}.prom"
            flags = (
                "--metrics-path",
                str(path),
                "--source",
                way,
                "--tailscale",
                str(lab.programs / "tailscale"),
                "--ping-timeout",
                "1",
            )
            assert complaints("keepalive", tsfc(alpha, "keepalive", *flags)) == []
            exported = series(path.read_text())
            assert {
                name
                for name, value in exported.items()
                if name.startswith("tailscale_keepalive_peers{") and value
            } == {
                f'tailscale_keepalive_peers{{result="{result}"}}'
                for result in ("direct", "derp", "no_reply")
            }
            found.append({name for name in exported if re.match(r"tailscale_keepalive_peer", name)})
        assert found[0] == found[1]


def test_the_socket_costs_less_than_the_program() -> None:
    """CPU time of tsfc with all that it starts, and of tailscaled; `python -m lab measure cost` has figures."""
    with Lab(alpha=NAT.EASY, bravo=NAT.EASY) as lab:
        alpha = lab.node("alpha")
        lab.wait_until(lambda: alpha.ping("bravo").get("Endpoint"), 30)
        cost = dict.fromkeys(WAYS, 0.0)
        for way in 10 * list(WAYS):
            before = cpu_of_children()
            ran = tsfc(
                alpha, "keepalive", "--source", way, "--tailscale", str(lab.programs / "tailscale")
            )
            assert ran.status == 0, ran
            cost[way] += cpu_of_children() - before
        assert cost["localapi"] < cost["cli"]
        assert alpha.cpu_seconds() < cost["localapi"]


def cpu_of_children() -> float:
    """Returns the CPU time of all processes that this one has started and that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
