"""How long each peer was on which path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from tsfc.core.clock import Instant, suspended_between
from tsfc.core.metrics.families import Family, Kind, Sample
from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.peers import named
from tsfc.core.tailscale.status import Status, is_running

LONGEST_SECONDS = 90
"""Longest time between two looks that counts.

What happened in a longer one, nobody knows. The usual time is 30 s.
"""


class PeerPath(Struct, frozen=True):
    """The paths of one peer since the agent has seen it first."""

    name: str
    path: Path
    since: int
    "Unix time at which it was first seen on this path."
    changes: int = 0
    "Number of times that it was on another path than the look before."
    seconds: Mapping[Path, int] = {}


class Paths(Struct, frozen=True):
    """The paths of all peers."""

    at: Instant | None = None
    "The last look; None if nothing could be seen then."
    peers: Mapping[str, PeerPath] = {}
    "By StableNodeID, or name where that is unknown."


def with_status(paths: Paths, status: Status, now: Instant) -> Paths:
    """Return the paths after a look.

    The time since the last look belongs to the path that a peer had then. A peer that
    has gone is forgotten.
    """
    if not is_running(status):
        return without_status(paths)
    passed = _passed(paths.at, now)
    peers = named(status)
    return Paths(
        now,
        {
            key: _seen(paths.peers.get(key), peer.name, classify(peer.status), passed, now.unix)
            for peer in peers
            for key in (peer.status.id or peer.name,)
        },
    )


def without_status(paths: Paths) -> Paths:
    """Return the paths after a look that has shown nothing: its time does not count."""
    return Paths(None, paths.peers)


def metrics(paths: Paths) -> tuple[Family, ...]:
    """Return the metrics; none of a peer's path if the last look has shown nothing."""
    peers = sorted(paths.peers.values(), key=lambda peer: peer.name)
    return (
        Family(
            "tailscale_peer_path_seconds_total",
            Kind.COUNTER,
            "Seconds that the peer was on each path, since the agent started.",
            tuple(_seconds(peers)),
        ),
        Family(
            "tailscale_peer_path_changes_total",
            Kind.COUNTER,
            "Times that the peer's path changed, since the agent started.",
            tuple(Sample({"peer": peer.name}, peer.changes) for peer in peers),
        ),
        Family(
            "tailscale_peer_path_since_timestamp_seconds",
            Kind.GAUGE,
            "Unix time since which the peer is on its path, or since which the agent sees it.",
            ()
            if paths.at is None
            else tuple(Sample({"peer": peer.name}, peer.since) for peer in peers),
        ),
    )


def summary(paths: Paths) -> str:
    """Return the number of peers on each path, as one line."""
    numbers = Counter(peer.path for peer in paths.peers.values())
    counts = [f"{numbers[path]} {path.replace('_', ' ')}" for path in Path if numbers[path]]
    return f"peers: {', '.join(counts) or 'none'}"


def _seconds(peers: Iterable[PeerPath]) -> Iterable[Sample]:
    return (
        Sample({"peer": peer.name, "path": path.value}, peer.seconds.get(path, 0))
        for peer in peers
        for path in Path
        if path in peer.seconds or path is peer.path
    )


def _passed(before: Instant | None, now: Instant) -> int:
    """Seconds between two looks; 0 if they do not count."""
    if before is None or suspended_between(before, now):
        return 0
    if before.boot is not None and now.boot is not None and before.boot.id == now.boot.id:
        seconds = now.boot.seconds - before.boot.seconds
    else:
        seconds = now.unix - before.unix
    return seconds if 0 <= seconds <= LONGEST_SECONDS else 0


def _seen(before: PeerPath | None, name: str, path: Path, passed: int, now: int) -> PeerPath:
    if before is None:
        return PeerPath(name, path, now)
    seconds = before.seconds
    if passed:
        seconds = {**seconds, before.path: seconds.get(before.path, 0) + passed}
    if path is before.path:
        return PeerPath(name, path, before.since, before.changes, seconds)
    return PeerPath(name, path, now, before.changes + 1, seconds)
