"""The output of `tailscale ping` (`cmd/tailscale/cli/ping.go`, v1.102.3).

Needed only with `--source cli`: the LocalAPI responds with JSON.
"""

from __future__ import annotations

import re

from tsfc.core.tailscale.ping import ERROR, NO_REPLY, PingOutcome, PingResult

_PONG = re.compile(
    r"^pong from .+ \([0-9A-Fa-f.:]+\) via (?P<via>\S+) in (?P<latency>[0-9.hmsuµn]+)$",
    re.MULTILINE,
)
_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")
_GO_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def parse_output(output: str) -> tuple[PingResult, ...]:
    """Return the results in the output of `tailscale ping`, at least one.

    Each pong is one result. All timeouts together are one result, and it comes first.
    Output with neither is an error. The exit status is not enough: it is 1 even for a
    peer that replies through a relay.
    """
    results = (
        [NO_REPLY]
        if re.search(r"^(?:ping \".*\" timed out|no reply)$", output, re.MULTILINE)
        else []
    )
    results += [
        PingResult(_outcome_of(pong["via"]), _seconds(pong["latency"]))
        for pong in _PONG.finditer(output)
    ]
    return tuple(results) or (ERROR,)


def _outcome_of(via: str) -> PingOutcome:
    if via.startswith("DERP("):
        return PingOutcome.DERP
    return PingOutcome.PEER_RELAY if via.startswith("peer-relay(") else PingOutcome.DIRECT


def _seconds(duration: str) -> float:
    return sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_DURATION.findall(duration))
