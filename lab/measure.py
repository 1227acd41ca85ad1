"""Measure the timing of real nodes: `python -m lab measure [NAME...]`.

Each table has the number of tries and the distribution in seconds.
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
"Interval of keepalive."
POLL_SECONDS = 0.1
NEVER_SECONDS = 30.0
"A pair that is not direct by then never is: the slowest takes three attempts fewer."
IDLE_SECONDS = 60.0
WATCH_SECONDS = 60.0
ROUNDS = 20
PAIRS = 3
"Pairs of nodes in one lab; each is measured separately."


def pairs_of_kinds(names: dict[str, NAT]) -> list[tuple[str, str]]:
    """Return the pairs of source and target: each two nodes once.

    For two kinds of NAT, each kind is the source equally often.
    """
    pairs = itertools.combinations(sorted(names), 2)
    return [(one, other) if one[-1] == other[-1] else (other, one) for one, other in pairs]


def first_ping(samples: Samples) -> None:
    """Measure the time from the first ping to direct, for each two kinds of NAT.

    Then from the last ping to not `Active` and to no `CurAddr`. The nodes have had no
    traffic before.
    """
    names = {f"{kind.value}{number}": kind for number in (1, 2) for kind in NAT}
    with Lab(names) as lab, ThreadPoolExecutor(64) as pool:

        def measure_pair(pair: tuple[str, str]) -> None:
            _first_ping(lab.node(pair[0]), pair, names, samples)

        list(pool.map(measure_pair, pairs_of_kinds(names)))


def _first_ping(node: Node, pair: tuple[str, str], names: dict[str, NAT], samples: Samples) -> None:
    source, target = pair
    start = time.monotonic()
    last: list[float] = []
    thread = threading.Thread(target=lambda: last.append(node.ping_burst(target)))
    thread.start()
    direct = _wait(lambda: node.is_direct(target), NEVER_SECONDS, start)
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
    """Measure the time from the first ping to direct, by length of the burst."""
    for pings in (1, 3, 4, 10):
        with Lab(alpha=NAT.EASY, bravo=NAT.EASY) as lab:
            node = lab.node("alpha")
            start = time.monotonic()
            thread = threading.Thread(target=node.ping_burst, args=("bravo", pings))
            thread.start()
            direct = _wait(partial(node.is_direct, "bravo"), NEVER_SECONDS, start)
            samples[f"first ping to direct, two easy, a burst of {pings}"].append(direct)
            thread.join()


def cut(samples: Samples) -> None:
    """Measure how soon a path is relay without UDP, and direct with it again."""
    with _kept_alive() as lab, ThreadPoolExecutor() as pool:

        def measure_pair(pair: int) -> None:
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

        list(pool.map(measure_pair, range(PAIRS)))


def restarted(samples: Samples) -> None:
    """Measure how soon a node is `Running` and direct after a restart, with keepalive.

    Then the number and length of its moments on relay in the next minute.
    """
    with _kept_alive() as lab, ThreadPoolExecutor() as pool:

        def measure_pair(pair: int) -> None:
            node, peer = lab.node(f"a{pair}"), f"b{pair}"
            for _ in range(ROUNDS // PAIRS + 1):
                time.sleep(random.uniform(0, INTERVAL_SECONDS))
                start = time.monotonic()
                node.restart()
                samples["stop to `Running`"].append(
                    _wait(lambda: node.state() == "Running", IDLE_SECONDS, start)
                )
                samples["stop to the peer online"].append(
                    _wait(lambda: node.peer(peer).get("Online"), IDLE_SECONDS, start)
                )
                samples["stop to direct"].append(
                    _wait(lambda: node.is_direct(peer), IDLE_SECONDS, start)
                )
                _watch(node, peer, WATCH_SECONDS, "in the minute after a restart", samples)

        list(pool.map(measure_pair, range(PAIRS)))


def flickers(samples: Samples) -> None:
    """Measure the moments on relay of a direct peer without disturbances."""
    with _kept_alive() as lab, ThreadPoolExecutor() as pool:

        def measure_pair(pair: int) -> None:
            _watch(
                lab.node(f"a{pair}"),
                f"b{pair}",
                ROUNDS * WATCH_SECONDS / PAIRS,
                "undisturbed",
                samples,
            )

        list(pool.map(measure_pair, range(PAIRS)))


def cost(samples: Samples) -> None:
    """Measure the CPU time of one round of keepalive with one direct peer, by source.

    The time of tsfc includes the processes that it starts; that of tailscaled is
    separate.
    """
    with Lab(alpha=NAT.EASY, bravo=NAT.EASY) as lab:
        node = lab.node("alpha")
        lab.wait_until(lambda: node.ping("bravo").get("Endpoint"), NEVER_SECONDS)
        sources = {
            "over the socket": ["localapi"],
            "with the program": ["cli", "--tailscale", str(lab.programs / "tailscale")],
        }
        for _ in range(ROUNDS):
            for source, flags in sources.items():
                daemon, start = node.cpu_seconds(), time.monotonic()
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
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
                samples[f"CPU milliseconds of a round {source}: tsfc"].append(
                    1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
                )
                samples[f"CPU milliseconds of a round {source}: tailscaled"].append(
                    1000 * (node.cpu_seconds() - daemon)
                )
                samples[f"milliseconds of a round {source}"].append(
                    1000 * (time.monotonic() - start)
                )


def _watch(node: Node, peer: str, seconds: float, when: str, samples: Samples) -> None:
    """Measure the moments on relay of a direct peer: number per minute and length."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        minute_end = time.monotonic() + 60
        moments = 0
        while (left := minute_end - time.monotonic()) > 0:
            if _wait(lambda: not node.is_direct(peer), left) is not None:
                moments += 1
                samples[f"direct peer, {when}: length of a moment on relay"].append(
                    _wait(lambda: node.is_direct(peer), IDLE_SECONDS)
                )
        samples[f"direct peer, {when}: moments on relay in a minute (not seconds)"].append(moments)


