"""Which peers keepalive has to ping now, with `--adaptive-keepalive`.

tailscaled keeps a direct path open by itself, with a packet every 3 s, for 45 s after
the last ping (docs/tailscale.md). A ping in each round is needed only by a peer that
does not answer directly.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.peers import named
from tsfc.core.tailscale.ping import Ping, PingOutcome, PingResult
from tsfc.core.tailscale.status import Status

LONGEST_SECONDS = 35.0
"""Maximum age of a direct pong at the next round. If it is older, the peer is due.

tailscaled forgets a path 45 s after the last ping. The difference is for a round that
starts late. With rounds every 10 s, a peer is pinged every 30 s.
"""


class Pinged(Struct, frozen=True):
    """The last pings to a peer."""

    at: float
    "Seconds of `CLOCK_BOOTTIME` at which their round started."
    results: tuple[PingResult, ...]


class Sessions(Struct, frozen=True):
    """The last pings to each peer."""

    tailscaled_start: int | None = None
    "Unix time when the tailscaled that sent them started; None if it is unknown."
    peers: Mapping[Ping, Pinged] = {}


def of_tailscaled(sessions: Sessions, start: int | None) -> Sessions:
    """Return the sessions of the tailscaled that started at this time.

    A restart ends all sessions.
    """
    return sessions if sessions.tailscaled_start == start else Sessions(start)


def due(
    sessions: Sessions,
    pings: tuple[Ping, ...],
    status: Status,
    *,
    now: float,
    interval: float,
) -> tuple[Ping, ...]:
    """Return those of the pings that are needed in this round.

    A peer is left out if its path is direct in the status, its last pong was direct,
    and that pong is still young enough in the next round, after `interval` seconds.
    """
    direct = {peer.name for peer in named(status) if classify(peer.status) is Path.DIRECT}
    return tuple(
        ping
        for ping in pings
        if ping.peer not in direct or not _lasts(sessions.peers.get(ping), now + interval)
    )


def with_round(
    sessions: Sessions,
    pings: tuple[Ping, ...],
    results: Mapping[str, tuple[PingResult, ...]],
    now: float,
) -> Sessions:
    """Return the sessions after a round that started at `now`.

    `results` has the results of the peers that were due, by name. The others keep
    theirs. A peer that is not in `pings` is forgotten.
    """
    peers = {
        ping: Pinged(now, results[ping.peer]) if ping.peer in results else sessions.peers[ping]
        for ping in pings
        if ping.peer in results or ping in sessions.peers
    }
    return Sessions(sessions.tailscaled_start, peers)


def _lasts(pinged: Pinged | None, at: float) -> bool:
    """Whether the last pong was direct, and is young enough at a later time."""
    return (
        pinged is not None
        and bool(pinged.results)
        and pinged.results[-1].outcome is PingOutcome.DIRECT
        and at - pinged.at <= LONGEST_SECONDS
    )
