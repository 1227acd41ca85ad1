"""The output of `tailscale ping` (`cmd/tailscale/cli/ping.go`, v1.102.3).

Needed only with `--source cli`: the LocalAPI responds with JSON.
"""

from __future__ import annotations

import re

from tsfc.core.tailscale.ping import ERROR, NO_REPLY, PingOutcome, PingResult

_PONG = re.compile(
    r"pong from .+ \([0-9A-Fa-f.:]+(?:, \d+)?\)"
    r" via (?P<via>DERP\(.*\)|peer-relay\(.*\)|\S+) in (?P<latency>[0-9.hmsuµn]+)"
)
"A number after the address is the port of the peer's API."
_TIMEOUT = re.compile(r'ping ".*" timed out|no reply')
_DATE = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ")
"Some releases begin an error with the local time."
_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_GO_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def parse_output(output: str) -> tuple[PingResult, ...]:
    """Return the results in the output of `tailscale ping`, at least one.

    Each pong is one result. All timeouts together are one result, and it comes first.
    Output with neither is an error. The exit status is not enough: it is 1 even for a
    peer that replies through a relay.
    """
    # On Windows a line ends with CR LF.
    lines = [_DATE.sub("", line.removesuffix("\r"), 1) for line in output.split("\n")]
    timeouts = [NO_REPLY] if any(map(_TIMEOUT.fullmatch, lines)) else []
    pongs = [
        PingResult(_outcome_of(pong["via"]), _seconds(pong["latency"]))
        for pong in map(_PONG.fullmatch, lines)
        if pong
    ]
    return (*timeouts, *pongs) or (ERROR,)


def _outcome_of(via: str) -> PingOutcome:
    if via.startswith("peer-relay("):
        return PingOutcome.PEER_RELAY
    # A pong without `ip:port` names its protocol; it came through a relay, too.
    return PingOutcome.DIRECT if ":" in via and not via.startswith("DERP(") else PingOutcome.DERP


def _seconds(duration: str) -> float:
    return sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_DURATION.findall(duration))
