"""The decisions of the job `keepalive`: whom to ping, when to ping again, and what to say of the answers.

It does what `tailscale ping -c 3` does for one peer (`cmd/tailscale/cli/ping.go`, v1.102.3): disco pings, which
keep the NAT mappings open, until one was answered directly; a second between them, but none after one that was not
answered, for that took its time already; an error ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec
from msgspec import Struct, field
from returns.result import Failure, Result, Success

from tsfc.core.faults import Unusable
from tsfc.core.metrics.families import Family, Kind, Sample
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.peers import address, is_watched, named
from tsfc.core.tailscale.status import Status
from tsfc.core.text import one_line

PAUSE_SECONDS = 1.0
"Between an answer and the next ping (`ping.go`: `time.Sleep(time.Second)`)."


class Ping(Struct, frozen=True):
    """A peer to ping, by its Tailscale IP."""

    peer: str
    ip: str


class Outcome(StrEnum):
    """What came of the pings to one peer; the value of the labels `result` and `path`."""

    DIRECT = "direct"
    PEER_RELAY = "peer_relay"
    DERP = "derp"
    NO_REPLY = "no_reply"
    ERROR = "error"


class Answer(Struct, frozen=True):
    """What came of one ping."""

    outcome: Outcome
    latency_seconds: float | None = None
    "There for every answer of the peer: direct, peer_relay, derp."


NO_REPLY = Answer(Outcome.NO_REPLY)
ERROR = Answer(Outcome.ERROR)


class PingResult(Struct, frozen=True, kw_only=True):
    """The part of `ipnstate.PingResult` that is used: the LocalAPI's answer to a ping, with status 200 for an error too."""

    err: str = field(default="", name="Err")
    latency_seconds: float = field(default=0.0, name="LatencySeconds")
    endpoint: str = field(default="", name="Endpoint")
    "`ip:port`, set where the pong came directly."
    peer_relay: str = field(default="", name="PeerRelay")
    "`ip:port:vni:N`, set where it came through a peer relay."


_DECODER = msgspec.json.Decoder(PingResult)


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


def next_ping(answers: tuple[Answer, ...], count: int) -> float | None:
    """Returns in how many seconds to ping a peer again that answered like this; None where it is done."""
    if len(answers) >= count:
        return None
    match answers[-1:]:
        case ():
            return 0.0
        case (Answer(outcome=Outcome.DIRECT | Outcome.ERROR),):
            return None
        case (Answer(outcome=Outcome.NO_REPLY),):
            return 0.0
        case _:
            return PAUSE_SECONDS


def read_answer(raw: bytes) -> Result[Answer, Unusable]:
    """Reads the LocalAPI's answer to one ping."""
    try:
        result = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(Unusable(f"reading tailscaled's answer to a ping: {one_line(str(error))}"))
    if result.err:
        return Failure(Unusable(f"tailscaled says: {one_line(result.err)}"))
    outcome = (
        Outcome.DIRECT
        if result.endpoint
        else Outcome.PEER_RELAY
        if result.peer_relay
        else Outcome.DERP
    )
    return Success(Answer(outcome, max(0.0, result.latency_seconds)))


def result_of(answers: tuple[Answer, ...]) -> Answer:
    """Returns what a peer's answers come to: the last pong, else what came of the last ping."""
    pongs = [answer for answer in answers if answer.latency_seconds is not None]
    return (*answers, *pongs)[-1] if answers else NO_REPLY


def families(answers: Mapping[str, tuple[Answer, ...]] | None) -> tuple[Family, ...]:
    """Returns the metrics of one round, from the answers of each peer by name; none where nobody could be asked."""
    if answers is None:
        return ()
    results = {name: result_of(got) for name, got in sorted(answers.items())}
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


def _counts(results: Iterable[Answer]) -> Iterable[Sample]:
    outcomes = [result.outcome for result in results]
    return (Sample({"result": outcome.value}, outcomes.count(outcome)) for outcome in Outcome)
