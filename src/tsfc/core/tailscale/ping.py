"""Ping results, and the LocalAPI's response to a ping."""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct, field
from returns.result import Failure, Result, Success

from tsfc.core.faults import Unusable
from tsfc.core.text import one_line


class Ping(Struct, frozen=True):
    """A peer to ping, and its Tailscale IP."""

    peer: str
    ip: str


class PingKind(StrEnum):
    """What a ping tests; the LocalAPI's parameter `type`."""

    DISCO = "disco"
    "The path, without WireGuard."
    TSMP = "TSMP"
    "The data plane: it goes through WireGuard, and the pong does not tell the path."


class PingOutcome(StrEnum):
    """Outcome of a ping; the value of the labels `result` and `path`."""

    DIRECT = "direct"
    PEER_RELAY = "peer_relay"
    DERP = "derp"
    NO_REPLY = "no_reply"
    ERROR = "error"


class PingResult(Struct, frozen=True):
    """Outcome of one ping, and its round-trip time."""

    outcome: PingOutcome
    latency_seconds: float | None = None
    "Round-trip time in seconds. Present if the peer replied: direct, peer_relay, derp."


NO_REPLY = PingResult(PingOutcome.NO_REPLY)
ERROR = PingResult(PingOutcome.ERROR)


class PingResponse(Struct, frozen=True, kw_only=True):
    """The fields of `ipnstate.PingResponse` that are used.

    The LocalAPI responds to a ping with this document. The HTTP status is 200 even if
    `err` is set.
    """

    err: str = field(default="", name="Err")
    latency_seconds: float = field(default=0.0, name="LatencySeconds")
    endpoint: str = field(default="", name="Endpoint")
    "`ip:port`; set if the pong came directly."
    peer_relay: str = field(default="", name="PeerRelay")
    "`ip:port:vni:N`; set if the pong came through a peer relay."


_DECODER = msgspec.json.Decoder(PingResponse)


def parse_response(raw: bytes) -> Result[PingResult, Unusable]:
    """Decode the LocalAPI's response to a ping; fail if it is invalid or an error."""
    try:
        response = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(Unusable(f"reading tailscaled's response to a ping: {one_line(str(error))}"))
    if response.err:
        return Failure(Unusable(f"tailscaled reports: {one_line(response.err)}"))
    outcome = (
        PingOutcome.DIRECT
        if response.endpoint
        else PingOutcome.PEER_RELAY
        if response.peer_relay
        else PingOutcome.DERP
    )
    return Success(PingResult(outcome, max(0.0, response.latency_seconds)))
