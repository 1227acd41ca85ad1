"""Decisions of the job `keepalive`: which peers to ping and when, and the metrics.

Each peer gets disco pings, which keep its NAT mappings open, until one pong comes
directly. Pings are one second apart. A ping without a reply has already waited for its
timeout, so the next follows at once. An error ends the pings to a peer. `tailscale ping
-c 3` does the same for one peer (`cmd/tailscale/cli/ping.go`, v1.102.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from tsfc.core.memo import keep_last
from tsfc.core.metrics.families import Family, Kind, Sample, gauge
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.naming import match
from tsfc.core.tailscale.peers import address, is_watched, named
from tsfc.core.tailscale.ping import NO_REPLY, Ping, PingOutcome, PingResult
from tsfc.core.tailscale.status import Status

PAUSE_SECONDS = 1.0
"Seconds between a reply and the next ping (`ping.go`: `time.Sleep(time.Second)`)."


class Exclusion(Struct, frozen=True):
    """Peers that get no pings."""

    peers: tuple[str, ...] = ()
    "Names of peers, as for `naming.find`."
    systems: tuple[str, ...] = ()
    "Operating systems, as in the status but in any case: `iOS`, `android`."


NOBODY = Exclusion()


@keep_last
def pings(status: Status, excluded: Exclusion = NOBODY) -> tuple[Ping, ...]:
    """Return the peers to ping, sorted by name.

    These are the watched peers with a Tailscale IP that are not excluded; none unless
    the backend is Running. The agent uses a status for three rounds.
    """
    if not statuses.is_running(status):
        return ()
    own = status.self_.tailscale_ips or ()
    peers = named(status)
    names = match(peers, status.self_, excluded.peers).peers
    systems = frozenset(map(str.casefold, excluded.systems))
    return tuple(
        Ping(peer.name, ip)
        for peer in peers
        if is_watched(peer.status, own)
        and peer.name not in names
        and peer.status.os.casefold() not in systems
        and (ip := address(peer.status)) is not None
    )


def unknown_names(status: Status, excluded: Exclusion) -> tuple[str, ...]:
    """Return the excluded names that no peer has; none unless tailscaled is Running."""
    if not statuses.is_running(status):
        return ()
    return match(named(status), status.self_, excluded.peers).unmatched


def next_ping(results: tuple[PingResult, ...], count: int) -> float | None:
    """Return the seconds until the next ping to a peer; None if there is no other.

    `results` are those of the peer's earlier pings, `count` is their maximum number.
    """
    if len(results) >= count:
        return None
    match results[-1:]:
        case ():
            return 0.0
        case (PingResult(outcome=PingOutcome.DIRECT | PingOutcome.ERROR),):
            return None
        case (PingResult(outcome=PingOutcome.NO_REPLY),):
            return 0.0
        case _:
            return PAUSE_SECONDS


def overall_result(results: tuple[PingResult, ...]) -> PingResult:
    """Return the result that stands for a peer: its last pong, else its last result."""
    pongs = [result for result in results if result.latency_seconds is not None]
    return (*results, *pongs)[-1] if results else NO_REPLY


def metrics(
    results: Mapping[str, tuple[PingResult, ...]] | None, unknown: tuple[str, ...] = ()
) -> tuple[Family, ...]:
    """Return the metrics of one round, from the results of each peer by its name.

    `results` is None if the status could not be read; then there are no metrics.
    `unknown` are the excluded names that no peer has.
    """
    if results is None:
        return ()
    overall = {name: overall_result(of_peer) for name, of_peer in sorted(results.items())}
    return (
        Family(
            "tailscale_keepalive_peers",
            Kind.GAUGE,
            "Number of peers pinged in the last round, by result.",
            tuple(_counts(overall.values())),
        ),
        Family(
            "tailscale_keepalive_peer_latency_seconds",
            Kind.GAUGE,
            "Round-trip time of the peer's last pong in the last round, in seconds, by its path.",
            tuple(
                Sample(
                    {"peer": name, "path": result.outcome.value}, round(result.latency_seconds, 6)
                )
                for name, result in overall.items()
                if result.latency_seconds is not None
            ),
        ),
        gauge(
            "tailscale_keepalive_unmatched_exclusions",
            "Names given by --exclude-peer that no peer has.",
            len(unknown),
        ),
    )


def _counts(results: Iterable[PingResult]) -> Iterable[Sample]:
    outcomes = [result.outcome for result in results]
    return (Sample({"result": outcome.value}, outcomes.count(outcome)) for outcome in PingOutcome)
