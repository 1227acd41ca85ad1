"""What the reports of `replay` and `simulate` say; how it looks is `report`'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from tsfc.core.evaluation import summary
from tsfc.core.evaluation.statistics import Statistics, peers_at_end
from tsfc.core.evaluation.timeline import Timeline
from tsfc.core.watchdog.policy import Policy
from tsfc.offline.report.report import Distribution, Document, Drawing, Spread, Table


def of_one(
    title: str,
    policy: Policy,
    statistics: Statistics,
    timeline: Timeline,
    *,
    extra: Mapping[str, int],
    notes: Sequence[str],
    comparison: Table | None = None,
) -> Document:
    """Returns the report of one fold; `extra` are counts that only a simulation has, `comparison` is the same under other policies."""
    others = "; of the other policies there is the table" if comparison else ""
    return Document(
        title,
        _facts(policy, statistics, extra),
        notes,
        Drawing(
            timeline,
            f"Under {summary.policy_text(policy)}{others}.",
            _in_order(statistics, timeline),
        ),
        Table(*summary.peer_table(statistics)),
        comparison,
    )


def of_many(
    one: Document,
    runs: int,
    policies: Sequence[Policy],
    spreads: Sequence[Mapping[str, Mapping[str, int]]],
) -> Document:
    """Returns the report of many runs: how they are spread under each policy, and the timeline of `one` of them."""
    names = list(spreads[0])
    most = {name: max(max(spread[name].values()) for spread in spreads) for name in names}
    distributions = [
        Distribution(
            summary.policy_text(policy),
            [Spread(name.replace("_", " "), **spread[name], most=most[name]) for name in names],
        )
        for policy, spread in zip(policies, spreads, strict=True)
    ]
    notes = [
        *one.notes,
        f"Of the first of {runs} runs are the numbers above and the timeline; of all of them are the distributions.",
    ]
    return replace(one, notes=notes, distributions=distributions)


def _facts(
    policy: Policy, statistics: Statistics, extra: Mapping[str, int]
) -> list[tuple[str, str]]:
    when = f"{summary.utc(statistics.first or 0)} to {summary.utc(statistics.last or 0)}"
    numbers = {**summary.counts(statistics), **extra}
    return [
        ("time", when),
        ("policy", summary.policy_text(policy)),
        *((name.replace("_", " "), str(number)) for name, number in numbers.items()),
    ]


def _in_order(statistics: Statistics, timeline: Timeline) -> list[str]:
    """Returns the names of all peers that were seen, trouble on top: longest on relay first."""
    counted = peers_at_end(statistics)
    return sorted(
        timeline.peers,
        key=lambda name: (-counted[name].relay_seconds if name in counted else 1, name),
    )
