"""The metrics of the job `watchdog`."""

from __future__ import annotations

from collections.abc import Iterable

from tsfc.core.metrics.families import Family, Kind, Sample, counter, gauge
from tsfc.core.watchdog.cause import Cause
from tsfc.core.watchdog.memory import outcome_key
from tsfc.core.watchdog.policy import GuardedPolicy, Policy
from tsfc.core.watchdog.remedy import RESULTS
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.state import last_restart, spent
from tsfc.core.watchdog.track import DIRECT, ONLY_GUARDED, Reason, Verdict


def metrics(run: Run, policy: Policy) -> tuple[Family, ...]:
    """Return the metrics of one run: its state, its verdicts, and the policy's limits.

    Without verdicts (None: no peer was observed) there are no series of peers, because
    old values must not look fresh.
    """
    state, now = run.state, run.now
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
        *(() if run.verdicts is None else _peers(run.verdicts, policy)),
        *(() if run.verdicts is None else _names(run)),
        gauge(
            "tailscale_watchdog_max_relay_seconds",
            "Threshold in seconds: a peer that is on relay for longer causes a restart.",
            policy.max_relay_seconds,
        ),
        gauge(
            "tailscale_watchdog_cooldown_seconds",
            "Seconds after a restart in which there is no other restart.",
            policy.cooldown_seconds,
        ),
        *(_guarded(run, policy) if isinstance(policy, GuardedPolicy) else ()),
        *_instant(
            "tailscale_watchdog_last_restart_timestamp_seconds",
            "Unix time of the last restart, successful or not.",
            last_restart(state),
        ),
        gauge(
            "tailscale_watchdog_last_run_timestamp_seconds", "Unix time of the last run.", now.unix
        ),
        *_instant(
            "tailscale_watchdog_last_success_timestamp_seconds",
            "Unix time of the last run that observed peers.",
            None if state.last_success is None else state.last_success.unix,
        ),
    )


def _names(run: Run) -> Iterable[Family]:
    yield gauge(
        "tailscale_watchdog_unmatched_exclusions",
        "Names given by --exclude-peer that no peer has.",
        len(run.unmatched),
    )
    yield gauge(
        "tailscale_watchdog_all_peers_offline",
        "Whether every peer is offline (1); 0 if there are no peers.",
        int(run.state.all_offline_since is not None),
    )


def _peers(verdicts: tuple[Verdict, ...], policy: Policy) -> Iterable[Family]:
    reasons = [verdict.reason for verdict in verdicts]
    is_guarded = isinstance(policy, GuardedPolicy)
    verdicts = tuple(verdict for verdict in verdicts if verdict.reason is not Reason.UNKNOWN)
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
        "Seconds that the peer has been on relay; 0 for a direct peer.",
        tuple(Sample({"peer": verdict.peer}, verdict.relay_seconds) for verdict in verdicts),
    )
    yield Family(
        "tailscale_watchdog_peer_excluded",
        Kind.GAUGE,
        "Whether the peer never causes a restart (1).",
        tuple(Sample({"peer": verdict.peer}, int(verdict.is_excluded)) for verdict in verdicts),
    )
    yield Family(
        "tailscale_watchdog_peers",
        Kind.GAUGE,
        "Watched peers by the reason of the verdict on them in the last run.",
        tuple(
            Sample({"reason": reason.value}, reasons.count(reason))
            for reason in Reason
            if is_guarded or reason not in ONLY_GUARDED
        ),
    )


def _guarded(run: Run, policy: GuardedPolicy) -> Iterable[Family]:
    outcomes = run.state.memory.outcomes
    yield Family(
        "tailscale_watchdog_remedies_total",
        Kind.COUNTER,
        "Remedies by what became of the peer that caused them.",
        tuple(
            Sample({"remedy": remedy.value, "outcome": result.value}, outcomes.get(key, 0))
            for remedy in policy.remedies
            for result in RESULTS
            for key in (outcome_key(remedy, result),)
        ),
    )
    yield gauge(
        "tailscale_watchdog_budget",
        "Maximum number of remedies in 24 hours that did not help.",
        policy.budget,
    )
    yield gauge(
        "tailscale_watchdog_budget_left",
        "Number of remedies that may still fail to help now.",
        max(0, policy.budget - spent(run.state, run.now.unix)),
    )
    verdicts = run.verdicts or ()
    outlooks = [(verdict, verdict.outlook) for verdict in verdicts if verdict.outlook is not None]
    yield Family(
        "tailscale_watchdog_help_probability",
        Kind.GAUGE,
        "Estimated probability that the next remedy helps a peer that is on relay for too long.",
        tuple(Sample({"peer": verdict.peer}, outlook.probability) for verdict, outlook in outlooks),
    )
    yield Family(
        "tailscale_watchdog_worth_it_in_seconds",
        Kind.GAUGE,
        "Seconds until the next remedy for the peer is worth it; 0 if it is.",
        tuple(
            Sample({"peer": verdict.peer}, max(0, outlook.worth_at + 1 - verdict.relay_seconds))
            for verdict, outlook in outlooks
        ),
    )
    yield Family(
        "tailscale_watchdog_data_plane_dead",
        Kind.GAUGE,
        "Whether a direct peer answers disco pings and brings no data back (1); else absent.",
        tuple(Sample({"peer": verdict.peer}, 1) for verdict in verdicts if verdict.is_dead),
    )
    yield Family(
        "tailscale_watchdog_likely_cause",
        Kind.GAUGE,
        "Likely cause of the relay of a peer that is on relay for too long (1).",
        tuple(
            Sample({"peer": verdict.peer, "cause": cause.value}, int(cause is verdict.cause))
            for verdict in verdicts
            if verdict.cause is not None
            for cause in Cause
        ),
    )


def _instant(name: str, text: str, at: int | None) -> tuple[Family, ...]:
    return () if at is None else (gauge(name, text, at),)
