"""What a fake tailscaled shows, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate

from msgspec import Struct

from tsfc.core.evaluation.observation import Observation
from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.status import PeerStatus, Status, decode

PATH_LABELS = {Path.DIRECT: "direct_ipv4", Path.PEER_RELAY: "peer_relay_ipv4", Path.DERP: "derp"}
"tailscaled's label values for a path (`wgengine/magicsock/magicsock.go`)."


class Frame(Struct, frozen=True):
    """One observation, ready to be played."""

    at: float
    "Seconds since the beginning of the capture."
    document: bytes
    "The status as captured; empty for a fault, which is played as a stopped daemon."
    status: Status | None
    peers: Mapping[str, PeerStatus]
    "Peers by each of their Tailscale IPs."
    received: Counter[str]
    "Bytes received since the beginning, by path."
    sent: Counter[str]
    "Bytes sent since the beginning, by path."


def frames(observations: Sequence[Observation]) -> tuple[Frame, ...]:
    """Return the frames of observations, which are in the order of their times."""
    statuses = [
        decode(bytes(observation.status)).unwrap() if observation.fault is None else None
        for observation in observations
    ]
    traffic = accumulate(
        _traffic(before, after) for before, after in zip([None, *statuses], statuses, strict=False)
    )
    return tuple(
        _frame(observation.captured_at - observations[0].captured_at, observation, status, counted)
        for observation, status, counted in zip(observations, statuses, traffic, strict=True)
    )


def frame_at(played: Sequence[Frame], seconds: float, *, loop: bool) -> Frame:
    """Return the frame at an instant of the capture.

    After its end, the capture starts again (`loop`) or its last frame stays.
    """
    if loop and played[-1].at > 0:
        seconds %= played[-1].at
    return max(
        (frame for frame in played if frame.at <= seconds),
        key=lambda frame: frame.at,
        default=played[0],
    )


def _frame(
    at: float, observation: Observation, status: Status | None, traffic: Counter[tuple[str, str]]
) -> Frame:
    def by_path(direction: str) -> Counter[str]:
        return Counter({path: size for (way, path), size in traffic.items() if way == direction})

    peers = (status.peer if status else None) or {}
    return Frame(
        at=at,
        document=bytes(observation.status),
        status=status,
        peers={ip: peer for peer in peers.values() for ip in peer.tailscale_ips or ()},
        received=by_path("rx"),
        sent=by_path("tx"),
    )


def _traffic(before: Status | None, after: Status | None) -> Counter[tuple[str, str]]:
    """Return the bytes between two statuses, by direction and path.

    A counter that decreased was reset: all its bytes are new.
    """
    counted: Counter[tuple[str, str]] = Counter()
    earlier = (before.peer if before else None) or {}
    for key, peer in ((after.peer if after else None) or {}).items():
        label = PATH_LABELS.get(classify(peer), PATH_LABELS[Path.DERP])
        old = earlier.get(key, PeerStatus())
        counted["rx", label] += _increase(old.rx_bytes, peer.rx_bytes)
        counted["tx", label] += _increase(old.tx_bytes, peer.tx_bytes)
    return counted


def _increase(before: int, after: int) -> int:
    return after - before if before <= after else after
