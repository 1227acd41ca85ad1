"""What the job `watchdog` says in metrics."""

from __future__ import annotations

from collections.abc import Iterable

from tsfc.core.clock import Instant
from tsfc.core.metrics.families import Family, Kind, Sample, counter, gauge
from tsfc.core.watchdog.policy import Policy, is_excluded
from tsfc.core.watchdog.state import State, last_restart
from tsfc.core.watchdog.track import DIRECT, Reason, Verdict


def metrics(
    state: State, verdicts: tuple[Verdict, ...] | None, *, now: Instant, policy: Policy
) -> tuple[Family, ...]:
    """Returns the metrics of one run: the state after it, its verdicts (None where no peer could be seen), and the policy, without which they mean little.

    Where nothing was seen there is no series of a peer: what was true once must not look fresh.
    """
    return (
        counter(
            "tailscale_watchdog_restarts_total", "Times tailscaled was restarted.", state.restarts
        ),
        counter(
            "tailscale_watchdog_restart_failures_total",
            "Times a restart of tailscaled failed.",
            state.restart_failures,
        ),
        counter(
            "tailscale_watchdog_relay_detections_total",
            "Times peers were detected on relay.",
            state.detections,
        ),
        counter(
            "tailscale_watchdog_recoveries_total",
            "Times peers recovered naturally: not by a restart, not by going offline.",
            state.recoveries,
        ),
        *(() if verdicts is None else _peers(verdicts, policy)),
        gauge(
            "tailscale_watchdog_max_relay_seconds",
            "A peer on relay for more than this has tailscaled restarted.",
            policy.max_relay_seconds,
        ),
        gauge(
            "tailscale_watchdog_cooldown_seconds",
            "After a restart there is no other for this long.",
            policy.cooldown_seconds,
        ),
        *_instant(
            "tailscale_watchdog_last_restart_timestamp_seconds",
            "Unix time of the last restart, whatever came of it.",
            last_restart(state),
        ),
        gauge(
            "tailscale_watchdog_last_run_timestamp_seconds", "Unix time of the last run.", now.unix
        ),
        *_instant(
            "tailscale_watchdog_last_success_timestamp_seconds",
            "Unix time of the last run that could see tailscaled.",
            state.last_success,
        ),
    )


def _peers(verdicts: tuple[Verdict, ...], policy: Policy) -> Iterable[Family]:
    reasons = [verdict.reason for verdict in verdicts]
    yield Family(
        "tailscale_watchdog_peer_state",
        Kind.GAUGE,
        "Whether the peer is direct (0) or on relay (1).",
        tuple(
            Sample({"peer": verdict.peer}, int(verdict.reason not in DIRECT))
            for verdict in verdicts
        ),
    )
    yield Family(
        "tailscale_watchdog_peer_relay_duration_seconds",
        Kind.GAUGE,
        "Seconds that the peer has been on relay, 0 when direct.",
        tuple(Sample({"peer": verdict.peer}, verdict.relay_seconds) for verdict in verdicts),
    )
    yield Family(
        "tailscale_watchdog_peer_excluded",
        Kind.GAUGE,
        "Whether the peer is never the cause of a restart (1).",
        tuple(
            Sample({"peer": verdict.peer}, int(is_excluded(policy, verdict.peer)))
            for verdict in verdicts
        ),
    )
    yield Family(
        "tailscale_watchdog_peers",
        Kind.GAUGE,
        "Watched peers by the reason of the verdict on them in the last run.",
        tuple(Sample({"reason": reason.value}, reasons.count(reason)) for reason in Reason),
    )


def _instant(name: str, text: str, at: int | None) -> tuple[Family, ...]:
    return () if at is None else (gauge(name, text, at),)
