"""Dead data planes: paths that are direct, and bring nothing back.

A router can pass disco and STUN and drop WireGuard. Then tailscaled says that the path
is direct, and disco pings are answered, but the bytes received stand still while those
sent grow (measured, v1.78.3 and v1.102.3). A TSMP ping goes through WireGuard and is
answered by the other tailscaled, whatever its packet filter is, so it tells the two
apart. It wakes up the peer and its radio, so it is sent only on a suspicion, and before
the line about a dead data plane is repeated. Without traffic, only that ping can show
that data comes back.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from tsfc.core.tailscale.paths import has_direct_address
from tsfc.core.tailscale.peers import Peer, address, is_watched, named
from tsfc.core.tailscale.ping import NO_REPLY, Ping, PingResult
from tsfc.core.tailscale.status import Status, is_running
from tsfc.core.watchdog.memory import Memory, Traffic

SUSPICIOUS_BYTES = 1024
"""Bytes sent between two runs without any received that raise a suspicion.

A keepalive of WireGuard has 32 bytes, and a handshake 148.
"""
SUSPECT_LIMIT = 5
"Maximum number of peers to ping in one run: those to which the most was sent."
REPEAT_SECONDS = 3600
"Time after which the line about a dead data plane is repeated."
TSMP_COUNT = 2
"TSMP pings to each suspect. One is enough to clear it."
TSMP_TIMEOUT_SECONDS = 4.0
"Timeout of such a ping: tailscaled itself never reports a lost one."


class Probe(Struct, frozen=True):
    """What became of the pings to a suspect."""

    tsmp: tuple[PingResult, ...]
    disco: tuple[PingResult, ...]

    @property
    def is_dead(self) -> bool:
        """Whether the path works and the data plane does not.

        A ping that failed for another reason proves nothing.
        """
        is_lost = bool(self.tsmp) and all(result == NO_REPLY for result in self.tsmp)
        return is_lost and any(result.latency_seconds is not None for result in self.disco)

    @property
    def is_alive(self) -> bool:
        """Whether data came back."""
        return any(result.latency_seconds is not None for result in self.tsmp)


def is_line_due(traffic: Traffic, now: int) -> bool:
    """Whether the line about a dead data plane was not written lately."""
    return traffic.told_at is None or now - traffic.told_at >= REPEAT_SECONDS


def suspects(memory: Memory, status: Status, now: int) -> tuple[Ping, ...]:
    """The pings that could confirm a dead data plane, or show that it works again."""
    if not memory.traffic or not is_running(status):
        return ()
    own_ips = status.self_.tailscale_ips or ()
    found: list[tuple[int, Ping]] = []
    for peer in named(status):
        sent = _suspicious_bytes(memory, peer, now)
        ip = address(peer.status)
        if sent is not None and ip is not None and is_watched(peer.status, own_ips):
            found.append((-sent, Ping(peer.name, ip)))
    return tuple(ping for _, ping in sorted(found, key=lambda item: item[0])[:SUSPECT_LIMIT])


def with_look(
    memory: Mapping[str, Traffic],
    peers: Mapping[str, Peer],
    probes: Mapping[str, Probe],
    now: int,
) -> dict[str, Traffic]:
    """The traffic to remember after a look at direct peers, given by their keys."""
    seen: dict[str, Traffic] = {}
    for key, peer in peers.items():
        rx, tx = peer.status.rx_bytes, peer.status.tx_bytes
        if not rx and not tx:
            continue
        before, probe = memory.get(key), probes.get(peer.name)
        dead_since = None
        if before is not None and before.rx == rx and before.dead_since is not None:
            is_alive = probe is not None and probe.is_alive
            dead_since = None if is_alive else before.dead_since
        elif probe is not None and probe.is_dead:
            dead_since = now
        told_at = before.told_at if before is not None and dead_since is not None else None
        seen[key] = Traffic(rx, tx, dead_since, told_at)
    return seen


def _suspicious_bytes(memory: Memory, peer: Peer, now: int) -> int | None:
    """Bytes sent since the last run while nothing was received; None if that is usual.

    For a data plane that is known to be dead, each number counts before its line.
    """
    status = peer.status
    before = memory.traffic.get(status.id or peer.name)
    if before is None or status.rx_bytes != before.rx or not has_direct_address(status):
        return None
    sent = max(0, status.tx_bytes - before.tx)
    if before.dead_since is not None:
        return sent if is_line_due(before, now) else None
    return sent if sent >= SUSPICIOUS_BYTES else None
