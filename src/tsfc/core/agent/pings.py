"""What became of all pings of the job `keepalive`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from msgspec import Struct

from tsfc.core.metrics.families import Family, Kind, Sample
from tsfc.core.tailscale.ping import PingOutcome, PingResult

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"Upper bounds in seconds: from two hosts on one switch to a relay around the world."


class Latencies(Struct, frozen=True):
    """A histogram of round-trip times."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    "One for each bucket, and one for what is larger than all. Not cumulative."
    total: float = 0.0
    "Sum in seconds."


class Pings(Struct, frozen=True):
    """What became of all pings since the agent started."""

    results: Mapping[str, Mapping[PingOutcome, int]] = {}
    "By name of the peer."
    latencies: Mapping[PingOutcome, Latencies] = {}
    "By the path of the pong."


def with_round(pings: Pings, round_: Mapping[str, tuple[PingResult, ...]]) -> Pings:
    """Return the pings after a round. A peer that is not in it is forgotten."""
    results: dict[str, Mapping[PingOutcome, int]] = {}
    found: dict[PingOutcome, list[float]] = {}
    for name, of_peer in round_.items():
        counts = dict(pings.results.get(name, {}))
        for result in of_peer:
            counts[result.outcome] = counts.get(result.outcome, 0) + 1
            if result.latency_seconds is not None:
                found.setdefault(result.outcome, []).append(result.latency_seconds)
        results[name] = counts
    latencies = dict(pings.latencies)
    for outcome, seconds in found.items():
        latencies[outcome] = _with_latencies(latencies.get(outcome, Latencies()), seconds)
    return Pings(results, latencies)


def metrics(pings: Pings) -> tuple[Family, ...]:
    """Return the metrics: counters of each peer, and a histogram of each path."""
    return (
        Family(
            "tailscale_keepalive_pings_total",
            Kind.COUNTER,
            "Pings to the peer by their results, since the agent started.",
            tuple(
                Sample({"peer": name, "result": outcome.value}, counts[outcome])
                for name, counts in sorted(pings.results.items())
                for outcome in PingOutcome
                if outcome in counts
            ),
        ),
        Family(
            "tailscale_keepalive_rtt_seconds",
            Kind.HISTOGRAM,
            "Round-trip times of pings in seconds, by the path of the pong.",
            tuple(
                sample
                for outcome in PingOutcome
                if outcome in pings.latencies
                for sample in _samples(outcome.value, pings.latencies[outcome])
            ),
        ),
    )


def _with_latencies(latencies: Latencies, seconds: list[float]) -> Latencies:
    counts = list(latencies.counts)
    for value in seconds:
        counts[bisect_left(BUCKETS, value)] += 1
    return Latencies(tuple(counts), latencies.total + sum(seconds))


def _samples(path: str, latencies: Latencies) -> Iterable[Sample]:
    number = 0
    for bound, count in zip((*BUCKETS, float("inf")), latencies.counts, strict=True):
        number += count
        text = "+Inf" if bound == float("inf") else f"{bound:g}"
        yield Sample({"path": path, "le": text}, number, "_bucket")
    yield Sample({"path": path}, number, "_count")
    yield Sample({"path": path}, round(latencies.total, 6), "_sum")
