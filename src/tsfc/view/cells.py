"""The texts of `tsfc peers`: the lines about the node, and the cells of its table.

The terminal and the agent's live page show the same.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from tsfc.core.duration import duration
from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.peers import Hidden
from tsfc.core.text import counted
from tsfc.core.watchdog.guarded import WORDS
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Stage
from tsfc.core.watchdog.state import last_restart
from tsfc.view.model import (
    Row,
    View,
    byte_size,
    health,
    peers_by_path,
    short_version,
    state,
    why_held,
)

PATH_WORDS = {Path.PEER_RELAY: "peer-relay", Path.NONE: "no path"}
"Words for paths, where they differ from the metric's label."
HIDDEN = {
    Hidden.MULLVAD: "Mullvad exit node",
    Hidden.FUNNEL: "Funnel ingress node",
    Hidden.SHAREE: "sharee",
}
"Kinds of hidden peers, in the singular."
STAGES = {
    Stage.DECIDED: "the run ended before its command",
    Stage.ASKED: "the outcome of its command is unknown",
    Stage.FAILED: "its command failed",
    Stage.DECLINED: "not done, because the unit was stopped on purpose",
}
"Outcomes of attempts whose command is not known to have succeeded."
RESULTS = {
    AttemptResult.PENDING: "too early to tell whether it helped",
    AttemptResult.HELPED: "helped",
    AttemptResult.NO_EFFECT: "did not help",
    AttemptResult.WORSE: "did not help, and fewer peers were direct",
    AttemptResult.UNCONFIRMED: "unknown whether it helped",
}
"Outcomes of the others."
NOTHING = "-"
"A cell without a value."
OVERDUE_SECONDS = 180
"Age of the last run from which the watchdog is overdue; its interval is a minute."


class Column(Struct, frozen=True):
    """A column of the table."""

    title: str
    cell: Callable[[View, Row], str]
    is_number: bool = False
    "Numbers are aligned to the right."


def columns(view: View) -> tuple[Column, ...]:
    """Return the columns that have something to show."""
    is_pinged = any(row.ping is not None for row in view.rows)
    return tuple(column for column in COLUMNS if column is not PING or is_pinged)


def header_lines(view: View) -> list[str]:
    """Return the lines about the node, its health, the watchdog, and the warnings."""
    version = short_version(view.status)
    tailscaled = f", tailscaled {version}" if version else ""
    peers = f": {peer_counts(view)}" if view.rows else ""
    hidden = ", ".join(counted(number, HIDDEN[kind]) for kind, number in view.hidden.items())
    return [
        f"{view.name or 'this node'} is {state(view.status)}{tailscaled}{peers}",
        *([f"hidden: {hidden}; --all shows them"] if hidden else []),
        *(f"health: {message}" for message in health(view.status)),
        *watchdog_lines(view),
        *view.warnings,
    ]


def peer_counts(view: View) -> str:
    """Return the number of peers: `3 peers (2 direct, 1 derp)`."""
    return f"{counted(len(view.rows), 'peer')} ({counts_by_path(view)})"


def counts_by_path(view: View) -> str:
    """Return the number of peers on each path: `2 direct, 1 derp`; or empty."""
    return ", ".join(
        f"{number} {PATH_WORDS.get(path, path.value)}"
        for path, number in peers_by_path(view).items()
    )


def attempts(view: View, seconds: int) -> list[tuple[int, str]]:
    """Return what the watchdog did in the last seconds, the newest first.

    Each attempt has its Unix time and a clause.
    """
    done = () if view.snapshot is None else view.snapshot.state.attempts
    return [
        (attempt.at, _clause(attempt))
        for attempt in reversed(done)
        if attempt.at > view.at - seconds
    ]


def _clause(attempt: Attempt) -> str:
    cause = attempt.peer or "an unknown peer"
    outcome = STAGES.get(attempt.stage) or RESULTS[attempt.result]
    return f"{WORDS[attempt.remedy]} because of {cause}: {outcome}"


def watchdog_lines(view: View) -> list[str]:
    """Return what the watchdog has done, and what it will do; nothing if unknown."""
    snapshot, forecast = view.snapshot, view.forecast
    if snapshot is None:
        return []

    # What the watchdog has done:
    state = snapshot.state
    age = view.at - (state.last_run.unix if state.last_run else 0)
    if age > OVERDUE_SECONDS:
        note = " (overdue; is its timer active?)"
    elif not snapshot.saw_peers:
        note = " (it could not observe the peers)"
    else:
        note = ""
    at = last_restart(state)
    restart = "no restart" if at is None else f"last restart {duration(view.at - at)} ago"
    total = f", {state.restarts} in total" if at is not None or state.restarts else " yet"
    past = f"last run {duration(age)} ago{note}; {restart}{total}"
    if forecast is not None and forecast.hold is not None:
        why = why_held(forecast.hold, snapshot.policy)
        return [f"watchdog: {past}", f"watchdog: no restart now: {why}"]
    if forecast is None or forecast.due is None:
        return [f"watchdog: {past}"]

    # What it will do:
    due = forecast.due
    when = "in the next run" if due.at == view.at else f"in {duration(due.at - view.at)}"
    future = f"next {WORDS[due.remedy]} {when}, because of {due.peer}"
    return [f"watchdog: {past}", f"watchdog: {future}"]


def _path(view: View, row: Row) -> str:
    """Path as `tailscale status` prints it: `direct 192.0.2.7:41641`, `relay fra`.

    For an offline peer that packets are sent to: `offline 3d, active: relay fra`.
    """
    active = "" if row.active_path is None else _active_path(row.active_path, row.via)
    if row.path is not Path.OFFLINE:
        return active or row.path.value
    seen = "" if row.last_seen is None else f" {duration(view.at - row.last_seen, 1)}"
    return f"offline{seen}{f', active: {active}' if active else ''}"


def _active_path(path: Path, via: str) -> str:
    word = {Path.DERP: "relay"}.get(path, PATH_WORDS.get(path, path.value))
    return f"{word} {via}".rstrip()


def _since(view: View, row: Row) -> str:
    return NOTHING if row.relay_since is None else duration(view.at - row.relay_since)


def _handshake(_: View, row: Row) -> str:
    seconds = row.handshake_seconds_ago
    return NOTHING if seconds is None else duration(seconds, 1)


def _ping(_: View, row: Row) -> str:
    if row.ping is None:
        return NOTHING
    if row.ping.latency_seconds is None:
        return row.ping.outcome.value.replace("_", " ")
    return f"{row.ping.latency_seconds * 1000:.1f} ms"


PEER = Column("peer", lambda _, row: row.peer)
PATH = Column("path", _path)
SINCE = Column("since", _since)
HANDSHAKE = Column("handshake", _handshake, is_number=True)
RECEIVED = Column("received", lambda _, row: byte_size(row.rx_bytes), is_number=True)
SENT = Column("sent", lambda _, row: byte_size(row.tx_bytes), is_number=True)
PING = Column("ping", _ping, is_number=True)
WATCHDOG = Column("watchdog", lambda _, row: row.next)
COLUMNS = (PEER, PATH, SINCE, HANDSHAKE, RECEIVED, SENT, PING, WATCHDOG)
