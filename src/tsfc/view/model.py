"""The view of a node: the data that the table, the sentences and the JSON show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.duration import duration
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.paths import Path, active_path, classify
from tsfc.core.tailscale.peers import Hidden, Peer, hidden, is_watched, named, own_name
from tsfc.core.tailscale.ping import PingResult
from tsfc.core.tailscale.status import Status
from tsfc.core.text import PATH_LIMIT, natural_key, one_line, printable
from tsfc.core.watchdog import forecast as forecasts
from tsfc.core.watchdog.cause import Cause
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.forecast import Forecast
from tsfc.core.watchdog.guarded import WORDS, paused_by
from tsfc.core.watchdog.policy import GuardedPolicy, Policy
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.core.watchdog.track import DIRECT, Reason, Verdict
from tsfc.core.watchdog.watch import Hold

SEVERITY_ORDER = (
    Reason.RESTART,
    Reason.HELD,
    Reason.CONFIRMING,
    Reason.COOLDOWN,
    Reason.PATIENT,
    Reason.NEVER_DIRECT,
    Reason.WAITING,
    Reason.DETECTED,
    Reason.EXCLUDED,
)
"Verdicts on peers that are on relay, worst first."
PATH_ORDER = (Path.NONE, Path.DERP, Path.PEER_RELAY, Path.DIRECT, Path.IDLE, Path.OFFLINE)
"Sort order of healthy peers and of peers without a verdict."

NOT_WATCHED = "not watched"
"What comes next for a peer that the watchdog ignores by its rules."


class Row(Struct, frozen=True):
    """One peer."""

    peer: str
    path: Path
    active_path: Path | None
    "Path of the packets of the last 45 s, also of an offline peer; None without any."
    via: str
    """`ip:port` of a direct path or peer relay, or code of the DERP region.

    Empty if no packet was sent in the last 45 s, or if there is no path.
    """
    handshake_seconds_ago: int | None
    "None if there was no handshake since tailscaled added the peer."
    rx_bytes: int
    tx_bytes: int
    last_seen: int | None
    "Unix time; None if the peer is online or the coordination server does not know."
    next: str
    "What the watchdog will do, in a few words."
    hidden: Hidden | None = None
    "Why `tailscale status` hides the peer; None if it does not."
    verdict: Reason | None = None
    "Verdict of a run at this moment; None if the peer is not watched or not judged."
    relay_since: int | None = None
    "Unix time; None unless the watchdog has detected that the peer is on relay."
    relay_seconds: int | None = None
    "None unless the verdict says that the peer is on relay."
    ping: PingResult | None = None
    "None if no ping was sent."
    is_dead: bool = False
    "It is direct, and the watchdog found that no data comes back."
    cause: Cause | None = None
    "Likely cause of its relay; only under the guarded policy, over the threshold."


class View(Struct, frozen=True):
    """A node at one moment."""

    now: Instant
    name: str
    observed: Observed
    "As the watchdog would observe it."
    snapshot: Snapshot | None
    "None if it could not be read."
    forecast: Forecast | None
    "None without a snapshot."
    rows: tuple[Row, ...]
    "Worst first; empty unless tailscaled is `Running`."
    hidden: Mapping[Hidden, int]
    "Number of peers that were left out of `rows`, by kind; no zeros."
    warnings: tuple[str, ...]
    "What could not be read and why, one line each."

    @property
    def at(self) -> int:
        """Unix time."""
        return self.now.unix

    @property
    def status(self) -> Status:
        """The status of the node."""
        return self.observed.status


def make_view(
    observed: Observed,
    snapshot: Snapshot | None,
    *,
    now: Instant,
    pings: Mapping[str, PingResult],
    warnings: tuple[str, ...] = (),
) -> View:
    """Combine an observation, the watchdog's snapshot, and pings by the peer's name.

    The view has all peers; see `without_hidden`.
    """
    status = observed.status
    # What a run of the watchdog would decide at this moment:
    forecast = (
        None
        if snapshot is None
        else forecasts.forecast(snapshot.state, observed, now=now, policy=snapshot.policy)
    )
    verdicts = {verdict.peer: verdict for verdict in (forecast.verdicts if forecast else ()) or ()}

    # One row per peer; a peer that is not watched has no verdict.
    rows: list[Row] = []
    own_ips = status.self_.tailscale_ips or ()
    for peer in named(status) if statuses.is_running(status) else ():
        row = _observed(peer, own_ips, now=now, ping=pings.get(peer.name))
        verdict = verdicts.get(peer.name)
        if snapshot is not None and forecast is not None and verdict is not None:
            row = _judged(row, verdict, now.unix, snapshot.policy, forecast)
        rows.append(row)

    return View(
        now=now,
        name=own_name(status),
        observed=observed,
        snapshot=snapshot,
        forecast=forecast,
        rows=tuple(sorted(rows, key=severity_key)),
        hidden={},
        warnings=tuple(printable(warning, 2 * PATH_LIMIT) for warning in warnings),
    )


def without_hidden(view: View) -> View:
    """Return the view without the peers that `tailscale status` hides."""
    kinds = Counter(row.hidden for row in view.rows)
    return replace(
        view,
        rows=tuple(row for row in view.rows if row.hidden is None),
        hidden={kind: kinds[kind] for kind in Hidden if kinds[kind]},
    )


def peers_by_path(view: View) -> dict[Path, int]:
    """Return the number of peers on each path, in the order of `Path`; no zeros."""
    numbers = Counter(row.path for row in view.rows)
    return {path: numbers[path] for path in Path if numbers[path]}


def health(status: Status) -> tuple[str, ...]:
    """Return tailscaled's health messages, each as one line."""
    return tuple(one_line(message) for message in status.health or ())