@contextmanager
def _kept_alive() -> Generator[Lab]:
    """Pairs of easy, direct nodes; in each, `aN` pings `bN` as keepalive does."""
    with Lab({f"{side}{pair}": NAT.EASY for pair in range(PAIRS) for side in "ab"}) as lab:
        end = threading.Event()

        def keepalive(pair: int) -> None:
            while not end.is_set():
                start = time.monotonic()
                with suppress(OSError, KeyError):  # the node is restarting
                    lab.node(f"a{pair}").ping_burst(f"b{pair}")
                end.wait(INTERVAL_SECONDS - (time.monotonic() - start))

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
            end.set()
            for thread in threads:
                thread.join()


def _wait(
    predicate: Callable[[], object], seconds: float, start: float | None = None
) -> float | None:
    """Wait until a condition holds, and return the seconds from `start` (default: now).

    None if it does not hold within `seconds`.
    """
    start = time.monotonic() if start is None else start
    while time.monotonic() - start <= seconds:
        with suppress(OSError, KeyError):  # the node is restarting
            if predicate():
                return time.monotonic() - start
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
"Functions by name, each with its number of runs."


def table(samples: Samples) -> Iterable[str]:
    """Return the lines of a Markdown table with one row per measurement."""
    yield "| measured | tries | never | least | 5 % | median | 95 % | most |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, values in sorted(samples.items()):
        seconds = sorted(value for value in values if value is not None)
        figures = ["-"] * 5
        if seconds:
            cuts = (
                statistics.quantiles(seconds, n=20, method="inclusive")
                if len(seconds) > 1
                else seconds * 19
            )
            figures = [
                f"{value:.1f}"
                for value in (
                    seconds[0],
                    cuts[0],
                    statistics.median(seconds),
                    cuts[-1],
                    seconds[-1],
                )
            ]
        yield f"| {name} | {len(values)} | {len(values) - len(seconds)} | {' | '.join(figures)} |"


def measure(name: str) -> None:
    """Run one of `MEASUREMENTS`, and print its table."""
    function, runs = MEASUREMENTS[name]
    samples: Samples = defaultdict(list)
    for number in range(runs):
        print(f"lab: {name}, {number + 1} of {runs}", file=sys.stderr, flush=True)
        function(samples)
    print("\n".join(table(samples)), flush=True)
