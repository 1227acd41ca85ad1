"""Measures what a model of a tailnet needs, on real nodes: `python -m lab measure`, and what of it.

The tables say how often it was tried, and the distribution in seconds. `docs/tailscale.md` has such a run.
"""

from __future__ import annotations

import itertools
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial

from lab import NAT, Lab, Node

Samples = dict[str, list[float | None]]
INTERVAL_SECONDS = 10.0
"Of keepalive."
POLL_SECONDS = 0.1
NEVER_SECONDS = 30.0
"A pair that is not direct after so long never is: that is three more attempts than the slowest takes."
IDLE_SECONDS = 60.0
WATCH_SECONDS = 60.0
ROUNDS = 20
PAIRS = 3
"Of nodes in one lab, where each pair is a try of its own."


def pairs_of_kinds(names: dict[str, NAT]) -> list[tuple[str, str]]:
    """Returns who pings whom: each two of the nodes once, and of two kinds both directions equally often."""
    pairs = itertools.combinations(sorted(names), 2)
    return [(one, other) if one[-1] == other[-1] else (other, one) for one, other in pairs]


def first_ping(samples: Samples) -> None:
    """First ping to direct for each two kinds of NAT, and from the last ping to not `Active` and to no `CurAddr`; nothing was warm before."""
    names = {f"{kind.value}{number}": kind for number in (1, 2) for kind in NAT}
    with Lab(names) as lab, ThreadPoolExecutor(64) as pool:

        def one(pair: tuple[str, str]) -> None:
            _one_pair(lab.node(pair[0]), pair, names, samples)

        list(pool.map(one, pairs_of_kinds(names)))


def _one_pair(node: Node, pair: tuple[str, str], names: dict[str, NAT], samples: Samples) -> None:
    source, target = pair
    began = time.monotonic()
    last: list[float] = []
    thread = threading.Thread(target=lambda: last.append(node.ping_burst(target)))
    thread.start()
    direct = _wait(lambda: node.is_direct(target), NEVER_SECONDS, began)
    thread.join()
    samples[f"first ping to direct, {names[source].value} to {names[target].value}"].append(direct)
    samples["last ping to not `Active`"].append(
        _wait(lambda: not node.peer(target)["Active"], IDLE_SECONDS, last[0])
    )
    if direct is not None:
        samples["last ping to no `CurAddr`"].append(
            _wait(lambda: not node.is_direct(target), IDLE_SECONDS, last[0])
        )


def more_pings(samples: Samples) -> None:
    """First ping to direct of two easy nodes, by how many pings there are in the burst."""
    for pings in (1, 3, 4, 10):
        with Lab(alpha=NAT.EASY, bravo=NAT.EASY) as lab:
            node = lab.node("alpha")
            began = time.monotonic()
            thread = threading.Thread(target=node.ping_burst, args=("bravo", pings))
            thread.start()
            direct = _wait(partial(node.is_direct, "bravo"), NEVER_SECONDS, began)
            samples[f"first ping to direct, two easy, a burst of {pings}"].append(direct)
            thread.join()


def cut(samples: Samples) -> None:
    """UDP cut at the peer's router until relay, and UDP back until direct, under keepalive."""
    with _kept_alive() as lab, ThreadPoolExecutor() as pool:

        def one(pair: int) -> None:
            node, peer = lab.node(f"a{pair}"), f"b{pair}"
            for _ in range(ROUNDS // PAIRS + 1):
                time.sleep(random.uniform(0, INTERVAL_SECONDS))
                lab.block_udp(peer)
                samples["UDP cut to relay"].append(
                    _wait(lambda: node.is_relayed(peer), IDLE_SECONDS)
                )
                time.sleep(random.uniform(0, 2 * INTERVAL_SECONDS))
                lab.unblock_udp(peer)
                samples["UDP back to direct"].append(
                    _wait(lambda: node.is_direct(peer), IDLE_SECONDS)
                )

        list(pool.map(one, range(PAIRS)))


def restarted(samples: Samples) -> None:
    """Restart of tailscaled until `Running` and until direct, under keepalive, and how often and how long the path is relay after that."""
    with _kept_alive() as lab, ThreadPoolExecutor() as pool:

        def one(pair: int) -> None:
            node, peer = lab.node(f"a{pair}"), f"b{pair}"
            for _ in range(ROUNDS // PAIRS + 1):
                time.sleep(random.uniform(0, INTERVAL_SECONDS))
                began = time.monotonic()
                node.restart()
                samples["stop to `Running`"].append(
                    _wait(lambda: node.state() == "Running", IDLE_SECONDS, began)
                )
                samples["stop to the peer online"].append(
                    _wait(lambda: node.peer(peer).get("Online"), IDLE_SECONDS, began)
                )
                samples["stop to direct"].append(
                    _wait(lambda: node.is_direct(peer), IDLE_SECONDS, began)
                )
                _watch(node, peer, WATCH_SECONDS, "in the minute after a restart", samples)

        list(pool.map(one, range(PAIRS)))


def flickers(samples: Samples) -> None:
    """How often, and how long, a direct peer shows as not direct for a moment, under keepalive and nothing else."""
    with _kept_alive() as lab, ThreadPoolExecutor() as pool:

        def one(pair: int) -> None:
            _watch(
                lab.node(f"a{pair}"),
                f"b{pair}",
                ROUNDS * WATCH_SECONDS / PAIRS,
                "undisturbed",
                samples,
            )

        list(pool.map(one, range(PAIRS)))


def cost(samples: Samples) -> None:
    """CPU time of one round of keepalive with one direct peer, by each way: of tsfc with what it starts, and of tailscaled."""
    with Lab(alpha=NAT.EASY, bravo=NAT.EASY) as lab:
        node = lab.node("alpha")
        lab.wait_until(lambda: node.ping("bravo").get("Endpoint"), NEVER_SECONDS)
        ways = {
            "over the socket": ["localapi"],
            "with the program": ["cli", "--tailscale", str(lab.programs / "tailscale")],
        }
        for _ in range(ROUNDS):
            for way, flags in ways.items():
                daemon, began = node.cpu_seconds(), time.monotonic()
                used = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "tsfc",
                        "keepalive",
                        "--socket",
                        str(node.socket),
                        "--source",
                        *flags,
                    ],
                    check=True,
                )
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                samples[f"CPU milliseconds of a round {way}: tsfc"].append(
                    1000 * (after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)
                )
                samples[f"CPU milliseconds of a round {way}: tailscaled"].append(
                    1000 * (node.cpu_seconds() - daemon)
                )
                samples[f"milliseconds of a round {way}"].append(1000 * (time.monotonic() - began))


