"""What the agent's HTTP server answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from returns.result import Failure, Result

from tsfc.agent.http import Answer, text
from tsfc.core.clock import Instant
from tsfc.core.faults import Fault
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.view import document
from tsfc.view.model import View, make_view, without_hidden

EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
"Content type of Prometheus's text format."
JSON = "application/json"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})


def metrics(texts: Iterable[str]) -> Answer:
    """Return the metrics of all jobs, as each has written them last."""
    return Answer(200, EXPOSITION, "".join(texts).encode())


def health(overdue: Mapping[str, str]) -> Answer:
    """Return whether each job's last run is fresh; if not, which are not, and why."""
    if not overdue:
        return text(200, "ok")
    return text(503, "\n".join(f"{job}: {why}" for job, why in overdue.items()))


def peers(view: View) -> Answer:
    """Return what `tsfc peers --format json` prints."""
    return Answer(200, JSON, document.encode(view).encode())


def view(observed: Observed, snapshot: Snapshot | None, now: Instant) -> View:
    """Return what `tsfc peers` shows."""
    return without_hidden(make_view(observed, snapshot, now=now, pings={}))


def hosts(observed: Result[Status, Fault]) -> frozenset[str]:
    """Return the names and addresses by which a client may call this node."""
    if isinstance(observed, Failure):
        return LOOPBACK
    own = observed.unwrap().self_
    name = own.dns_name.casefold().removesuffix(".")
    ips = own.tailscale_ips or ()
    return LOOPBACK | {
        *(f"[{ip}]" if ":" in ip else ip for ip in ips),
        *({name, name.partition(".")[0]} if name else ()),
    }
