"""The contents of the reports of `replay` and `simulate`; `report` renders them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.duration import duration
from tsfc.core.evaluation import candidate, summary
from tsfc.core.evaluation.candidate import Candidate
from tsfc.core.evaluation.statistics import Statistics, peers_at_end
from tsfc.core.evaluation.timeline import Timeline

NAMES = {
    "relay_seconds": "on relay",
    "direct_seconds": "direct",
    "longest_seconds": "longest episode",
}
"Names of counts, where they differ from the key."
SEED = "seed"


class Table(Struct, frozen=True):
    """A table; the first cell of a row is its name, the others are numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Distribution(Struct, frozen=True):
    """The distribution of one count over many runs."""

    name: str
    median: int
    p5: int
    p95: int
    worst: int
    maximum: int
    "Largest value under any policy: the end of the scale."


class PolicyDistributions(Struct, frozen=True):
    """The distributions of all counts under one policy."""

    policy: str
    rows: Sequence[Distribution]


class Drawing(Struct, frozen=True):
    """A timeline with what the page needs to draw it."""

    timeline: Timeline
    caption: str
    peers: Sequence[str]
    "Names in the order of the lanes."


class Document(Struct, frozen=True):
    """The contents of a report."""

    title: str
    subtitle: Sequence[str]
    "What the report is about: the node, the time and the policy."
    tiles: Sequence[tuple[str, str]]
    "The numbers that matter most, each with its name."
    facts: Sequence[tuple[str, str]]
    "All numbers."
    notes: Sequence[str] = ()
    drawing: Drawing | None = None
    peers: Table | None = None
    comparison: Table | None = None
    distributions: Sequence[PolicyDistributions] = ()


def of_one(
    title: str,
    policy: Candidate,
    statistics: Statistics,
    timeline: Timeline,
    *,
    node: str = "",
    extra: Mapping[str, int],
    notes: Sequence[str],
    comparison: Table | None = None,
) -> Document:
    """Return the report of one replay or one simulated run.

    `node` is the name of the node; a simulated one has none.
    `extra` has the counts that only a simulation knows.
    `comparison` has the results under each policy.
    """
    others = "; the table compares the policies" if comparison else ""
    counts = {**summary.counts(statistics), **extra}
    period = _period(statistics.first or 0, statistics.last or 0)
    return Document(
        title,
        [*([f"node {node}"] if node else []), period, candidate.text(policy)],
        _tiles(counts),
        [_fact(name, count) for name, count in counts.items()],
        notes,
        Drawing(
            timeline,
            f"Under {candidate.text(policy)}{others}.",
            _lane_order(statistics, timeline),
        ),
        Table(*summary.peer_table(statistics)),
        comparison,
    )


def of_many(
    one: Document,
    runs: int,
    policies: Sequence[Candidate],
    results: Sequence[Mapping[str, Mapping[str, int]]],
) -> Document:
    """Return the report of many simulated runs.

    `one` is the report of the first run, which gives the numbers and the timeline.
    `results` has, for each policy, the median and percentiles of each count.
    """
    names = dict.fromkeys(name for result in results for name in result)
    # One scale for a count under all policies, so that the bars can be compared.
    maximum = {
        name: max(max(result[name].values()) for result in results if name in result)
        for name in names
    }
    distributions = [
        PolicyDistributions(
            candidate.text(policy),
            [
                Distribution(name.replace("_", " "), **numbers, maximum=maximum[name])
                for name, numbers in result.items()
            ],
        )
        for policy, result in zip(policies, results, strict=True)
    ]
    note = (
        f"The numbers above and the timeline show the first of {runs} runs; "
        "the distributions cover all of them."
    )
    return replace(one, notes=[*one.notes, note], distributions=distributions)


def _period(first: int, last: int) -> str:
    """Return two Unix times as text: the second without its date if it is the same."""
    start, end = (summary.utc(unix).replace("T", " ") for unix in (first, last))
    is_same_day = start[:10] == end[:10]
    return f"{start} to {end[11:] if is_same_day else end} ({duration(last - first)})"


def _tiles(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    relay, direct = counts["relay_seconds"], counts["direct_seconds"]
    share = f"{100 * direct / (relay + direct):.1f} %" if relay + direct else "unknown"
    names = [name for name in ("restarts", "needless_restarts", "relay_seconds") if name in counts]
    return [*(_fact(name, counts[name]) for name in names), ("direct", share)]


def _fact(name: str, count: int) -> tuple[str, str]:
    """Return the name of a count and its value: a duration, or grouped digits."""
    words = NAMES.get(name) or name.removesuffix("_seconds").replace("_", " ")
    if name == SEED:  # to be copied to `--seed`
        return words, str(count)
    if name.endswith("_seconds"):
        return words, duration(count)
    return words, f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _lane_order(statistics: Statistics, timeline: Timeline) -> list[str]:
    """Return the names of all peers, the longest on relay first."""
    counted = peers_at_end(statistics)
    return sorted(
        timeline.peers,
        key=lambda name: (-counted[name].relay_seconds if name in counted else 1, name),
    )
