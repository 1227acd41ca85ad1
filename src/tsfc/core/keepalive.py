"""The decisions of the job `keepalive`: whom to ping, when to ping again, and what to say of the answers.

It does what `tailscale ping -c 3` does for one peer (`cmd/tailscale/cli/ping.go`, v1.102.3): disco pings, which
keep the NAT mappings open, until one was answered directly; a second between them, but none after one that was not
answered, for that took its time already; an error ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tsfc.core.metrics.families import Family, Kind, Sample
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.peers import address, is_watched, named
from tsfc.core.tailscale.ping import NO_REPLY, Ping, PingOutcome, PingResult
from tsfc.core.tailscale.status import Status

PAUSE_SECONDS = 1.0
"Between an answer and the next ping (`ping.go`: `time.Sleep(time.Second)`)."


def pings(status: Status) -> tuple[Ping, ...]:
    """Returns whom to ping, in the order of the names: watched peers that have a Tailscale IP; nobody while the backend is not Running."""
    if not statuses.is_running(status):
        return ()
    own = status.self_.tailscale_ips or ()
    return tuple(
        Ping(peer.name, ip)
        for peer in named(status)
        if is_watched(peer.status) and (ip := address(peer.status)) is not None and ip not in own
    )


def next_ping(answers: tuple[PingResult, ...], count: int) -> float | None:
    """Returns in how many seconds to ping a peer again that answered like this; None where it is done."""
    if len(answers) >= count:
        return None
    match answers[-1:]:
        case ():
            return 0.0
        case (PingResult(outcome=PingOutcome.DIRECT | PingOutcome.ERROR),):
            return None
        case (PingResult(outcome=PingOutcome.NO_REPLY),):
            return 0.0
        case _:
            return PAUSE_SECONDS


def overall_result(answers: tuple[PingResult, ...]) -> PingResult:
    """Returns what a peer's answers come to: the last pong, else what came of the last ping."""
    pongs = [answer for answer in answers if answer.latency_seconds is not None]
    return (*answers, *pongs)[-1] if answers else NO_REPLY


def metrics(answers: Mapping[str, tuple[PingResult, ...]] | None) -> tuple[Family, ...]:
    """Returns the metrics of one round, from the answers of each peer by name; none where nobody could be asked."""
    if answers is None:
        return ()
    results = {name: overall_result(got) for name, got in sorted(answers.items())}
    return (
        Family(
            "tailscale_keepalive_peers",
            Kind.GAUGE,
            "Peers pinged in the last round, by what came of it.",
            tuple(_counts(results.values())),
        ),
        Family(
            "tailscale_keepalive_peer_latency_seconds",
            Kind.GAUGE,
            "Round trip of the peer's last answer in the last round, and the path that it took.",
            tuple(
                Sample(
                    {"peer": name, "path": result.outcome.value}, round(result.latency_seconds, 6)
                )
                for name, result in results.items()
                if result.latency_seconds is not None
            ),
        ),
    )


def _counts(results: Iterable[PingResult]) -> Iterable[Sample]:
    outcomes = [result.outcome for result in results]
    return (Sample({"result": outcome.value}, outcomes.count(outcome)) for outcome in PingOutcome)
