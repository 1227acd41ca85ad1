"""What the commands of this package ask of the node and of its watchdog."""

from __future__ import annotations

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.keepalive import overall_result, pings
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale import whois
from tsfc.core.tailscale.peers import Peer, address
from tsfc.core.tailscale.ping import Ping, PingResult
from tsfc.core.tailscale.status import Status
from tsfc.core.tailscale.whois import NO_NET_INFO, NetInfo
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.snapshot import Snapshot, decode
from tsfc.shell import regular, textfile
from tsfc.shell.system import System
from tsfc.shell.tailscaled import source as tailscaled
from tsfc.shell.tailscaled.observe import RunOptions, observe, source
from tsfc.view.model import View, make_view

PINGS = 3
"Maximum number of pings to one peer, like those of keepalive."


class Pinging(Struct, frozen=True):
    """How to ping."""

    timeout: float
    "Seconds."


async def look(
    tool: str, common: RunOptions, watchdog_metrics: str, pinging: Pinging | None = None
) -> Result[View, str]:
    """Observe the node as the watchdog does, so that both come to the same verdicts."""
    system = System(tool, common)
    read = await observe(common)
    if isinstance(read, Failure):
        return Failure(read.failure().detail)
    status = read.unwrap()
    snapshot = read_snapshot(watchdog_metrics)
    known = snapshot.value_or(None)
    observed = observed_by(system, status, known)
    now = system.now()
    results, warnings = await _ping(system, status, pinging)
    if isinstance(snapshot, Failure):
        unread = (
            f"{snapshot.failure()}, so the watchdog's verdicts are unknown; "
            "run the watchdog, or set --watchdog-metrics"
        )
        warnings = (unread, *warnings)
    return Success(make_view(observed, known, now=now, pings=results, warnings=warnings))


def observed_by(system: System, status: Status, snapshot: Snapshot | None) -> Observed:
    """Return what the watchdog would observe with this status, if it ran now."""
    is_paused = snapshot is not None and system.is_paused(snapshot.policy)
    return Observed(status, system.tailscaled_start(), is_paused=is_paused)


def read_snapshot(metrics_path: str) -> Result[Snapshot, str]:
    """Read the watchdog's snapshot, which lies next to its metrics.

    A failure is `reading PATH: reason`, without advice.
    """
    path = textfile.snapshot_path(metrics_path)
    raw = regular.read_unlinked(path, textfile.SIZE_LIMIT)
    snapshot = raw if isinstance(raw, Failure) else decode(raw.unwrap())
    return snapshot.alt(lambda problem: f"reading {path}: {problem}")


async def ping_peer(
    tool: str, common: RunOptions, peer: Peer, pinging: Pinging
) -> tuple[tuple[PingResult, ...], tuple[str, ...]]:
    """Ping one peer until it replies directly; return the results, and what failed."""
    ip = address(peer.status)
    if ip is None:
        return (), (f"pinging {peer.name}: it has no Tailscale IP",)
    ping = Ping(peer.name, ip)
    round_ = await System(tool, common).ping((ping,), count=PINGS, timeout=pinging.timeout)
    results = round_.results.get(peer.name, ())
    return results, (() if round_.error is None else (round_.error,))


async def own_net_info(common: RunOptions, status: Status) -> NetInfo:
    """Return what the control server says of this node's network.

    Nothing if it says nothing, or if the status comes from a file: the report is
    evidence, never a condition.
    """
    ip = address(status.self_)
    if common.status_file is not None or ip is None:
        return NO_NET_INFO
    raw = await tailscaled.whois(source(common), ip, timeout=common.timeout)
    if isinstance(raw, Failure):
        return NO_NET_INFO
    return whois.decode(raw.unwrap()).value_or(NO_NET_INFO)


async def _ping(
    system: System, status: Status, pinging: Pinging | None
) -> tuple[dict[str, PingResult], tuple[str, ...]]:
    """Ping each watched peer once, all at the same time; return what failed, too."""
    if pinging is None or not statuses.is_running(status):
        return {}, ()
    round_ = await system.ping(pings(status), count=1, timeout=pinging.timeout)
    results = {peer: overall_result(results) for peer, results in round_.results.items()}
    return results, (() if round_.error is None else (round_.error,))
