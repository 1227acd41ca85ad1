"""The findings of `tsfc doctor`: what is wrong with a node, on which side, what to do.

Each finding says what was seen, so that a reader can check it. A finding that no
remedy of the watchdog can fix says so.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.duration import duration
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.status import Status
from tsfc.core.tailscale.whois import NetInfo
from tsfc.core.text import counted
from tsfc.core.watchdog import policy as policies
from tsfc.core.watchdog.cause import Cause, node_cause
from tsfc.core.watchdog.policy import GuardedPolicy
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.core.watchdog.state import last_restart
from tsfc.core.watchdog.track import DIRECT, Reason
from tsfc.core.watchdog.watch import Hold, hold
from tsfc.view.cells import counts_by_path
from tsfc.view.model import NOT_WATCHED, Row, View, health, short_version, state, why_held

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
    "No remedy of the watchdog can fix it."


WAIT = (
    "Wait a minute. If nothing changes, check the Internet connection: without the control "
    "server, tailscaled stays in this state."
)
BACKEND_ADVICE = {
    "NeedsMachineAuth": (Side.CONTROL, "Approve this node in the admin console."),
    "NoState": (Side.CONTROL, WAIT),
    "Starting": (Side.CONTROL, WAIT),
}
"Side and advice for states in which `tailscale up` does not help."


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
        "Run `tailscale netcheck`, which uses another port. If it says `UDP: true`, only the port "
        "of tailscaled is blocked: set another PORT in /etc/default/tailscaled, or let the "
        "watchdog change it (`--policy guarded --remedies restart,other-port`). Otherwise, allow "
        "UDP in the firewall.",
    ),
    Cause.HARD_NAT: Finding(
        "This node is behind a hard NAT, which uses another port for each destination, so paths "
        "to peers behind a NAT often need a relay.",
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
JUST_STARTED = (
    Side.UNKNOWN,
    (
        "tailscaled started less than 5 minutes ago and may still find a path. Wait, and run "
        "`tsfc doctor` again."
    ),
)
"The same while nobody can know yet."


def findings(view: View, net: NetInfo) -> tuple[Finding, ...]:
    """Everything that is wrong, what concerns all peers first."""
    status = view.status
    if not statuses.is_running(status):
        return (_backend(status), *_health(view), *_watchdog(view))
    relayed = [row for row in view.rows if _is_relayed(row)]
    direct = sum(row.path is Path.DIRECT for row in view.rows)
    is_cut_off = hold(status, view.now) is not None  # a finding that explains all others
    cause = node_cause(status, direct=direct, relayed=len(relayed), net=net)
    return (
        *_key(view),
        *([] if cause is None else [_with_count(NODE_FINDINGS[cause], len(relayed))]),
        *_health(view),
        *([] if is_cut_off else _all_offline(view)),
        *_watchdog(view),
        *_dead(view),
        *_without_path(view),
        *(_relays(view, relayed, direct) if cause is None and not is_cut_off else []),
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
                ["   No restart by the watchdog can fix this."]
                if finding.is_beyond_remedies
                else []
            ),
        ]
    return "".join(f"{line}\n" for line in (*lines, *view.warnings))


def _summary(view: View) -> list[str]:
    status = view.status
    version = short_version(status)
    tailscale = f", Tailscale {version}" if version else ""
    lines = [
        f"{view.name or 'this node'}: {state(status)}{tailscale}",
        f"peers: {counts_by_path(view) or 'none'}",
    ]
    snapshot = view.snapshot
    if snapshot is not None:
        restarted = last_restart(snapshot.state)
        when = "" if restarted is None else f", the last {duration(view.at - restarted)} ago"
        lines.append(
            f"watchdog: policy {policies.name(snapshot.policy)}, "
            f"{counted(snapshot.state.restarts, 'restart')}{when}"
        )
        held = _hold(view)
        if held is not None:
            lines.append(f"watchdog: no restart now: {why_held(held, snapshot.policy)}")
    return lines


def _hold(view: View) -> Hold | None:
    return None if view.forecast is None else view.forecast.hold


def _backend(status: Status) -> Finding:
    usual = (Side.NODE, "Run `tailscale up`.")
    side, advice = BACKEND_ADVICE.get(status.backend_state, usual)
    return Finding(f"tailscaled is {state(status)}, not Running.", side, advice)


def _with_count(finding: Finding, relayed: int) -> Finding:
    """The finding about the node, with the number of peers on relay."""
    if not relayed:
        return finding
    verb = "is" if relayed == 1 else "are"
    return replace(finding, what=f"{finding.what} {counted(relayed, 'peer')} {verb} on relay.")


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
        return _held(view, view.snapshot)
    return [
        Finding(
            f"The watchdog last ran {duration(silent)} ago.",
            Side.NODE,
            "Run `systemctl status 'tailscale-*'`.",
        )
    ]


def _held(view: View, snapshot: Snapshot) -> list[Finding]:
    """What holds the watchdog back, unless it ends by itself or is a finding anyway."""
    policy, held = snapshot.policy, _hold(view)
    if not isinstance(policy, GuardedPolicy):
        return []
    if held is Hold.PAUSED:
        return [
            Finding(
                f"The watchdog restarts nothing: it is {why_held(held, policy)}.",
                Side.NODE,
                "Delete that file after the maintenance.",
            )
        ]
    if held is Hold.NO_BUDGET:
        return [
            Finding(
                f"The watchdog restarts nothing: {held} (--budget {policy.budget}).",
                Side.UNKNOWN,
                "Fix what the other findings say. `journalctl -t tailscale-watchdog` has the "
                "OUTCOME of each restart.",
            )
        ]
    return []


def _dead(view: View) -> list[Finding]:
    direct = [row for row in view.rows if row.path is Path.DIRECT]
    side = Side.UNKNOWN if all(row.is_dead for row in direct) else Side.PEER
    return [
        Finding(
            f"{row.peer} is direct, but no data comes back: disco pings are answered, TSMP pings "
            "are lost.",
            side,
            "A router or firewall on the way drops WireGuard. Check those at both ends.",
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


def _relays(view: View, relayed: list[Row], direct: int) -> list[Finding]:
    side, advice = PEER_ADVICE[Cause.FAR_SIDE if direct else Cause.UNKNOWN]
    if _hold(view) is Hold.STARTING:
        side, advice = JUST_STARTED
    found = [
        Finding(f"{row.peer} {_on_relay(view, row)}.", side, advice) for row in relayed[:PEER_LIMIT]
    ]
    more = len(relayed) - PEER_LIMIT
    if more > 0:
        what = f"{counted(more, 'more peer')} {'is' if more == 1 else 'are'} on relay."
        found.append(Finding(what, side, "Run `tsfc peers`."))
    return found


def _is_relayed(row: Row) -> bool:
    """Whether packets to the peer go through DERP, and it is watched."""
    return row.path is Path.DERP and row.next != NOT_WATCHED and row.verdict not in DIRECT


def _on_relay(view: View, row: Row) -> str:
    """Since when a peer is on relay, and what the watchdog does about it."""
    since = (
        f"has been on relay for {duration(row.relay_seconds)}"
        if row.relay_seconds
        else "is on relay"
    )
    if row.verdict is None:
        return since
    policy = None if view.snapshot is None else view.snapshot.policy
    if row.verdict is Reason.NEVER_DIRECT and isinstance(policy, GuardedPolicy):
        return (
            f"{since}, and was not direct in the last {policy.known_direct_days} days, so the "
            "watchdog does not restart tailscaled for it"
        )
    return f"{since} ({row.next})"
