"""What the job `watchdog` says in metrics."""

from __future__ import annotations

from support.statuses import peer
from tsfc.core.metrics.families import Family, Kind, Sample
from tsfc.core.watchdog.metrics import metrics
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import step
from tsfc.core.watchdog.track import Reason, Verdict

from .worlds import DOWN, NOW, POLICY, T0, relayed, remembering, seen

COUNTED = remembering(
    restarts=1,
    restart_failures=2,
    detections=3,
    recoveries=4,
    last_success=T0 - 5,
    last_restart=T0 - 50,
)


def values(said: tuple[Family, ...]) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Returns the samples of each family by its name."""
    return {
        family.name: [(dict(sample.labels), sample.value) for sample in family.samples]
        for family in said
    }


def test_families_of_a_run_that_saw_peers() -> None:
    """Each verdict is a state, a duration, and a count of its reason."""
    verdicts = (
        Verdict("a", Reason.WAITING, 30),
        Verdict("b", Reason.DIRECT),
        Verdict("c", Reason.DETECTED),
        Verdict("d", Reason.RESTART, 601),
        Verdict("e", Reason.WAITING, 40),
    )
    said = metrics(
        COUNTED, verdicts, now=NOW, policy=ThresholdPolicy(7, 8, frozenset({"b", "gone"}))
    )
    assert [(family.name, family.kind, family.help) for family in said] == [
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
        "restart": 1,
        "recovered": 0,
        "restored": 0,
    }
    assert values(said) == {
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
        "tailscale_watchdog_max_relay_seconds": [({}, 7)],
        "tailscale_watchdog_cooldown_seconds": [({}, 8)],
        "tailscale_watchdog_last_restart_timestamp_seconds": [({}, T0 - 50)],
        "tailscale_watchdog_last_run_timestamp_seconds": [({}, T0)],
        "tailscale_watchdog_last_success_timestamp_seconds": [({}, T0 - 5)],
    }


def test_a_peer_is_on_relay_unless_its_reason_says_that_it_is_direct() -> None:
    """Whoever recovered is direct, whoever was just detected or is not to be restarted for is on relay."""
    said = values(
        metrics(
            State(), tuple(Verdict(reason, reason) for reason in Reason), now=NOW, policy=POLICY
        )
    )
    direct = [
        labels["peer"] for labels, value in said["tailscale_watchdog_peer_state"] if value == 0
    ]
    assert direct == ["direct", "recovered", "restored"]


def test_nothing_seen_is_no_series_of_a_peer() -> None:
    """Where nobody could be seen, nothing that was true once looks fresh: no peer, and no count of peers."""
    said = values(metrics(COUNTED, None, now=NOW, policy=POLICY))
    assert list(said) == [
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


def test_no_peers_is_not_nothing_seen() -> None:
    """A tailnet without other nodes has no series of a peer, and counts 0 for each reason."""
    said = values(metrics(State(), (), now=NOW, policy=POLICY))
    assert said["tailscale_watchdog_peer_state"] == []
    assert said["tailscale_watchdog_peer_relay_duration_seconds"] == []
    assert said["tailscale_watchdog_peer_excluded"] == []
    assert said["tailscale_watchdog_peers"] == [({"reason": reason}, 0) for reason in Reason]


def test_no_success_and_no_restart_yet_are_no_samples() -> None:
    """Before tailscaled could be seen for the first time there is no instant at which it was; counters are there from the start, at 0."""
    said = values(metrics(State(), None, now=NOW, policy=POLICY))
    assert "tailscale_watchdog_last_success_timestamp_seconds" not in said
    assert "tailscale_watchdog_last_restart_timestamp_seconds" not in said
    assert said["tailscale_watchdog_restarts_total"] == [({}, 0)]


def test_a_dead_daemon_that_looks_alive() -> None:
    """`last_run` moves on with every run, `last_success` only with one that could see tailscaled."""
    state = State(last_success=T0 - 300)
    blind, seeing = (
        values(
            metrics(step(state, event, now=NOW, policy=POLICY).state, None, now=NOW, policy=POLICY)
        )
        for event in (DOWN, seen(peer("rpi3")))
    )
    assert (
        blind["tailscale_watchdog_last_run_timestamp_seconds"]
        == seeing["tailscale_watchdog_last_run_timestamp_seconds"]
        == [({}, T0)]
    )
    assert blind["tailscale_watchdog_last_success_timestamp_seconds"] == [({}, T0 - 300)]
    assert seeing["tailscale_watchdog_last_success_timestamp_seconds"] == [({}, T0)]


def test_two_peers_of_one_name_are_two_series() -> None:
    """Whoever shares a name has its ID behind it, in the label too."""
    transition = step(
        State(), seen(relayed("rpi3", ID="nA"), relayed("rpi3", ID="nB")), now=NOW, policy=POLICY
    )
    states = metrics(transition.state, transition.verdicts, now=NOW, policy=POLICY)[4]
    assert states.samples == (Sample({"peer": "rpi3#nA"}, 1), Sample({"peer": "rpi3#nB"}, 1))
