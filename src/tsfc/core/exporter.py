"""Metrics of the job `exporter`: the status of the node and its peers."""

from __future__ import annotations

import fnmatch
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from tsfc.core.metrics.families import Family, Kind, Sample, gauge
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.paths import Path, classify, has_direct_address
from tsfc.core.tailscale.peers import Hidden, Peer, address, hidden, named
from tsfc.core.tailscale.status import PeerStatus, Status, UserProfile
from tsfc.core.text import printable

LAST_SUCCESS = "tailscale_exporter_last_success_timestamp_seconds"
LABEL_LIMIT = 1000
"""Maximum length of a label value, in characters.

Prometheus has no limit by default. A hostname has at most 253 characters.
"""

_USUAL_PATHS = tuple(path for path in Path if path is not Path.NONE)
_UNKNOWN_USER = UserProfile()


def metrics(
    status: Status | None,
    *,
    now: float,
    last_success: float | None,
    accept_health: Sequence[str] = (),
) -> tuple[Family, ...]:
    """Return the metrics of one run.

    Peers are exported only while the backend is Running; otherwise their flags are
    stale. Peers that `tailscale status` hides are only counted.

    Args:
        status: None if it could not be read.
        now: Unix time in seconds.
        last_success: Unix time of the last run that read a status; None if unknown.
            Used only without a status.
        accept_health: Patterns of the health messages that the operator accepts.
    """
    if status is None:
        # A time in the future comes from a clock that was wrong, or from somebody else.
        at = None if last_success is None else min(last_success, now)
        return (_up(0), *_last_success(at))
    families = (
        _up(int(statuses.is_running(status))),
        *_last_success(now),
        *_node(status, accept_health),
    )
    if not statuses.is_running(status):
        return families
    # Hidden peers take part in the naming: an ordinary peer keeps its name.
    peers = named(status)
    shown = tuple(peer for peer in peers if hidden(peer.status) is None)
    return (*families, _hidden_peers(peers), *_peer_families(shown, status, now))


def _up(value: int) -> Family:
    return gauge(
        "tailscale_up",
        "Whether tailscaled answers and its backend state is Running (1) or not (0).",
        value,
    )


def _last_success(at: float | None) -> tuple[Family, ...]:
    if at is None:
        return ()
    return (
        gauge(
            LAST_SUCCESS, "Unix time of the last run that could read the status of tailscaled.", at
        ),
    )


def _node(status: Status, accept_health: Sequence[str]) -> tuple[Family, ...]:
    version = _label(status.version)
    labels = {"version": version, "short_version": version.partition("-")[0]}
    current = _label(status.backend_state)
    states = dict.fromkeys((*statuses.BACKEND_STATES, current))
    expiry = statuses.key_expiry(status.self_)
    return (
        Family(
            "tailscale_backend_state",
            Kind.GAUGE,
            "Backend state of tailscaled: 1 for the current state, 0 for the others.",
            tuple(Sample({"state": state}, state == current) for state in states),
        ),
        *(
            ()
            if expiry is None
            else (
                gauge(
                    "tailscale_key_expiry_timestamp_seconds",
                    "Unix time at which the key of this node expires; absent if never.",
                    expiry,
                ),
            )
        ),
        *_health(status.health or (), accept_health),
        Family(
            "tailscale_version_info",
            Kind.GAUGE,
            "Version of tailscaled, always 1.",
            (Sample(labels, 1),),
        ),
    )


def _health(messages: Sequence[str], accept: Sequence[str]) -> tuple[Family, ...]:
    """Return the number of health messages, and the number of accepted ones.

    A pattern is one of the shell, for a whole message in upper or lower case.
    """
    patterns = [re.compile(fnmatch.translate(pattern), re.IGNORECASE) for pattern in accept]
    accepted = sum(any(pattern.match(text) for pattern in patterns) for text in messages)
    issues = gauge(
        "tailscale_health_issues",
        "Number of health messages of tailscaled.",
        len(messages) - accepted,
    )
    if not accept:
        return (issues,)
    return (
        issues,
        gauge(
            "tailscale_health_issues_accepted",
            "Number of health messages that --accept-health accepts, "
            "which are not in tailscale_health_issues.",
            accepted,
        ),
    )


