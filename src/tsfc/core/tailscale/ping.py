"""The results of pings, and the LocalAPI's response to one."""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import Struct, field
from returns.result import Failure, Result, Success

from tsfc.core.faults import Unusable
from tsfc.core.text import one_line


class Ping(Struct, frozen=True):
    """A peer to ping, by its Tailscale IP."""

    peer: str
    ip: str


class PingOutcome(StrEnum):
    """What came of the pings to one peer; the value of the labels `result` and `path`."""

    DIRECT = "direct"
    PEER_RELAY = "peer_relay"
    DERP = "derp"
    NO_REPLY = "no_reply"
    ERROR = "error"


class PingResult(Struct, frozen=True):
    """What came of one ping."""

    outcome: PingOutcome
    latency_seconds: float | None = None
    "There for every answer of the peer: direct, peer_relay, derp."


NO_REPLY = PingResult(PingOutcome.NO_REPLY)
ERROR = PingResult(PingOutcome.ERROR)


class PingResponse(Struct, frozen=True, kw_only=True):
    """The part of `ipnstate.PingResponse` that is used: the LocalAPI's answer to a ping, with status 200 for an error too."""

    err: str = field(default="", name="Err")
    latency_seconds: float = field(default=0.0, name="LatencySeconds")
    endpoint: str = field(default="", name="Endpoint")
    "`ip:port`, set where the pong came directly."
    peer_relay: str = field(default="", name="PeerRelay")
    "`ip:port:vni:N`, set where it came through a peer relay."


_DECODER = msgspec.json.Decoder(PingResponse)


def parse_response(raw: bytes) -> Result[PingResult, Unusable]:
    """Reads the LocalAPI's answer to one ping."""
    try:
        result = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(Unusable(f"reading tailscaled's answer to a ping: {one_line(str(error))}"))
    if result.err:
        return Failure(Unusable(f"tailscaled says: {one_line(result.err)}"))
    outcome = (
        PingOutcome.DIRECT
        if result.endpoint
        else PingOutcome.PEER_RELAY
        if result.peer_relay
        else PingOutcome.DERP
    )
    return Success(PingResult(outcome, max(0.0, result.latency_seconds)))
