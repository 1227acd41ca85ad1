"""The metrics of the job `watchdog`."""

from __future__ import annotations

from msgspec.structs import replace

from support.statuses import peer
from tsfc.core.metrics.families import Family, Kind, Sample
from tsfc.core.watchdog.cause import Cause
from tsfc.core.watchdog.memory import Memory, PeerMemory
from tsfc.core.watchdog.metrics import metrics
from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy, Stage
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.state import Relay, State
from tsfc.core.watchdog.step import step
from tsfc.core.watchdog.track import ONLY_GUARDED, Outlook, Reason, Verdict

from .worlds import DOWN, NOW, POLICY, T0, derp_peer, make_state, observation

COUNTERS = make_state(
    restarts=1,
    restart_failures=2,
    detections=3,
    recoveries=4,
    last_success=T0 - 5,
    last_restart=T0 - 50,
)


def values(families: tuple[Family, ...]) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Samples of each family, by its name."""
    return {
        family.name: [(dict(sample.labels), sample.value) for sample in family.samples]
        for family in families
    }


def test_a_run_that_observed_peers_has_all_families() -> None:
    """Each verdict gives a state, a duration, and one count of its reason."""
    verdicts = (
        Verdict("a", Reason.WAITING, 30),
        Verdict("b", Reason.DIRECT, is_excluded=True),
        Verdict("c", Reason.DETECTED),
        Verdict("d", Reason.RESTART, 601),
        Verdict("e", Reason.WAITING, 40),
    )
    run = Run(NOW, COUNTERS, unmatched=("gone",), verdicts=verdicts)
    families = metrics(run, ThresholdPolicy(7, 8, frozenset({"b", "gone"})))
    assert [(family.name, family.kind, family.help) for family in families] == [
        ("tailscale_watchdog_restarts_total", Kind.COUNTER, "Times tailscaled was restarted."),
        (
            "tailscale_watchdog_restart_failures_total",
            Kind.COUNTER,
            "Times a restart of tailscaled failed.",
        ),
        (
            "tailscale_watchdog_relay_detections_total",
            Kind.COUNTER,
            "Times peers were detected on relay.",
        ),
        (
            "tailscale_watchdog_recoveries_total",
            Kind.COUNTER,
            "Times peers recovered naturally: not by a restart, not by going offline.",
        ),
        (
            "tailscale_watchdog_peer_state",
            Kind.GAUGE,
            "Whether the peer is direct (0) or on relay (1).",
        ),
        (
            "tailscale_watchdog_peer_relay_duration_seconds",
            Kind.GAUGE,
            "Seconds that the peer has been on relay; 0 for a direct peer.",
        ),
        (
            "tailscale_watchdog_peer_excluded",
            Kind.GAUGE,
            "Whether the peer never causes a restart (1).",
        ),
        (
            "tailscale_watchdog_peers",
            Kind.GAUGE,
            "Watched peers by the reason of the verdict on them in the last run.",
        ),
        (
            "tailscale_watchdog_unmatched_exclusions",
            Kind.GAUGE,
            "Names given by --exclude-peer that no peer has.",
        ),
        (
            "tailscale_watchdog_all_peers_offline",
            Kind.GAUGE,
            "Whether every peer is offline (1); 0 if there are no peers.",
        ),
        (
            "tailscale_watchdog_max_relay_seconds",
            Kind.GAUGE,
            "Threshold in seconds: a peer that is on relay for longer causes a restart.",
        ),
        (
            "tailscale_watchdog_cooldown_seconds",
            Kind.GAUGE,
            "Seconds after a restart in which there is no other restart.",
        ),
        (
            "tailscale_watchdog_last_restart_timestamp_seconds",
            Kind.GAUGE,
            "Unix time of the last restart, successful or not.",
        ),
        ("tailscale_watchdog_last_run_timestamp_seconds", Kind.GAUGE, "Unix time of the last run."),
        (
            "tailscale_watchdog_last_success_timestamp_seconds",
            Kind.GAUGE,
            "Unix time of the last run that observed peers.",
        ),
    ]
    counts = {
        "direct": 1,
        "detected": 1,
        "waiting": 2,
        "excluded": 0,
        "cooldown": 0,
        "held": 0,
        "restart": 1,
        "recovered": 0,
        "restored": 0,
    }
    assert values(families) == {
        "tailscale_watchdog_restarts_total": [({}, 1)],
        "tailscale_watchdog_restart_failures_total": [({}, 2)],
        "tailscale_watchdog_relay_detections_total": [({}, 3)],
        "tailscale_watchdog_recoveries_total": [({}, 4)],
        "tailscale_watchdog_peer_state": [
            ({"peer": name}, value)
            for name, value in [("a", 1), ("b", 0), ("c", 1), ("d", 1), ("e", 1)]
        ],
        "tailscale_watchdog_peer_relay_duration_seconds": [
            ({"peer": name}, value)
            for name, value in [("a", 30), ("b", 0), ("c", 0), ("d", 601), ("e", 40)]
        ],
        "tailscale_watchdog_peer_excluded": [
            ({"peer": name}, value)
            for name, value in [("a", 0), ("b", 1), ("c", 0), ("d", 0), ("e", 0)]
        ],
        "tailscale_watchdog_peers": [
            ({"reason": reason}, count) for reason, count in counts.items()
        ],
        "tailscale_watchdog_unmatched_exclusions": [({}, 1)],
        "tailscale_watchdog_all_peers_offline": [({}, 0)],
        "tailscale_watchdog_max_relay_seconds": [({}, 7)],
        "tailscale_watchdog_cooldown_seconds": [({}, 8)],
        "tailscale_watchdog_last_restart_timestamp_seconds": [({}, T0 - 50)],
        "tailscale_watchdog_last_run_timestamp_seconds": [({}, T0)],
        "tailscale_watchdog_last_success_timestamp_seconds": [({}, T0 - 5)],
    }


def test_peers_are_on_relay_except_with_the_reasons_direct_recovered_and_restored() -> None:
    samples = values(
        metrics(
            Run(NOW, State(), verdicts=tuple(Verdict(reason, reason) for reason in Reason)), POLICY
        )
    )
    direct = [
        labels["peer"] for labels, value in samples["tailscale_watchdog_peer_state"] if value == 0
    ]
    assert direct == ["direct", "recovered", "restored"]


def test_without_an_observation_no_peer_has_a_series() -> None:
    """Old values must not look fresh: there are no peers and no counts of peers."""
    samples = values(metrics(Run(NOW, COUNTERS), POLICY))
    assert list(samples) == [
        "tailscale_watchdog_restarts_total",
        "tailscale_watchdog_restart_failures_total",
        "tailscale_watchdog_relay_detections_total",
        "tailscale_watchdog_recoveries_total",
        "tailscale_watchdog_max_relay_seconds",
        "tailscale_watchdog_cooldown_seconds",
        "tailscale_watchdog_last_restart_timestamp_seconds",
        "tailscale_watchdog_last_run_timestamp_seconds",
        "tailscale_watchdog_last_success_timestamp_seconds",
    ]


def test_a_tailnet_without_peers_counts_0_for_each_reason() -> None:
    """An empty observation differs from no observation."""
    samples = values(metrics(Run(NOW, State(), verdicts=()), POLICY))
    assert samples["tailscale_watchdog_peer_state"] == []
    assert samples["tailscale_watchdog_peer_relay_duration_seconds"] == []
    assert samples["tailscale_watchdog_peer_excluded"] == []
    assert samples["tailscale_watchdog_peers"] == [
        ({"reason": reason}, 0) for reason in Reason if reason not in ONLY_GUARDED
    ]


def test_before_the_first_success_and_restart_their_times_have_no_sample() -> None:
    """Counters exist from the start, at 0."""
    samples = values(metrics(Run(NOW, State()), POLICY))
    assert "tailscale_watchdog_last_success_timestamp_seconds" not in samples
    assert "tailscale_watchdog_last_restart_timestamp_seconds" not in samples
    assert samples["tailscale_watchdog_restarts_total"] == [({}, 0)]


def test_only_a_run_that_observes_peers_advances_last_success() -> None:
    """Every run advances `last_run`, so it does not show that tailscaled works."""
    state = make_state(last_success=T0 - 300)
    unobserved, observed = (
        values(metrics(Run(NOW, step(state, event, now=NOW, policy=POLICY).state), POLICY))
        for event in (DOWN, observation(peer("rpi3")))
    )
    assert (
        unobserved["tailscale_watchdog_last_run_timestamp_seconds"]
        == observed["tailscale_watchdog_last_run_timestamp_seconds"]
        == [({}, T0)]
    )
    assert unobserved["tailscale_watchdog_last_success_timestamp_seconds"] == [({}, T0 - 300)]
    assert observed["tailscale_watchdog_last_success_timestamp_seconds"] == [({}, T0)]


def test_two_peers_of_one_name_have_two_series() -> None:
    """The label of a peer with a shared name includes its StableNodeID."""
    transition = step(
        State(),
        observation(derp_peer("rpi3", ID="nA"), derp_peer("rpi3", ID="nB")),
        now=NOW,
        policy=POLICY,
    )
    states = metrics(Run(NOW, transition.state, verdicts=transition.verdicts), POLICY)[4]
    assert states.samples == (Sample({"peer": "rpi3#nA"}, 1), Sample({"peer": "rpi3#nB"}, 1))


def test_the_guarded_policy_exports_its_experiments() -> None:
    attempt = Attempt(Remedy.RESTART, "nas", T0 - 60, T0 + 240, Stage.DONE, AttemptResult.NO_EFFECT)
    state = replace(
        COUNTERS,
        attempts=(attempt,),
        memory=Memory(outcomes={"restart/helped": 2, "restart/no_effect": 1}),
    )
    verdicts = (
        Verdict("a", Reason.PATIENT, 700, outlook=Outlook(Remedy.RESTART, 0.5, 1200)),
        Verdict("b", Reason.COOLDOWN, 700, outlook=Outlook(Remedy.RESTART, 1.0, 600)),
        Verdict("c", Reason.NEVER_DIRECT, 700, cause=Cause.FAR_SIDE),
        Verdict("d", Reason.UNKNOWN),
    )
    samples = values(metrics(Run(NOW, state, verdicts=verdicts), GuardedPolicy(budget=3)))
    outcomes = {"helped": 2, "no_effect": 1, "worse": 0, "unconfirmed": 0}
    assert samples["tailscale_watchdog_remedies_total"] == [
        ({"remedy": "restart", "outcome": outcome}, number) for outcome, number in outcomes.items()
    ]
    assert samples["tailscale_watchdog_budget"] == [({}, 3)]
    assert samples["tailscale_watchdog_budget_left"] == [({}, 2)]
    assert samples["tailscale_watchdog_help_probability"] == [
        ({"peer": "a"}, 0.5),
        ({"peer": "b"}, 1),
    ]
    assert samples["tailscale_watchdog_worth_it_in_seconds"] == [
        ({"peer": "a"}, 501),
        ({"peer": "b"}, 0),
    ]
    assert samples["tailscale_watchdog_likely_cause"] == [
        ({"peer": "c", "cause": cause}, int(cause is Cause.FAR_SIDE)) for cause in Cause
    ]
    assert [labels["peer"] for labels, _ in samples["tailscale_watchdog_peer_state"]] == [
        "a",
        "b",
        "c",
    ]
    assert [labels["reason"] for labels, _ in samples["tailscale_watchdog_peers"]] == list(Reason)


def test_only_a_peer_that_was_never_direct_has_a_likely_cause_and_no_help_probability() -> None:
    """The alert TailscalePeerNeverDirect recognizes such a peer by that."""
    policy = GuardedPolicy(excluded=frozenset({"excluded"}))
    peers = {name: derp_peer(name) for name in ("known", "excluded", "never")}
    known = Memory({peers[name]["ID"]: PeerMemory(T0) for name in ("known", "excluded")})
    relays = {name: Relay(T0 - 700, raw["ID"]) for name, raw in peers.items()}
    state = State(relays=relays, memory=known, policy="guarded")
    after = step(state, observation(*peers.values()), now=NOW, policy=policy)
    assert after.verdicts is not None
    assert [verdict.reason for verdict in after.verdicts if verdict.peer == "never"] == [
        Reason.NEVER_DIRECT
    ]
    samples = values(metrics(Run(NOW, after.state, verdicts=after.verdicts), policy))
    cause, probability = (
        {labels["peer"] for labels, _ in samples[f"tailscale_watchdog_{name}"]}
        for name in ("likely_cause", "help_probability")
    )
    assert cause == {"known", "never"}
    assert probability == {"known"}


def test_a_budget_that_was_overspent_has_nothing_left() -> None:
    attempts = tuple(Attempt(Remedy.RESTART, "nas", T0 - at, T0) for at in (10, 20, 30))
    run = Run(NOW, replace(COUNTERS, attempts=attempts), verdicts=())
    samples = values(metrics(run, GuardedPolicy(budget=2)))
    assert samples["tailscale_watchdog_budget_left"] == [({}, 0)]
