"""The sentences of `tsfc explain`: the verdict on a peer, and what would change it."""

from __future__ import annotations

from difflib import get_close_matches

from returns.result import Failure, Result, Success

from tsfc.core.duration import duration
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.naming import find
from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.peers import Unwatched, named, unwatched
from tsfc.core.text import one_line
from tsfc.core.watchdog.cause import Cause
from tsfc.core.watchdog.forecast import Forecast, WhatIf, what_ifs
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.remedy import Remedy
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.core.watchdog.track import Reason
from tsfc.view.model import Row, View, why_held

PATHS = {
    Path.DIRECT: "packets go directly to {via}",
    Path.PEER_RELAY: "packets go through the peer relay {via}",
    Path.DERP: "packets go through DERP region {via}, the peer's home region",
    Path.IDLE: "idle; nothing was sent to it in the last 45 seconds, so it has no direct "
    "address, which is normal",
    Path.OFFLINE: "offline, according to the coordination server",
    Path.NONE: "no path; it has no direct address, no peer relay and no home DERP region, so "
    "packets to it are lost",
}
NETCHECK = "Run `tailscale netcheck` on the peer: it must reach a DERP server to have a region."
VERDICTS = {
    Reason.DIRECT: "it has a direct address; there is nothing to do",
    Reason.DETECTED: "it has no direct address; the next run logs DETECTED and starts the relay "
    "timer",
    Reason.WAITING: "no direct address for {relay}, which is within the limit of {threshold} "
    "(--max-relay-seconds); the watchdog keeps waiting",
    Reason.EXCLUDED: "no direct address for {relay}, longer than the limit, but the peer is "
    "excluded and never causes a restart",
    Reason.COOLDOWN: "no direct address for {relay}, longer than the limit, but the cooldown "
    "(--cooldown-seconds) still has {left} left",
    Reason.HELD: "no direct address for {relay}, longer than the limit of {threshold} "
    "(--max-relay-seconds), but the watchdog does not restart tailscaled: {hold}",
    Reason.RESTART: "no direct address for {relay}, longer than the limit of {threshold} "
    "(--max-relay-seconds), and there is no cooldown; the next run restarts {tailscaled}",
    Reason.RECOVERED: "it has a direct address again, and was on relay in the last run; the next "
    "run logs RECOVERED",
    Reason.RESTORED: "it has a direct address again after a restart; the next run logs RECOVERED, "
    "and does not count the recovery as natural",
    Reason.NEVER_DIRECT: "on relay for {relay}, and the watchdog has not seen it direct lately; "
    "nothing shows that a restart can help, so there is none",
    Reason.PATIENT: "on relay for {relay}, longer than the limit of {threshold} "
    "(--max-relay-seconds), but remedies did not help before, so the watchdog waits longer",
    Reason.CONFIRMING: "on relay for {relay}, longer than the limit of {threshold} "
    "(--max-relay-seconds); the watchdog first confirms that the relay lasts and this node is well",
    Reason.UNKNOWN: "it is idle, behind a peer relay, without any path, or a phone; none of these "
    "is evidence of a fault, so the watchdog ignores it until that changes",
}
"Sentences without the period; `{relay}` and the like are durations."
WHAT_IFS = {
    Reason.DIRECT: "there would be nothing to do",
    Reason.DETECTED: "its time on relay would begin with the next run, and the watchdog would "
    "restart {tailscaled} in {left}",
    Reason.WAITING: "the watchdog would keep waiting",
    Reason.EXCLUDED: "this peer would never cause a restart",
    Reason.COOLDOWN: "the watchdog would wait for the end of the cooldown",
    Reason.HELD: "a restart would be due, but held back",
    Reason.RESTART: "the watchdog would restart {tailscaled} because of this peer",
    Reason.RECOVERED: "the recovery would count as natural",
    Reason.RESTORED: "the recovery would be attributed to a restart",
    Reason.NEVER_DIRECT: "this peer would never cause a restart",
    Reason.PATIENT: "the watchdog would wait longer, because remedies did not help before",
    Reason.CONFIRMING: "the watchdog would first confirm the relay, and that this node is well",
    Reason.UNKNOWN: "the watchdog would wait for evidence",
}
"""Main clauses that follow `With --cooldown-seconds 60`.

`{tailscaled}` and `{left}` are about the next attempt then.
"""
TAILSCALED = {
    Remedy.RESTART: "tailscaled",
    Remedy.OTHER_PORT: "tailscaled on another port",
}
"What the watchdog restarts."
DEAD = (
    "Watchdog: it has a direct address, but no data comes back: disco pings are answered, TSMP "
    "pings are lost. A restart does not fix that."
)
WAITING = frozenset({Reason.DETECTED, Reason.WAITING, Reason.PATIENT, Reason.COOLDOWN})
"Verdicts on peers that may cause a restart later."
CAUSES = {
    Cause.CONTROL_OUTAGE: "this node cannot reach the control server",
    Cause.RELAY_OUTAGE: "this node cannot reach a relay server",
    Cause.UDP_BLOCKED: "UDP from this node does not reach the Internet",
    Cause.HARD_NAT: "this node is behind a hard NAT",
    Cause.FAR_SIDE: "something at the peer or on the way to it; other peers are direct",
}
"Clauses; an unknown cause has none."


