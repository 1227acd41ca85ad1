"""The JSON of `tsfc peers` and `tsfc explain`.

Its keys are stable; new ones may be added. Times are Unix times in seconds.
"""

from __future__ import annotations

from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.peers import Hidden, Unwatched
from tsfc.core.tailscale.ping import PingResult
from tsfc.core.text import printable_json
from tsfc.core.watchdog.decision import Due
from tsfc.core.watchdog.forecast import WhatIf
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.core.watchdog.state import last_restart
from tsfc.view.model import Row, View, health


def encode(view: View) -> str:
    """Return the view as a JSON object on one line."""
    document = {
        **_node(view),
        "peers": [_peer(row) for row in view.rows],
        "hidden": {kind.value: view.hidden.get(kind, 0) for kind in Hidden},
        "unread": view.warnings,
    }
    return printable_json(document) + "\n"


def encode_explanation(
    view: View,
    row: Row | None,
    lines: tuple[str, ...],
    *,
    why: Unwatched | None,
    alternatives: tuple[WhatIf, ...],
    pings: tuple[PingResult, ...],
) -> str:
    """Return what `tsfc explain` says as a JSON object on one line.

    `row` is the peer; None for the node itself. `why` says why it is not watched.
    """
    cause = None if row is None else row.cause
    document = {
        **_node(view),
        "peer": None if row is None else _peer(row),
        "not_watched": None if why is None else why.name.lower(),
        "likely_cause": None if cause is None else cause.value,
        "alternatives": [
            {
                "option": alternative.option,
                "verdict": alternative.reason.value,
                "next_restart": _due(alternative.due, view),
            }
            for alternative in alternatives
        ],
        "pings": [_ping(result) for result in pings],
        "lines": lines,
        "unread": view.warnings,
    }
    return printable_json(document) + "\n"


def _node(view: View) -> dict[str, object]:
    status = view.status
    return {
        "at": view.at,
        "node": {
            "name": view.name,
            "state": status.backend_state,
            "version": status.version,
            "health": health(status),
            "key_expiry": statuses.key_expiry(status.self_),
        },
        "watchdog": None if view.snapshot is None else _watchdog(view.snapshot, view),
    }


def _watchdog(snapshot: Snapshot, view: View) -> dict[str, object]:
    state, policy, forecast = snapshot.state, snapshot.policy, view.forecast
    due = None if forecast is None else forecast.due
    return {
        "last_run": state.last_run.unix if state.last_run else None,
        "last_success": None if state.last_success is None else state.last_success.unix,
        "last_restart": last_restart(state),
        "restarts": state.restarts,
        "max_relay_seconds": policy.max_relay_seconds,
        "cooldown_seconds": policy.cooldown_seconds,
        "cooldown_remaining_seconds": None if forecast is None else forecast.cooldown_seconds,
        "held": None if forecast is None or forecast.hold is None else forecast.hold.value,
        "next_restart": _due(due, view),
    }


def _peer(row: Row) -> dict[str, object]:
    return {
        "peer": row.peer,
        "path": row.path.value,
        "active_path": None if row.active_path is None else row.active_path.value,
        "via": row.via,
        "relay_since": row.relay_since,
        "relay_seconds": row.relay_seconds,
        "handshake_seconds_ago": row.handshake_seconds_ago,
        "rx_bytes": row.rx_bytes,
        "tx_bytes": row.tx_bytes,
        "last_seen": row.last_seen,
        "verdict": None if row.verdict is None else row.verdict.value,
        "next": row.next,
        "hidden": None if row.hidden is None else row.hidden.value,
        "ping": None if row.ping is None else _ping(row.ping),
    }


def _due(due: Due | None, view: View) -> dict[str, object] | None:
    if due is None:
        return None
    return {"in_seconds": due.at - view.at, "peer": due.peer, "remedy": due.remedy.value}


def _ping(result: PingResult) -> dict[str, object]:
    return {"result": result.outcome.value, "latency_seconds": result.latency_seconds}
