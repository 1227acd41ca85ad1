"""The JSON of `tsfc peers`: for programs, so its keys stay."""

from __future__ import annotations

import msgspec

from tsfc.core.tailscale import status as statuses
from tsfc.core.watchdog.state import last_restart
from tsfc.view.model import Row, View, health


def encoded(view: View) -> str:
    """Returns one object on one line; instants are Unix time in seconds."""
    status, memory, ahead = view.status, view.memory, view.forecast
    document = {
        "at": view.at,
        "node": {
            "name": view.name,
            "state": status.backend_state,
            "version": status.version,
            "health": health(status),
            "key_expiry": statuses.key_expiry(status.self_),
        },
        "watchdog": None
        if memory is None
        else {
            "last_run": memory.state.last_run.unix if memory.state.last_run else None,
            "last_success": memory.state.last_success,
            "last_restart": last_restart(memory.state),
            "restarts": memory.state.restarts,
            "max_relay_seconds": memory.policy.max_relay_seconds,
            "cooldown_seconds": memory.policy.cooldown_seconds,
            "cooldown_remaining_seconds": None if ahead is None else ahead.cooldown_seconds,
            "next_restart": None
            if ahead is None or ahead.restart_seconds is None
            else {"in_seconds": ahead.restart_seconds, "peer": ahead.restart_peer},
        },
        "peers": [_peer(row) for row in view.rows],
        "unread": view.unread,
    }
    return msgspec.json.encode(document).decode() + "\n"


def _peer(row: Row) -> dict[str, object]:
    return {
        "peer": row.peer,
        "path": row.path.value,
        "via": row.via,
        "relay_since": row.relay_since,
        "relay_seconds": row.relay_seconds,
        "handshake_seconds_ago": row.handshake_seconds_ago,
        "rx_bytes": row.rx_bytes,
        "tx_bytes": row.tx_bytes,
        "last_seen": row.last_seen,
        "verdict": None if row.verdict is None else row.verdict.value,
        "next": row.next,
        "ping": None
        if row.latency is None
        else {"result": row.latency.outcome.value, "latency_seconds": row.latency.latency_seconds},
    }