def _hidden_peers(peers: tuple[Peer, ...]) -> Family:
    numbers = Counter(hidden(peer.status) for peer in peers)
    return Family(
        "tailscale_hidden_peers",
        Kind.GAUGE,
        "Number of peers without metrics of their own, because `tailscale status` hides them.",
        tuple(Sample({"kind": kind.value}, numbers[kind]) for kind in Hidden),
    )


def _peer_families(peers: tuple[Peer, ...], status: Status, now: float) -> tuple[Family, ...]:
    # The families share one label dict per peer.
    labels = [{"peer": peer.name} for peer in peers]
    labelled = [(label, peer.status) for label, peer in zip(labels, peers, strict=True)]

    def per_peer(name: str, kind: Kind, text: str, value: Callable[[PeerStatus], float]) -> Family:
        return Family(
            name, kind, text, tuple(Sample(label, value(peer)) for label, peer in labelled)
        )

    return (
        per_peer(
            "tailscale_peer_online",
            Kind.GAUGE,
            "Whether the control server says that the peer is online.",
            lambda peer: bool(peer.online),
        ),
        per_peer(
            "tailscale_peer_direct",
            Kind.GAUGE,
            "Whether the peer has a direct address (CurAddr); an idle peer has none.",
            has_direct_address,
        ),
        per_peer(
            "tailscale_peer_active",
            Kind.GAUGE,
            "Whether something was sent to the peer in the last 45 seconds.",
            lambda peer: peer.active,
        ),
        Family(
            "tailscale_peer_path",
            Kind.GAUGE,
            "How packets travel to the peer: 1 for the current path, 0 for the others.",
            tuple(_path_samples(peers)),
        ),
        per_peer(
            "tailscale_peer_exit_node",
            Kind.GAUGE,
            "Whether the peer is the exit node in use.",
            lambda peer: peer.exit_node,
        ),
        per_peer(
            "tailscale_peer_rx_bytes_total",
            Kind.COUNTER,
            "WireGuard bytes received from the peer.",
            lambda peer: peer.rx_bytes,
        ),
        per_peer(
            "tailscale_peer_tx_bytes_total",
            Kind.COUNTER,
            "WireGuard bytes transmitted to the peer.",
            lambda peer: peer.tx_bytes,
        ),
        Family(
            "tailscale_peer_last_handshake_seconds_ago",
            Kind.GAUGE,
            "Seconds since the last WireGuard handshake with the peer; absent if there was none.",
            tuple(
                # In the future if a clock was set back: count it as now.
                Sample(label, round(max(0.0, now - at), 3))
                for label, peer in labelled
                if (at := statuses.handshake(peer)) is not None
            ),
        ),
        Family(
            "tailscale_peer_info",
            Kind.GAUGE,
            "Information about the peer, always 1; relay is its home DERP region.",
            tuple(Sample(_info(peer, status.user or {}), 1) for peer in peers),
        ),
    )


def _path_samples(peers: tuple[Peer, ...]) -> Iterable[Sample]:
    """Yield one sample per path; that of `none` only for a peer without a path.

    Few peers ever lack a path, and every other peer would have one more series.
    """
    for peer in peers:
        current = classify(peer.status)
        for path in Path if current is Path.NONE else _USUAL_PATHS:
            yield Sample({"peer": peer.name, "path": path.value}, path is current)


def _info(peer: Peer, users: Mapping[str, UserProfile]) -> dict[str, str]:
    status = peer.status
    return {
        "peer": peer.name,
        "id": _label(status.id),
        "hostname": _label(status.host_name),
        "dns_name": _label(status.dns_name.removesuffix(".")),
        "os": _label(status.os),
        "relay": _label(status.relay),
        "user": _label(users.get(str(status.user_id), _UNKNOWN_USER).login_name),
        "tags": _label(",".join(status.tags or ())),
        "ip": address(status) or "",
    }


def _label(value: str) -> str:
    return printable(value, LABEL_LIMIT)


def parse_last_success(exposition: str) -> float | None:
    """Return the Unix time of the last success in the exposition of an earlier run.

    None if there is none. The job keeps no other state than its metrics file.
    """
    for line in exposition.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == LAST_SUCCESS:
            return _finite(value)
    return None


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None
