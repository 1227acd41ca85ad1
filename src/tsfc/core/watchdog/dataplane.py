"""Dead data planes: paths that are direct, and bring nothing back.

A router can pass disco and STUN and drop WireGuard. Then tailscaled says that the path
is direct, and disco pings are answered, but the bytes received stand still while those
sent grow (measured, v1.78.3 and v1.102.3). A TSMP ping goes through WireGuard and is
answered by the other tailscaled, whatever its packet filter is, so it tells the two
apart. It wakes up the peer and its radio, so it is sent only on a suspicion.
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


def suspects(memory: Memory, status: Status) -> tuple[Ping, ...]:
    """The pings that could confirm a dead data plane."""
    if not memory.traffic or not is_running(status):
        return ()
    own_ips = status.self_.tailscale_ips or ()
    found: list[tuple[int, Ping]] = []
    for peer in named(status):
        sent = _unanswered_bytes(memory, peer)
        ip = address(peer.status)
        if sent >= SUSPICIOUS_BYTES and ip is not None and is_watched(peer.status, own_ips):
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
            dead_since = before.dead_since
        elif probe is not None and probe.is_dead:
            dead_since = now
        told_at = before.told_at if before is not None and dead_since is not None else None
        seen[key] = Traffic(rx, tx, dead_since, told_at)
    return seen


def _unanswered_bytes(memory: Memory, peer: Peer) -> int:
    """Bytes sent since the last run while nothing was received; 0 if unknown."""
    status = peer.status
    before = memory.traffic.get(status.id or peer.name)
    if before is None or before.dead_since is not None or not has_direct_address(status):
        return 0
    if status.rx_bytes != before.rx:
        return 0
    return max(0, status.tx_bytes - before.tx)
