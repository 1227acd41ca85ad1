"""What there is to see of a node, as data: the same for the table, for the sentences and for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from tsfc.core.clock import Instant
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.peers import Peer, is_watched, named
from tsfc.core.tailscale.ping import PingResult
from tsfc.core.tailscale.status import Status
from tsfc.core.text import one_line, printable
from tsfc.core.watchdog.forecast import Forecast, forecast
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.core.watchdog.track import DIRECT, Reason, Verdict

TROUBLE = (Reason.RESTART, Reason.COOLDOWN, Reason.WAITING, Reason.DETECTED, Reason.EXCLUDED)
"Verdicts of peers on relay, the worst first."
CALM = (Path.DERP, Path.PEER_RELAY, Path.DIRECT, Path.IDLE, Path.OFFLINE)
"Paths of peers that are no trouble, or of which nobody knows whether they are."
SILENT_SECONDS = 180
"A watchdog that has not run for so long does not run: its interval is a minute."


class Row(Struct, frozen=True):
    """One peer."""

    peer: str
    path: Path
    via: str
    "`ip:port` of a direct path or of a peer relay, the code of the DERP region that is in use; else empty."
    relay_since: int | None
    "Unix time, by the watchdog's memory; None where it does not remember it on relay."
    relay_seconds: int | None
    handshake_seconds_ago: int | None
    "None where there was none since tailscaled knows it."
    rx_bytes: int
    tx_bytes: int
    last_seen: int | None
    "Unix time, of a peer that is offline; None where the control server does not say."
    verdict: Reason | None
    "The watchdog's, were it to run now; None of a peer that it does not watch, or where its memory could not be read."
    next: str
    "What comes of it, in few words."
    latency: PingResult | None = None
    "What came of a ping just now; None where none was sent."


class View(Struct, frozen=True):
    """One look at a node."""

    at: int
    "Unix time."
    name: str
    status: Status
    memory: Snapshot | None
    forecast: Forecast | None
    "None where the memory could not be read, or no peer can be judged."
    rows: tuple[Row, ...]
    "Trouble on top; none while tailscaled is not `Running`."
    unread: tuple[str, ...]
    "What could not be read, one line each."


def view(
    status: Status,
    memory: Snapshot | None,
    *,
    now: Instant,
    latencies: Mapping[str, PingResult],
    unread: tuple[str, ...] = (),
) -> View:
    """Returns what there is to see; `latencies` are by the names of the peers."""
    ahead = (
        None if memory is None else forecast(memory.state, status, now=now, policy=memory.policy)
    )
    verdicts = {verdict.peer: verdict for verdict in (ahead.verdicts if ahead else None) or ()}
    peers = named(status) if statuses.is_running(status) else ()
    rows = [
        _row(
            peer, memory, ahead, verdicts.get(peer.name), now=now, latency=latencies.get(peer.name)
        )
        for peer in peers
    ]
    own = status.self_.dns_name.partition(".")[0] or status.self_.host_name
    return View(
        now.unix, printable(own, 200), status, memory, ahead, tuple(sorted(rows, key=_rank)), unread
    )


def counts(shown: View) -> dict[Path, int]:
    """Returns how many peers there are on each path, in the order of the paths, without those that nobody is on."""
    paths = Counter(row.path for row in shown.rows)
    return {path: paths[path] for path in Path if paths[path]}


def health(status: Status) -> tuple[str, ...]:
    """Returns tailscaled's own messages, each as one line."""
    return tuple(one_line(message) for message in status.health or ())


def via_text(row: Row) -> str:
    """Returns the path in the words of `tailscale status`: `direct 192.0.2.7:41641`, `relay fra`, `offline`."""
    word = {Path.PEER_RELAY: "peer-relay", Path.DERP: "relay"}.get(row.path, row.path.value)
    return f"{word} {row.via}".rstrip()


def span(seconds: float, parts: int = 2) -> str:
    """Returns a length of time in its largest units, as many as `parts`: `3d 4h`, `4m 10s`, `0s`."""
    left = max(0, int(seconds))
    words: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or words or size == 1:
            words.append(f"{number}{unit}")
    shown = words[:parts]
    while len(shown) > 1 and shown[-1].startswith("0"):
        shown.pop()
    return " ".join(shown)


def quantity(number: int) -> str:
    """Returns a number of bytes in the largest binary unit that leaves it at least 1: `512 B`, `1.5 MiB`."""
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:  # noqa: PLR2004 - the unit's own size
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"


def _row(
    peer: Peer,
    memory: Snapshot | None,
    ahead: Forecast | None,
    verdict: Verdict | None,
    *,
    now: Instant,
    latency: PingResult | None,
) -> Row:
    status = peer.status
    path = classify(status)
    via = {
        Path.DIRECT: status.cur_addr,
        Path.PEER_RELAY: status.peer_relay,
        Path.DERP: status.relay,
    }.get(path, "")
    handshake, seen = statuses.handshake(status), statuses.last_seen(status)
    is_on_relay = verdict is not None and verdict.reason not in DIRECT
    return Row(
        peer=peer.name,
        path=path,
        via=printable(via, 100),
        relay_since=memory.state.relay_since.get(peer.name)
        if memory is not None and is_on_relay
        else None,
        relay_seconds=verdict.relay_seconds if verdict is not None and is_on_relay else None,
        handshake_seconds_ago=None if handshake is None else max(0, int(now.unix - handshake)),
        rx_bytes=status.rx_bytes,
        tx_bytes=status.tx_bytes,
        last_seen=None if seen is None or status.online else int(seen),
        verdict=None if verdict is None else verdict.reason,
        next=_next(verdict, memory, ahead) if is_watched(status) else "not watched",
        latency=latency,
    )


def _next(verdict: Verdict | None, memory: Snapshot | None, ahead: Forecast | None) -> str:
    if verdict is None or memory is None or ahead is None:
        return "unknown"
    match verdict.reason:
        case Reason.RESTART:
            return "restart at its next run"
        case Reason.COOLDOWN:
            return f"cooling down, {span(ahead.cooldown_seconds)} left"
        case Reason.WAITING if (
            verdict.peer == ahead.restart_peer and ahead.restart_seconds is not None
        ):
            return f"restart in {span(ahead.restart_seconds)}"
        case Reason.WAITING:
            return (
                f"waiting, {span(verdict.relay_seconds)} of {span(memory.policy.max_relay_seconds)}"
            )
        case Reason.DETECTED:
            return "just detected"
        case Reason.EXCLUDED:
            return "excluded"
        case Reason.DIRECT | Reason.RECOVERED | Reason.RESTORED:
            return "direct"


def _rank(row: Row) -> tuple[int, int, str]:
    """Sorts by trouble, then by how long it lasts, then by name; the offline ones come last."""
    trouble = TROUBLE.index(row.verdict) if row.verdict in TROUBLE else len(TROUBLE)
    calm = CALM.index(row.path) if trouble == len(TROUBLE) else 0
    return trouble + calm, -(row.relay_seconds or 0), row.peer
