"""What the job `watchdog` says in metrics."""

from __future__ import annotations

from collections.abc import Iterable

from tsfc.core.clock import Instant
from tsfc.core.families import Family, Kind, Sample, counter, gauge
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import DIRECT, Reason, Verdict


def families(state: State, verdicts: tuple[Verdict, ...] | None, *, now: Instant) -> tuple[Family, ...]:
    """Returns the metrics of one run: the state after it, and its verdicts (None where no peer could be seen).

    Where nothing was seen there is no series of a peer: what was true once must not look fresh.
    """
    return (
        counter("tailscale_watchdog_restarts_total", "Times tailscaled was restarted.", state.restarts),
        counter("tailscale_watchdog_restart_failures_total", "Times a restart of tailscaled failed.", state.restart_failures),
        counter("tailscale_watchdog_relay_detections_total", "Times peers were detected on relay.", state.detections),
        counter("tailscale_watchdog_recoveries_total", "Times peers recovered naturally: not by a restart, not by going offline.", state.recoveries),
        *(() if verdicts is None else _peers(verdicts)),
        gauge("tailscale_watchdog_last_run_timestamp_seconds", "Unix time of the last run.", now.unix),
        *_last_success(state),
    )


def _peers(verdicts: tuple[Verdict, ...]) -> Iterable[Family]:
    reasons = [verdict.reason for verdict in verdicts]
    yield Family(
        "tailscale_watchdog_peer_state",
        Kind.GAUGE,
        "Whether the peer is direct (0) or on relay (1).",
        tuple(Sample({"peer": verdict.peer}, int(verdict.reason not in DIRECT)) for verdict in verdicts),
    )
    yield Family(
        "tailscale_watchdog_peer_relay_duration_seconds",
        Kind.GAUGE,
        "Seconds that the peer has been on relay, 0 when direct.",
        tuple(Sample({"peer": verdict.peer}, verdict.relay_seconds) for verdict in verdicts),
    )
    yield Family(
        "tailscale_watchdog_peers",
        Kind.GAUGE,
        "Watched peers by the reason of the verdict on them in the last run.",
        tuple(Sample({"reason": reason.value}, reasons.count(reason)) for reason in Reason),
    )


def _last_success(state: State) -> tuple[Family, ...]:
    if state.last_success is None:
        return ()
    text = "Unix time of the last run that could see tailscaled."
    return (gauge("tailscale_watchdog_last_success_timestamp_seconds", text, state.last_success),)
