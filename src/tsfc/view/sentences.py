"""The sentences of `tsfc explain`: the verdict on a peer, and what would change it."""

from __future__ import annotations

from difflib import get_close_matches

from returns.result import Failure, Result, Success

from tsfc.core.duration import duration
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.naming import find_node
from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.peers import Peer, Unwatched, unwatched
from tsfc.core.tailscale.ping import PingOutcome, PingResult
from tsfc.core.tailscale.status import PeerStatus
from tsfc.core.text import one_line
from tsfc.core.watchdog.cause import Cause
from tsfc.core.watchdog.forecast import Forecast, WhatIf, what_ifs
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.remedy import Remedy
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.core.watchdog.track import Reason
from tsfc.view.cells import peer_counts, watchdog_lines
from tsfc.view.model import Row, View, health, short_version, state, why_held, without_hidden

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


PINGS = {
    PingOutcome.DIRECT: "the reply came directly",
    PingOutcome.PEER_RELAY: "the reply came through a peer relay",
    PingOutcome.DERP: "the reply came through a DERP server",
    PingOutcome.NO_REPLY: "no reply",
    PingOutcome.ERROR: "it could not be sent",
}
"Outcomes of pings, as clauses."


def subject(view: View, name: str) -> Result[Peer, str]:
    """Return the peer that a name means, or this node; else an error line.

    `name` is as for `naming.find_node`.
    """
    peer, *others = find_node(view.status, name) or (None,)
    is_peer = peer is not None and peer.status is not view.status.self_
    if not statuses.is_running(view.status) and (peer is None or is_peer):
        return Failure(
            f"explaining {one_line(name)}: tailscaled is {state(view.status)}, not Running, and "
            "reports no peers; run `tailscale up`"
        )
    if peer is None:
        similar = get_close_matches(name, [row.peer for row in view.rows], 1, 0.5)
        hint = f"did you mean {similar[0]}?" if similar else "run `tsfc peers` for a list"
        return Failure(f"explaining {one_line(name)}: there is no such peer; {hint}")
    if others:
        names = ", ".join(one_line(found.name) for found in (peer, *others))
        return Failure(f"explaining {one_line(name)}: several peers have that name: {names}")
    return Success(peer)


def explain(view: View, peer: Peer, pings: tuple[PingResult, ...] = ()) -> tuple[str, ...]:
    """Return the lines about a peer, or about this node; see `subject`."""
    if peer.status is view.status.self_:
        return _node(view)
    row = row_of(view, peer)
    why = unwatched(peer.status, view.status.self_.tailscale_ips or ())
    return (
        f"{row.peer}: {_path(view, row)}.",
        *([NETCHECK] if row.path is Path.NONE and why is None else []),
        _traffic(row),
        *(_ping(number, result) for number, result in enumerate(pings, start=1)),
        *(_watched(view, row) if why is None else (_not_watched(why),)),
        *view.warnings,
    )


def row_of(view: View, peer: Peer) -> Row:
    """Return the row of a peer."""
    return next(row for row in view.rows if row.peer == peer.name)


def alternatives(view: View, row: Row) -> tuple[WhatIf, ...]:
    """Return the settings that would change the verdict on a peer; none without one."""
    if view.snapshot is None or row.verdict is None:
        return ()
    snapshot = view.snapshot
    return what_ifs(snapshot.state, view.observed, row.peer, now=view.now, policy=snapshot.policy)


def _node(view: View) -> tuple[str, ...]:
    status = view.status
    own = status.self_
    version = short_version(status) or "of an unknown version"
    is_running = statuses.is_running(status)
    shown = without_hidden(view)
    advice = "" if is_running else "; it has no peers until you run `tailscale up`"
    return (
        f"{view.name or 'this node'}: this node. tailscaled {version} is {state(status)}{advice}.",
        *_addresses(own),
        *([_control(own), _key(view, own)] if is_running else []),
        *(f"Health: {message}" for message in health(status)),
        *([f"It has {peer_counts(shown)}."] if shown.rows else []),
        *(f"{line[:1].upper()}{line[1:]}." for line in watchdog_lines(view)),
        "Run `tsfc doctor` to find what is wrong, and `tsfc peers` for its peers.",
        *view.warnings,
    )


def _addresses(own: PeerStatus) -> tuple[str, ...]:
    """Names and addresses; none before the first netmap."""
    named = (
        ("FQDN", (own.dns_name.removesuffix("."),)),
        ("Tailscale IPs", own.tailscale_ips or ()),
        ("home DERP region", (own.relay,)),
        ("endpoints", own.addrs or ()),
    )
    known = [f"{title} {', '.join(filter(None, texts))}" for title, texts in named if any(texts)]
    return (one_line(f"Its addresses: {'; '.join(known)}.", 1000),) if known else ()


def _control(own: PeerStatus) -> str:
    return (
        "It is connected to the coordination server."
        if own.online
        else "It has no connection to the coordination server, or none yet."
    )


def _key(view: View, own: PeerStatus) -> str:
    expiry = statuses.key_expiry(own)
    if own.expired or (expiry is not None and expiry <= view.at):
        return "Its key has expired, so no peer accepts its packets."
    return (
        "Its key does not expire."
        if expiry is None
        else f"Its key expires in {duration(expiry - view.at)}."
    )


def _ping(number: int, result: PingResult) -> str:
    latency = result.latency_seconds
    after = "" if latency is None else f" after {latency * 1000:.1f} ms"
    return f"Ping {number}: {PINGS[result.outcome]}{after}."


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
    return (
        _verdict(row, row.verdict, snapshot, forecast),
        *_cause(row),
        *_next(view, row, snapshot.policy, forecast),
        *(_what_if(alternative, view.at) for alternative in alternatives(view, row)),
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
