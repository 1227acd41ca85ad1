"""`tsfc explain PEER`: what was seen of a peer, which rule applies, and which numbers would change that."""

from __future__ import annotations

from difflib import get_close_matches

from returns.result import Failure, Result, Success

from tsfc.core.clock import Instant
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.peers import is_watched, named
from tsfc.core.tailscale.status import PeerStatus
from tsfc.core.text import one_line
from tsfc.core.watchdog.forecast import Forecast, WhatIf, what_ifs
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.core.watchdog.track import Reason
from tsfc.view.model import Row, View, span

PATHS = {
    Path.DIRECT: "packets go to it directly, {via}",
    Path.PEER_RELAY: "packets go to it through a peer relay, {via}",
    Path.DERP: "packets go to it through the DERP relay {via}, which is its home region",
    Path.IDLE: "nothing was sent to it in the last 45 seconds, so tailscaled keeps no path to it: it has no direct address, and that is no fault",
    Path.OFFLINE: "the control server says that it is offline",
}
RULES = {
    Reason.DIRECT: "it has a direct address, and did when the watchdog last looked: there is nothing to do",
    Reason.DETECTED: "it has no direct address, and had one when the watchdog last looked: its next run says DETECTED, and counts from there",
    Reason.WAITING: "no direct address for {relay}; that is not more than {threshold} (--max-relay-seconds), so it is waited for",
    Reason.EXCLUDED: "no direct address for {relay}; that is too long, but it is excluded, and so never the cause of a restart",
    Reason.COOLDOWN: "no direct address for {relay}; too long, but for {cooldown} (--cooldown-seconds) after a restart there is no other: {left} left",
    Reason.RESTART: "no direct address for {relay}; that is more than {threshold} (--max-relay-seconds), and no cooldown holds: tailscaled is restarted",
    Reason.RECOVERED: "it has a direct address again, and was on relay when the watchdog last looked: its next run says RECOVERED",
    Reason.RESTORED: "it has a direct address again after a restart: its next run says RECOVERED, and does not count it as natural",
}
OUTCOMES = {
    Reason.DIRECT: "there would be nothing to do",
    Reason.DETECTED: "it would just have been detected",
    Reason.WAITING: "it would be waited for",
    Reason.EXCLUDED: "it would be on relay for too long, and excluded",
    Reason.COOLDOWN: "it would be on relay for too long, in a cooldown",
    Reason.RESTART: "tailscaled would be restarted because of it",
    Reason.RECOVERED: "it would have recovered by itself",
    Reason.RESTORED: "a restart would have cured it",
}


def explained(view: View, name: str) -> Result[tuple[str, ...], str]:
    """Returns the sentences, one a line; fails, in one line, where there is no such peer."""
    if not statuses.is_running(view.status):
        state = one_line(view.status.backend_state, 40)
        return Failure(
            f"explaining {one_line(name)}: tailscaled is {state}, not Running, so it shows no peers; bring it up"
        )
    row = next((row for row in view.rows if row.peer == name), None)
    if row is None:
        names = [row.peer for row in view.rows]
        near = get_close_matches(name, names, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else "`tsfc peers` lists them"
        return Failure(f"explaining {one_line(name)}: there is no such peer; {hint}")
    peer = next(peer.status for peer in named(view.status) if peer.name == name)
    return Success(
        (
            f"{row.peer}: {_seen(view, row)}.",
            *_traffic(row),
            *_verdict(view, row, peer),
            *view.unread,
        )
    )


def _seen(view: View, row: Row) -> str:
    if row.path is Path.OFFLINE and row.last_seen is not None:
        return f"{PATHS[row.path]}; it last saw it {span(view.at - row.last_seen)} ago"
    return PATHS[row.path].format(via=row.via or "unnamed")


def _traffic(row: Row) -> tuple[str, ...]:
    handshake = (
        "There was no WireGuard handshake with it"
        if row.handshake_seconds_ago is None
        else f"The last WireGuard handshake was {span(row.handshake_seconds_ago)} ago"
    )
    return (
        f"{handshake}; since tailscaled knows it, {row.rx_bytes} bytes were received and {row.tx_bytes} sent.",
    )


def _verdict(view: View, row: Row, peer: PeerStatus) -> tuple[str, ...]:
    if not is_watched(peer):
        why = (
            "expired"
            if peer.expired
            else "offline"
            if not peer.online
            else "one that something of yours is shared to, or a Mullvad exit node"
        )
        return (f"The watchdog does not watch it: it is {why}.",)
    memory, ahead = view.memory, view.forecast
    if memory is None or ahead is None or row.verdict is None:
        return ("What the watchdog makes of it is unknown.",)
    policy = memory.policy
    rule = RULES[row.verdict].format(
        relay=span(row.relay_seconds or 0),
        threshold=span(policy.max_relay_seconds),
        cooldown=span(policy.cooldown_seconds),
        left=span(ahead.cooldown_seconds),
    )
    others = what_ifs(memory.state, view.status, row.peer, now=Instant(view.at), policy=policy)
    return (
        f"Watchdog: {rule}.",
        *_ahead(row, ahead, memory),
        *(_what_if(other) for other in others),
    )


def _ahead(row: Row, ahead: Forecast, memory: Snapshot) -> tuple[str, ...]:
    if row.verdict is Reason.DIRECT:
        return (
            f"Should it lose its address, it would be {span(memory.policy.max_relay_seconds)} until that is too long.",
        )
    if ahead.restart_seconds is None or ahead.restart_seconds == 0:
        return ()
    cause = "it" if ahead.restart_peer == row.peer else str(ahead.restart_peer)
    return (
        f"If nothing changes, tailscaled is restarted in {span(ahead.restart_seconds)}, because of {cause}.",
    )


def _what_if(other: WhatIf) -> str:
    condition = (
        f"With {other.option}" if other.option.startswith("--") else other.option.capitalize()
    )
    return f"{condition} {OUTCOMES[other.reason]}."