def explain(view: View, name: str) -> Result[tuple[str, ...], str]:
    """Return the lines about a peer, or an error line if `name` does not mean one peer.

    `name` is as for `naming.find`.
    """
    if not statuses.is_running(view.status):
        state = one_line(view.status.backend_state, 40)
        return Failure(
            f"explaining {one_line(name)}: tailscaled is {state}, not Running, and reports no "
            "peers; run `tailscale up`"
        )
    peer, *others = find(named(view.status), name) or (None,)
    if peer is None:
        similar = get_close_matches(name, [row.peer for row in view.rows], 1, 0.5)
        hint = f"did you mean {similar[0]}?" if similar else "run `tsfc peers` for a list"
        return Failure(f"explaining {one_line(name)}: there is no such peer; {hint}")
    if others:
        names = ", ".join((peer.name, *(other.name for other in others)))
        return Failure(f"explaining {one_line(name)}: several peers have that name: {names}")
    row = next(row for row in view.rows if row.peer == peer.name)
    why = unwatched(peer.status, view.status.self_.tailscale_ips or ())
    return Success(
        (
            f"{row.peer}: {_path(view, row)}.",
            *([NETCHECK] if row.path is Path.NONE and why is None else []),
            _traffic(row),
            *(_watched(view, row) if why is None else (_not_watched(why),)),
            *view.warnings,
        )
    )


def _path(view: View, row: Row) -> str:
    path = PATHS[row.path].format(via=row.via or "(unknown)")
    if row.path is not Path.OFFLINE:
        return path
    if row.last_seen is not None:
        path = f"{path}; last seen {duration(view.at - row.last_seen)} ago"
    if row.active_path is None:
        return path
    active = PATHS[row.active_path].format(via=row.via or "(unknown)")
    return f"{path}. Something was sent to it in the last 45 seconds all the same: {active}"


def _traffic(row: Row) -> str:
    handshake = (
        "No WireGuard handshake yet"
        if row.handshake_seconds_ago is None
        else f"Last WireGuard handshake {duration(row.handshake_seconds_ago)} ago"
    )
    return (
        f"{handshake}; received {row.rx_bytes} bytes and sent {row.tx_bytes} bytes since "
        "tailscaled added the peer."
    )


def _not_watched(why: Unwatched) -> str:
    return f"The watchdog does not watch this peer: {why}."


def _watched(view: View, row: Row) -> tuple[str, ...]:
    snapshot, forecast = view.snapshot, view.forecast
    if snapshot is None or forecast is None or row.verdict is None:
        return ("The watchdog's verdict is unknown.",)
    alternatives = what_ifs(
        snapshot.state, view.observed, row.peer, now=view.now, policy=snapshot.policy
    )
    return (
        _verdict(row, row.verdict, snapshot, forecast),
        *_cause(row),
        *_next(view, row, snapshot.policy, forecast),
        *(_what_if(alternative, view.at) for alternative in alternatives),
    )


def _cause(row: Row) -> tuple[str, ...]:
    if row.cause is None or row.cause is Cause.UNKNOWN:
        return ()
    return (f"Likely cause: {CAUSES[row.cause]}.",)


def _verdict(row: Row, reason: Reason, snapshot: Snapshot, forecast: Forecast) -> str:
    if row.is_dead:
        return DEAD
    due, hold = forecast.due, forecast.hold
    verdict = VERDICTS[reason].format(
        relay=duration(row.relay_seconds or 0),
        threshold=duration(snapshot.policy.max_relay_seconds),
        left=duration(forecast.cooldown_seconds),
        hold="" if hold is None else why_held(hold, snapshot.policy),
        tailscaled="" if due is None else TAILSCALED[due.remedy],
    )
    return f"Watchdog: {verdict}."


def _next(view: View, row: Row, policy: Policy, forecast: Forecast) -> tuple[str, ...]:
    if row.verdict is Reason.DIRECT:
        limit = duration(policy.max_relay_seconds)
        return (f"If it loses its direct address, the watchdog waits {limit} before a restart.",)
    if row.verdict in WAITING and forecast.hold is not None:
        return (f"No restart now: {why_held(forecast.hold, policy)}.",)
    # A restart that is due now is part of the verdict.
    due = forecast.due
    if due is None or due.at == view.at:
        return ()
    cause = "this peer" if due.peer == row.peer else due.peer
    when = f"in {duration(due.at - view.at)}, because of {cause}"
    return (f"If nothing changes, the watchdog restarts {TAILSCALED[due.remedy]} {when}.",)


def _what_if(alternative: WhatIf, now: int) -> str:
    option, due = alternative.option, alternative.due
    condition = f"With {option}" if option.startswith("--") else option.capitalize()
    clause = WHAT_IFS[alternative.reason].format(
        tailscaled="" if due is None else TAILSCALED[due.remedy],
        left="" if due is None else duration(due.at - now),
    )
    return f"{condition} {clause}."