def _watch(node: Node, peer: str, seconds: float, when: str, samples: Samples) -> None:
    """Samples a peer that is direct: how many moments each minute has in which it is not, and how long each of them is."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        minute_ends = time.monotonic() + 60
        moments = 0
        while (left := minute_ends - time.monotonic()) > 0:
            if _wait(lambda: not node.is_direct(peer), left) is not None:
                moments += 1
                samples[f"direct peer, {when}: length of a moment on relay"].append(
                    _wait(lambda: node.is_direct(peer), IDLE_SECONDS)
                )
        samples[f"direct peer, {when}: moments on relay in a minute (not seconds)"].append(moments)


@contextmanager
def _kept_alive() -> Generator[Lab]:
    """A lab of pairs of easy nodes, of which one pings the other as keepalive does, and that are direct."""
    with Lab({f"{side}{pair}": NAT.EASY for pair in range(PAIRS) for side in "ab"}) as lab:
        over = threading.Event()

        def keepalive(pair: int) -> None:
            while not over.is_set():
                began = time.monotonic()
                with suppress(OSError, KeyError):  # it is being restarted
                    lab.node(f"a{pair}").ping_burst(f"b{pair}")
                over.wait(INTERVAL_SECONDS - (time.monotonic() - began))

        threads = [threading.Thread(target=keepalive, args=(pair,)) for pair in range(PAIRS)]
        for thread in threads:
            thread.start()
        try:
            lab.wait_until(
                lambda: all(lab.node(f"a{pair}").is_direct(f"b{pair}") for pair in range(PAIRS)),
                IDLE_SECONDS,
            )
            yield lab
        finally:
            over.set()
            for thread in threads:
                thread.join()


def _wait(is_so: Callable[[], object], seconds: float, began: float | None = None) -> float | None:
    """Returns how long it took, from `began` or from now; None where it took longer than `seconds`."""
    began = time.monotonic() if began is None else began
    while time.monotonic() - began <= seconds:
        with suppress(OSError, KeyError):  # it is being restarted
            if is_so():
                return time.monotonic() - began
        time.sleep(POLL_SECONDS)
    return None


MEASUREMENTS: dict[str, tuple[Callable[[Samples], None], int]] = {
    "first-ping": (first_ping, ROUNDS),
    "more-pings": (more_pings, ROUNDS),
    "cut": (cut, 1),
    "restarted": (restarted, 1),
    "flickers": (flickers, 1),
    "cost": (cost, 1),
}
"Each with how often it is done to have its tries."


def table(samples: Samples) -> Iterable[str]:
    """Returns a Markdown table: a row for each thing measured."""
    yield "| measured | tries | never | least | 5 % | median | 95 % | most |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, values in sorted(samples.items()):
        taken = sorted(value for value in values if value is not None)
        figures = ["-"] * 5
        if taken:
            cuts = (
                statistics.quantiles(taken, n=20, method="inclusive")
                if len(taken) > 1
                else taken * 19
            )
            figures = [
                f"{value:.1f}"
                for value in (taken[0], cuts[0], statistics.median(taken), cuts[-1], taken[-1])
            ]
        yield f"| {name} | {len(values)} | {len(values) - len(taken)} | {' | '.join(figures)} |"


def measure(name: str) -> None:
    """Measures one of `MEASUREMENTS`, and prints its table."""
    once, times = MEASUREMENTS[name]
    samples: Samples = defaultdict(list)
    for number in range(times):
        print(f"lab: {name}, {number + 1} of {times}", file=sys.stderr, flush=True)
        once(samples)
    print("\n".join(table(samples)), flush=True)
