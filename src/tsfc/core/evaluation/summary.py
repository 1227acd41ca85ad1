"""Summary of the statistics, as text and as numbers for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from tsfc.core.evaluation.statistics import Statistics, peers_at_end

COLUMNS = ("restarts", "detections", "recoveries", "cooldowns", "relay_seconds", "longest_seconds")
"Counts that a comparison of policies shows."


def utc(unix: int) -> str:
    """Format a Unix time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def counts(statistics: Statistics) -> dict[str, int]:
    """Return the counts by their JSON keys.

    `relay_seconds` and `direct_seconds` are sums over all peers; `longest_seconds` is
    the longest episode.
    """
    peers = peers_at_end(statistics).values()
    return {
        "observations": statistics.observations,
        "faults": statistics.faults,
        "gaps": statistics.gaps,
        "restarts": statistics.state.restarts,
        "detections": statistics.state.detections,
        "recoveries": statistics.state.recoveries,
        "cooldowns": statistics.cooldowns,
        "relay_seconds": sum(peer.relay_seconds for peer in peers),
        "longest_seconds": max((peer.longest_seconds for peer in peers), default=0),
        "direct_seconds": statistics.direct_seconds,
    }


def text(statistics: Statistics, extra: str = "") -> str:
    """Return the summary as lines. `extra` goes before the table of peers."""
    number = counts(statistics)
    first, last = statistics.first or 0, statistics.last or 0
    columns, rows = peer_table(statistics)
    return (
        f"{number['observations']} observations"
        f" ({utc(first)} to {utc(last)}, {last - first} s),"
        f" {number['faults']} faults, {number['gaps']} gaps\n"
        f"{number['restarts']} restarts, {number['detections']} detections,"
        f" {number['recoveries']} recoveries, {number['cooldowns']} cooldowns\n"
        f"{number['relay_seconds']} s on relay, {number['direct_seconds']} s direct,"
        f" of all peers together; longest episode {number['longest_seconds']} s\n"
        + extra
        + (table(columns, rows) if rows else "")
    )


def peer_table(statistics: Statistics) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and one row per peer, the longest on relay first."""
    by_relay = sorted(
        peers_at_end(statistics).items(), key=lambda item: (-item[1].relay_seconds, item[0])
    )
    rows: list[tuple[str, ...]] = [
        (
            name,
            f"{peer.relay_seconds} s",
            str(peer.episodes),
            f"{peer.longest_seconds} s",
            str(peer.restarts_caused),
        )
        for name, peer in by_relay
    ]
    return ("peer", "on relay", "episodes", "longest", "restarts caused"), rows


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table. The first column is left-aligned, the others right-aligned."""
    widths = [max(len(row[number]) for row in (columns, *rows)) for number in range(len(columns))]

    def row_text(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "".join(row_text(row) + "\n" for row in (columns, *rows))
