"""The findings of `tsfc doctor`: what is wrong with a node, on which side, what to do.

Each finding says what was seen, so that a reader can check it. A finding that no
remedy of the watchdog can mend says so.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.whois import NetInfo
from tsfc.core.text import one_line
from tsfc.core.watchdog import policy as policies
from tsfc.core.watchdog.cause import Cause, node_cause
from tsfc.core.watchdog.state import last_restart
from tsfc.core.watchdog.track import DIRECT, Reason
from tsfc.view.model import Row, View, duration, health

SOON_SECONDS = 7 * 86400
"A node key that expires within this time is a finding."
SILENT_SECONDS = 900
"A watchdog that did not run for this time is a finding: it runs each minute."
PEER_LIMIT = 20
"Maximum number of peers with a finding of their own."


class Side(StrEnum):
    """Where a fault most likely is."""

    NODE = "this node"
    NETWORK = "this node's network"
    CONTROL = "the control server, or the way to it"
    RELAY = "the relay server, or the way to it"
    PEER = "the peer, or the way to it"
    UNKNOWN = "unknown"


class Finding(Struct, frozen=True):
    """Something that is wrong."""

    what: str
    "What was seen, as a sentence."
    side: Side
    advice: str
    "What to do, as a sentence."
    is_beyond_remedies: bool = False
    "No remedy of the watchdog can mend it."


NODE_FINDINGS = {
    Cause.CONTROL_OUTAGE: Finding(
        "tailscaled has no connection to the control server.",
        Side.CONTROL,
        "Check the Internet connection and <https://status.tailscale.com>. Do not restart "
        "tailscaled: without the control server it would start without any peer.",
        is_beyond_remedies=True,
    ),
    Cause.RELAY_OUTAGE: Finding(
        "tailscaled cannot reach a relay server, without which no new path is found.",
        Side.RELAY,
        "Check that TCP port 443 to the relay servers is open: `tailscale netcheck`.",
        is_beyond_remedies=True,
    ),
    Cause.UDP_BLOCKED: Finding(
        "UDP from tailscaled's port does not reach the Internet, so every path needs a relay.",
        Side.NETWORK,
        "Run `tailscale netcheck`. If it says `UDP: true`, only tailscaled's own port is blocked, "
        "and another PORT in /etc/default/tailscaled helps; else let the firewall pass UDP.",
        is_beyond_remedies=True,
    ),
    Cause.HARD_NAT: Finding(
        "This node is behind a hard NAT: it uses another port for each destination.",
        Side.NETWORK,
        "Forward UDP port 41641 to this node, or turn on UPnP or NAT-PMP on the router.",
        is_beyond_remedies=True,
    ),
}
"Findings about the node itself."

PEER_ADVICE = {
    Cause.FAR_SIDE: (
        Side.PEER,
        "Other peers are direct. Run `tsfc doctor` on the peer, or `tailscale netcheck`.",
    ),
    Cause.UNKNOWN: (
        Side.UNKNOWN,
        "No peer is direct, and this node looks well. Run `tailscale netcheck` at both ends.",
    ),
}
"Side and advice for a peer on relay whose cause is not this node."


def findings(view: View, net: NetInfo) -> tuple[Finding, ...]:
    """Everything that is wrong, what concerns all peers first."""
    status = view.status
    if not statuses.is_running(status):
        state = one_line(status.backend_state, 40)
        what = f"tailscaled is {state}, not Running."
        return (Finding(what, Side.NODE, "Run `tailscale up`."), *_watchdog(view))
    relayed = [row for row in view.rows if _is_relayed(row)]
    direct = sum(row.path is Path.DIRECT for row in view.rows)
    cause = node_cause(status, direct=direct, relayed=len(relayed), net=net)
    return (
        *_key(view),
        *([] if cause is None else [NODE_FINDINGS[cause]]),
        *_health(view),
        *_all_offline(view),
        *_watchdog(view),
        *_dead(view),
        *_without_path(view),
        *([] if cause is not None else _relays(relayed, direct)),
    )


def render(view: View, found: tuple[Finding, ...]) -> str:
    """The summary of the node, and the findings as numbered paragraphs."""
    lines = [*_summary(view), ""]
    if not found:
        lines.append("Nothing is wrong, as far as this node can see.")
    for number, finding in enumerate(found, start=1):
        lines += [
            f"{number}. {finding.what}",
            f"   Likely side: {finding.side}.",
            f"   What to do: {finding.advice}",
            *(
                ["   No restart by the watchdog can mend this."]
                if finding.is_beyond_remedies
                else []
            ),
        ]
    return "".join(f"{line}\n" for line in (*lines, *view.warnings))


def _summary(view: View) -> list[str]:
    status, paths = view.status, [row.path for row in view.rows]
    version = one_line(status.version.partition("-")[0], 40)
    counts = [f"{paths.count(path)} {path.replace('_', ' ')}" for path in Path if path in paths]
    lines = [
        f"{view.name}: {one_line(status.backend_state, 40)}, Tailscale {version}",
        f"peers: {', '.join(counts) or 'none'}",
    ]
    snapshot = view.snapshot
    if snapshot is not None:
        restarted = last_restart(snapshot.state)
        when = "" if restarted is None else f", the last {duration(view.at - restarted)} ago"
        lines.append(
            f"watchdog: policy {policies.name(snapshot.policy)}, "
            f"{snapshot.state.restarts} restarts{when}"
        )
    return lines


def _key(view: View) -> list[Finding]:
    expiry = statuses.key_expiry(view.status.self_)
    if view.status.self_.expired or (expiry is not None and expiry <= view.at):
        return [
            Finding(
                "This node's key has expired, so no peer accepts its packets.",
                Side.NODE,
                "Run `tailscale up --force-reauth`.",
                is_beyond_remedies=True,
            )
        ]
    if expiry is None or expiry - view.at > SOON_SECONDS:
        return []
    return [
        Finding(
            f"This node's key expires in {duration(expiry - view.at)}.",
            Side.NODE,
            "Log in again before that, or disable key expiry for this node.",
            is_beyond_remedies=True,
        )
    ]


def _health(view: View) -> list[Finding]:
    return [
        Finding(
            f"tailscaled says: {message}", Side.NODE, "Follow the message; see `tailscale status`."
        )
        for message in health(view.status)
    ]


def _all_offline(view: View) -> list[Finding]:
    if not view.rows or any(row.path is not Path.OFFLINE for row in view.rows):
        return []
    return [
        Finding(
            f"All {len(view.rows)} peers are offline.",
            Side.UNKNOWN,
            "If this node's own network works, run `systemctl restart tailscaled`.",
        )
    ]


def _watchdog(view: View) -> list[Finding]:
    if view.snapshot is None:
        return []  # a warning of the view says why
    silent = view.at - view.snapshot.at.unix
    if silent <= SILENT_SECONDS:
        return []
    return [
        Finding(
            f"The watchdog last ran {duration(silent)} ago.",
            Side.NODE,
            "Run `systemctl status tailscale-watchdog.timer tailscale-watchdog.service`.",
        )
    ]


def _dead(view: View) -> list[Finding]:
    return [
        Finding(
            f"{row.peer} is direct, but no data comes back: disco pings are answered, TSMP pings "
            "are lost.",
            Side.NETWORK,
            "A router on the way drops WireGuard. Check the firewalls at both ends.",
            is_beyond_remedies=True,
        )
        for row in view.rows
        if row.is_dead
    ][:PEER_LIMIT]


def _without_path(view: View) -> list[Finding]:
    return [
        Finding(
            f"{row.peer} has no path: no direct address, no peer relay, no home region.",
            Side.PEER,
            "Run `tailscale netcheck` on the peer: it must reach a relay server.",
            is_beyond_remedies=True,
        )
        for row in view.rows
        if row.path is Path.NONE
    ][:PEER_LIMIT]


def _relays(relayed: list[Row], direct: int) -> list[Finding]:
    side, advice = PEER_ADVICE[Cause.FAR_SIDE if direct else Cause.UNKNOWN]
    found = [
        Finding(
            f"{row.peer} is on relay{_since(row)}.",
            side,
            advice,
            is_beyond_remedies=row.verdict is Reason.NEVER_DIRECT,
        )
        for row in relayed[:PEER_LIMIT]
    ]
    more = len(relayed) - PEER_LIMIT
    if more > 0:
        found.append(Finding(f"{more} more peers are on relay.", side, "Run `tsfc peers`."))
    return found


def _is_relayed(row: Row) -> bool:
    """Whether packets to the peer go through DERP, and it is watched."""
    return row.path is Path.DERP and row.next != "not watched" and row.verdict not in DIRECT


def _since(row: Row) -> str:
    what = f": {row.next}" if row.verdict is not None else ""
    if not row.relay_seconds:
        return what
    return f" for {duration(row.relay_seconds)}{what}"