def state(status: Status) -> str:
    """Return tailscaled's state as one line, such as `Running`."""
    return one_line(status.backend_state, 40)


def short_version(status: Status) -> str:
    """Return tailscaled's version without the commit; empty if it is unknown."""
    return one_line(status.version.partition("-")[0], 40)


def byte_size(number: int) -> str:
    """Format a number of bytes in the largest fitting unit: `512 B`, `1.5 MiB`."""
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:  # noqa: PLR2004 - the unit's own size
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"


def _observed(
    peer: Peer, own_ips: tuple[str, ...], *, now: Instant, ping: PingResult | None
) -> Row:
    """Row of a peer without a verdict."""
    status = peer.status
    active = active_path(status)
    via = {
        Path.DIRECT: status.cur_addr,
        Path.PEER_RELAY: status.peer_relay,
        Path.DERP: status.relay,
    }
    handshake, last_seen = statuses.handshake(status), statuses.last_seen(status)
    return Row(
        peer=peer.name,
        path=classify(status),
        active_path=active,
        via="" if active is None else printable(via.get(active, ""), 100),
        handshake_seconds_ago=None if handshake is None else max(0, int(now.unix - handshake)),
        rx_bytes=status.rx_bytes,
        tx_bytes=status.tx_bytes,
        last_seen=None if last_seen is None or status.online else int(last_seen),
        next="unknown" if is_watched(status, own_ips) else NOT_WATCHED,
        hidden=hidden(status),
        ping=ping,
    )


def _judged(row: Row, verdict: Verdict, now: int, policy: Policy, forecast: Forecast) -> Row:
    """Row of the same peer with its verdict."""
    row = replace(row, verdict=verdict.reason, next=_next(row.path, verdict, now, policy, forecast))
    if verdict.reason in DIRECT:
        return replace(row, is_dead=verdict.is_dead)
    if verdict.reason is Reason.UNKNOWN:
        return row
    is_detected = verdict.reason is Reason.DETECTED  # only the next run keeps that
    return replace(
        row,
        relay_since=None if is_detected else now - verdict.relay_seconds,
        relay_seconds=verdict.relay_seconds,
        cause=verdict.cause,
    )


NEXT = {
    Reason.DETECTED: "just detected",
    Reason.CONFIRMING: "confirming that the relay lasts",
    Reason.EXCLUDED: "excluded",
    Reason.NEVER_DIRECT: "never direct: no restart",
    **dict.fromkeys(DIRECT, "direct"),
}
"What comes next for a peer, where nothing else belongs to it."
IGNORED = {
    Path.IDLE: "ignored while idle",
    Path.PEER_RELAY: "ignored: peer relay",
    Path.NONE: "ignored: no path",
}
"What the table says of a peer that `sight.by_evidence` calls unknown, except phones."
HOLDS = {
    Hold.NO_CONTROL: "no control server",
    Hold.EXPIRED_KEY: "node key expired",
    Hold.NO_RELAY: "no relay server",
    Hold.STARTING: "tailscaled just started",
    Hold.PAUSED: "paused",
    Hold.NO_BUDGET: "budget used up",
}
"Why a remedy is held back, short enough for the table."


def why_held(hold: Hold, policy: Policy) -> str:
    """Why no remedy may be applied now, as a clause. It names the pause file."""
    if hold is Hold.PAUSED and isinstance(policy, GuardedPolicy):
        return paused_by(policy)
    return hold.value


def _next(path: Path, verdict: Verdict, now: int, policy: Policy, forecast: Forecast) -> str:
    due = forecast.due
    match verdict.reason:
        case Reason.RESTART if due is not None:
            return f"{WORDS[due.remedy]} in the next run"
        case Reason.UNKNOWN:
            return IGNORED.get(path, "ignored: phone")
        case Reason.HELD if forecast.hold is not None:
            return f"held: {HOLDS[forecast.hold]}"
        case Reason.COOLDOWN:
            return f"cooling down, {duration(forecast.cooldown_seconds)} left"
        case Reason.WAITING if due is not None and verdict.peer == due.peer:
            return f"{WORDS[due.remedy]} in {duration(due.at - now)}"
        case Reason.WAITING:
            relay, limit = duration(verdict.relay_seconds), duration(policy.max_relay_seconds)
            return f"waiting, {relay} of {limit}"
        case Reason.PATIENT:
            return f"patient, {_worth_it(verdict)}"
        case Reason.DIRECT if verdict.is_dead:
            return "direct, but no data comes back"
        case _:
            return NEXT[verdict.reason]


def _worth_it(verdict: Verdict) -> str:
    if verdict.outlook is None:
        return "no remedy is allowed"
    left = verdict.outlook.worth_at + 1 - verdict.relay_seconds
    return f"{WORDS[verdict.outlook.remedy]} worth it in {duration(left)}"


def severity_key(row: Row) -> tuple[int, int, object]:
    """Order by severity, then path, then time on relay (longest first), then name."""
    if row.verdict in SEVERITY_ORDER:
        rank = SEVERITY_ORDER.index(row.verdict)
    else:
        rank = len(SEVERITY_ORDER) + PATH_ORDER.index(row.path)
    return rank, -(row.relay_seconds or 0), natural_key(row.peer)
