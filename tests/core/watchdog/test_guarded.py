"""The decision under the guarded policy, one rule at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from support.statuses import decoded, peer
from tsfc.core.clock import Instant
from tsfc.core.watchdog import guarded
from tsfc.core.watchdog.cause import Cause
from tsfc.core.watchdog.decision import Due
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed
from tsfc.core.watchdog.memory import Memory, PeerMemory, Record
from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
from tsfc.core.watchdog.remedy import (
    Attempt,
    AttemptResult,
    Declined,
    Done,
    Failed,
    Outcome,
    Remedy,
    Stage,
)
from tsfc.core.watchdog.state import Relay, State
from tsfc.core.watchdog.step import Transition, step
from tsfc.core.watchdog.track import Outlook, Reason, Verdict
from tsfc.core.watchdog.watch import Hold

from .worlds import DOWN, STOPPED, T0, derp_peer, lines, restarts

DAY = 86_400
POLICY = GuardedPolicy()
LADDER = GuardedPolicy(remedies=(Remedy.RESTART, Remedy.OTHER_PORT))
NAS = "nnasCNTRL"
RESTART = Remedy.RESTART


class Node:
    """A node whose watchdog runs with the guarded policy."""

    def __init__(self, policy: GuardedPolicy = POLICY, state: State | None = None) -> None:
        self.policy: GuardedPolicy | ThresholdPolicy = policy
        self.state = State() if state is None else state
        self.outcome: Outcome = Done()
        self.failing: Remedy | None = None
        self.restarts: list[int] = []

    def look(
        self, at: int, *peers: dict[str, Any], start: int | None = None, **fields: Any
    ) -> Transition:
        """Run at `T0 + at`. A restart that is decided is performed."""
        now = Instant(T0 + at)
        event = Observed(decoded(*peers, **fields), start)
        transition = step(self.state, event, now=now, policy=self.policy)
        self.state = transition.state
        for effect in restarts(transition):
            self.restarts.append(at)
            is_failing = effect.attempt.remedy is self.failing
            outcome = Failed("no drop-in") if is_failing else self.outcome
            for done in (Asking(effect.attempt), Performed(effect.attempt, outcome)):
                self.state = step(self.state, done, now=now, policy=self.policy).state
        return transition


def known(*, records: dict[Remedy, Record] | None = None, since: int = 600, **memory: Any) -> State:
    """State in which `nas` was direct a day ago and is on relay, and the node is steady."""
    nas = PeerMemory(T0 - DAY, records or {})
    return State(
        relays={"nas": Relay(T0 - since, NAS)},
        policy="guarded",
        memory=Memory({NAS: nas}, T0 - since, **memory),
        last_success=Instant(T0 - 60),
        last_run=Instant(T0 - 60),
    )


def reason(transition: Transition, name: str = "nas") -> Reason:
    """Reason of the verdict on a peer."""
    return next(verdict.reason for verdict in transition.verdicts or () if verdict.peer == name)


NAS_ON_RELAY = derp_peer("nas")


def test_without_a_record_it_restarts_when_the_threshold_policy_does() -> None:
    for policy in (POLICY, ThresholdPolicy()):
        for at, expected in ((0, ()), (1, (T0 + 1,))):
            state = replace(known(), policy="guarded" if policy is POLICY else "documented")
            transition = step(
                state, Observed(decoded(NAS_ON_RELAY)), now=Instant(T0 + at), policy=policy
            )
            assert tuple(effect.attempt.at for effect in restarts(transition)) == expected


def test_the_life_of_a_fault_that_a_restart_cures() -> None:
    node = Node()
    story = [lines(node.look(at, peer("nas"))) for at in (0, 60)]
    story += [lines(node.look(at, NAS_ON_RELAY)) for at in (120, 720, 721)]
    story += [lines(node.look(at, peer("nas"))) for at in (733, 800)]
    assert story == [
        (),
        (),
        ("DETECTED: nas transitioned to relay",),
        ("WAITING: nas on relay for 600s (threshold: 600s)",),
        ("RESTART: nas on relay for 601s, restarting tailscaled",),
        ("OUTCOME: nas direct 12s after the restart: helped (1 of 1)",),
        (),
    ]
    assert node.state.memory.outcomes == {"restart/helped": 1}


def test_the_life_of_a_fault_that_a_restart_does_not_cure() -> None:
    node = Node(state=known())
    story = [lines(node.look(at, NAS_ON_RELAY)) for at in (1, 61, 301, 361, 421, 3960, 3961)]
    (attempt,) = node.state.attempts
    left = (attempt.cooldown_seconds or 0) - 60
    assert story == [
        ("RESTART: nas on relay for 601s, restarting tailscaled",),
        (f"COOLDOWN: nas exceeded threshold but in cooldown ({left}s remaining)",),
        ("OUTCOME: nas still on relay 300s after the restart: no effect (0 of 1)",),
        ("PATIENT: nas on relay for 961s; restarts helped 0 of 1 times: next worth it at 24000s",),
        (),
        (),
        ("PATIENT: nas on relay for 4561s; restarts helped 0 of 1 times: next worth it at 23975s",),
    ]
    assert node.restarts == [1]


@pytest.mark.parametrize(
    ("record", "probability", "worth_at"),
    [
        pytest.param(None, 1.0, 600, id="unknown"),
        pytest.param(Record(T0, 3.0, 0.0, 3, 3), 1.0, 600, id="always"),
        pytest.param(Record(T0, 1.0, 2.0, 1, 3), 0.5, 1200, id="seldom"),
        pytest.param(Record(T0, 0.0, 1.0, 0, 1, streak=1), 0.5, 24_000, id="failed"),
        pytest.param(Record(T0, 0.0, 3.0, 0, 3, streak=2), 0.25, 960_000, id="failed-twice"),
        pytest.param(Record(T0 - 14 * DAY, 0.0, 2.0, 0, 2), 0.5, 1200, id="faded"),
        pytest.param(Record(T0, 0.0, 1.0, 0, 1, streak=999), 0.5, 2**53, id="hopeless"),
    ],
)
def test_a_record_says_when_a_remedy_is_worth_it(
    record: Record | None, probability: float, worth_at: int
) -> None:
    remembered = PeerMemory(T0, {} if record is None else {RESTART: record})
    expected = Outlook(RESTART, probability, worth_at)
    assert guarded.outlook(remembered, RESTART, T0, POLICY) == expected


def test_a_half_life_is_at_least_a_second() -> None:
    policy = replace(POLICY, half_life_days=0.0)
    assert guarded.probability(Record(T0 - 1, 0.0, 2.0), T0, policy) == 0.5


def test_it_waits_exactly_until_a_remedy_is_worth_it() -> None:
    node = Node(state=known(records={RESTART: Record(T0, 1.0, 2.0, 1, 3)}, since=1190))
    waiting = node.look(0, NAS_ON_RELAY)
    assert reason(node.look(10, NAS_ON_RELAY)) is Reason.PATIENT
    acting = node.look(11, NAS_ON_RELAY)
    assert waiting.due == Due(T0 + 11, RESTART, "nas")
    assert waiting.verdicts == (
        Verdict(
            "nas",
            Reason.PATIENT,
            1190,
            outlook=Outlook(RESTART, 0.5, 1200),
            cause=Cause.UNKNOWN,
        ),
    )
    assert lines(acting) == ("RESTART: nas on relay for 1201s, restarting tailscaled",)
    assert acting.due == Due(T0 + 11, RESTART, "nas")


def test_nothing_is_due_for_a_peer_that_is_no_longer_known_to_be_direct_then() -> None:
    failed = {RESTART: Record(T0, 0.0, 1.0, 0, 1, streak=1)}
    for direct_at, due in ((T0 - 6 * DAY, Due(T0 + 23_401, RESTART, "nas")), (T0 - 7 * DAY, None)):
        state = replace(known(), memory=Memory({NAS: PeerMemory(direct_at, failed)}, T0 - 600))
        assert Node(state=state).look(0, NAS_ON_RELAY).due == due


def test_another_port_comes_after_a_restart_that_did_not_help() -> None:
    node = Node(LADDER, known())
    for at in range(1, 1000, 60):
        node.look(at, NAS_ON_RELAY)
    first, second = node.state.attempts
    assert (first.remedy, second.remedy) == (RESTART, Remedy.OTHER_PORT)
    assert second.at == T0 + 1 + 60 * -(-(first.cooldown_seconds or 0) // 60)


def test_another_port_has_a_line_of_its_own() -> None:
    """The peer that waits for its cooldown says so, although it waits for the same."""
    failed = {RESTART: Record(T0, 0.0, 1.0, 0, 1, streak=1)}
    state = known(records=failed)
    both = replace(
        state,
        relays={**state.relays, "cam": Relay(T0 - 601, "ncamCNTRL")},
        memory=replace(state.memory, peers={**state.memory.peers, "ncamCNTRL": PeerMemory(T0)}),
    )
    node = Node(replace(LADDER, remedies=(Remedy.OTHER_PORT,)), both)
    said = lines(node.look(1, NAS_ON_RELAY, derp_peer("cam")))
    assert said == (
        "OTHER-PORT: cam on relay for 602s, restarting tailscaled on another port",
        f"COOLDOWN: nas exceeded threshold but in cooldown ({cooldown_of(node)}s remaining)",
    )


def cooldown_of(node: Node) -> int:
    """Cooldown of the last attempt."""
    return node.state.attempts[-1].cooldown_seconds or 0


def test_a_cooldown_holds_to_its_last_second() -> None:
    node = Node(replace(POLICY, discount=1.0), known(since=50_000))
    node.look(0, NAS_ON_RELAY)
    left = cooldown_of(node)
    assert reason(node.look(left - 1, NAS_ON_RELAY)) is Reason.COOLDOWN
    assert reason(node.look(left, NAS_ON_RELAY)) is Reason.RESTART


def test_due_is_what_comes_first_of_all_peers() -> None:
    """Peers that are direct, excluded, or were never direct, do not hide it."""
    names = ("a", "b", "c", "d", "e")
    relays = {name: Relay(T0 - 300, f"n{name}CNTRL") for name in names[1:]}
    relays["e"] = Relay(T0 - 400, "neCNTRL")
    peers = {f"n{name}CNTRL": PeerMemory(T0 - DAY) for name in ("b", "d", "e")}
    state = replace(known(), relays=relays, memory=Memory(peers, T0 - 600))
    policy = replace(POLICY, excluded=frozenset({"b"}))
    looks = (peer("a"), *map(derp_peer, names[1:]))
    assert Node(policy, state).look(0, *looks).due == Due(T0 + 201, RESTART, "e")
    recent = Attempt(RESTART, "e", T0 - 100, T0, Stage.DONE, AttemptResult.NO_EFFECT)
    cooling = replace(state, attempts=(recent,))
    assert Node(policy, cooling).look(0, *looks).due == Due(T0 + 500, RESTART, "e")


def test_a_run_that_judges_a_remedy_and_applies_another_one_logs_both() -> None:
    node = Node(replace(LADDER, cooldown_seconds=0), known())
    story = [lines(node.look(at, NAS_ON_RELAY)) for at in (1, 301)]
    assert story[1] == (
        "OUTCOME: nas still on relay 300s after the restart: no effect (0 of 1)",
        "OTHER-PORT: nas on relay for 901s, restarting tailscaled on another port",
    )
    assert node.restarts == [1, 301]


def test_a_remedy_that_nothing_allows_is_never_applied() -> None:
    node = Node(GuardedPolicy(remedies=()), known())
    transition = node.look(10_000, NAS_ON_RELAY)
    assert reason(transition) is Reason.PATIENT
    assert lines(transition) == ("PATIENT: nas on relay for 10600s; no remedy is allowed",)


def test_a_peer_is_known_to_be_direct_for_the_whole_time() -> None:
    assert guarded.is_known_direct(PeerMemory(T0 - 7 * DAY), T0, POLICY)
    assert not guarded.is_known_direct(PeerMemory(T0 - 7 * DAY), T0 + 1, POLICY)


def test_two_peers_that_were_never_direct_are_told_once_each() -> None:
    relays = {name: Relay(T0 - 700, f"n{name}CNTRL") for name in ("cam", "nas")}
    node = Node(state=replace(known(), relays=relays, memory=Memory({}, T0 - 600)))
    both = (derp_peer("cam"), NAS_ON_RELAY)
    assert [len(lines(node.look(at, *both))) for at in (0, 60)] == [2, 0]


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        pytest.param({}, "never seen direct", id="never"),
        pytest.param({NAS: PeerMemory(T0 - 8 * DAY)}, "not seen direct for days", id="long-ago"),
    ],
)
def test_a_peer_that_was_not_direct_lately_is_told_once(
    memory: dict[str, PeerMemory], why: str
) -> None:
    node = Node(state=replace(known(), memory=Memory(memory, T0 - 600)))
    story = [node.look(at, NAS_ON_RELAY) for at in (0, 1, 61, 10_000)]
    assert [lines(transition) for transition in story[1:]] == [
        (f"NEVER-DIRECT: nas on relay for 601s, {why}: no restart for it",),
        (),
        (),
    ]
    assert reason(story[-1]) is Reason.NEVER_DIRECT
    assert all(transition.due is None for transition in story)
    assert node.restarts == []


def test_a_peer_that_is_given_up_is_told_at_once_and_then_once_a_week() -> None:
    """Although the last line about it, that it is waited for, is not an hour old."""
    patient = GuardedPolicy(discount=1e-6)
    failed = {RESTART: Record(T0, 0.0, 1.0, 0, 1, streak=1)}
    memory = Memory({NAS: PeerMemory(T0 - 7 * DAY, failed)}, T0 - 600)
    node = Node(patient, replace(known(since=DAY), memory=memory))
    week = 7 * DAY
    words = [
        [line.partition(":")[0] for line in lines(node.look(at, NAS_ON_RELAY))]
        for at in (0, 1, 61, week, week + 1, week + 61)
    ]
    assert words == [["PATIENT"], ["NEVER-DIRECT"], [], [], ["NEVER-DIRECT"], []]


@pytest.mark.parametrize(
    ("other", "at"),
    [
        pytest.param(peer("nas", "idle"), 60, id="idle"),
        pytest.param(peer("nas", "peer_relay"), 60, id="peer-relay"),
        pytest.param(derp_peer("nas", Relay=""), 60, id="no-path"),
        pytest.param(peer("nas", "offline"), 60, id="offline"),
    ],
)
def test_unknown_ends_an_episode(other: dict[str, Any], at: int) -> None:
    node = Node(state=known(since=500))
    node.look(at, other)
    assert node.state.relays == {}
    assert reason(node.look(at + 60, NAS_ON_RELAY)) is Reason.DETECTED


def test_unknown_does_not_end_a_streak() -> None:
    """Otherwise a peer that is idle now and then would get a restart each time."""
    node = Node(state=known(records={RESTART: Record(T0, 0.0, 1.0, 0, 1, streak=1)}))
    node.look(0, peer("nas", "idle"))
    node.look(60, NAS_ON_RELAY)
    assert reason(node.look(60 + 23_000, NAS_ON_RELAY)) is Reason.PATIENT


def test_an_excluded_peer_is_never_a_cause() -> None:
    node = Node(replace(POLICY, excluded=frozenset({"nas"})), known())
    transition = node.look(9, NAS_ON_RELAY)
    assert lines(transition) == ("EXCLUDED: nas on relay for 609s, excluded from restarts",)
    assert transition.due is None


NO_RELAY = "Tailscale could not connect to any relay server. Check your Internet connection."


@pytest.mark.parametrize(
    ("fields", "hold"),
    [
        pytest.param({"Self": {"Online": False}}, Hold.NO_CONTROL, id="control"),
        pytest.param({"Self": {"Expired": True}}, Hold.EXPIRED_KEY, id="key"),
        pytest.param({"Health": [NO_RELAY]}, Hold.NO_RELAY, id="relay"),
        pytest.param({"start": T0 - 298}, Hold.STARTING, id="start"),
    ],
)
def test_a_remedy_is_held_back_and_waits_until_the_node_was_steady(
    fields: dict[str, Any], hold: Hold
) -> None:
    node = Node(state=known())
    held = node.look(1, NAS_ON_RELAY, **fields)
    assert held.hold is hold
    assert held.due is None
    assert lines(held) == (f"HELD: nas on relay for 601s, not restarting: {hold}",)
    start = {"start": fields.get("start")}
    confirming = node.look(61, NAS_ON_RELAY, **start)
    assert lines(confirming) == ("CONFIRMING: nas on relay for 661s, restart in 150s if it stays",)
    assert confirming.due == Due(T0 + 211, RESTART, "nas")
    assert reason(node.look(210, NAS_ON_RELAY, **start)) is Reason.CONFIRMING
    assert reason(node.look(211, NAS_ON_RELAY, **start)) is Reason.RESTART


def test_a_relay_is_watched_for_a_while_even_if_the_threshold_is_shorter() -> None:
    node = Node(replace(POLICY, max_relay_seconds=60), known(since=0))
    story = [node.look(at, NAS_ON_RELAY) for at in (61, 149, 150)]
    assert story[0].due == Due(T0 + 150, RESTART, "nas")
    assert [line for transition in story for line in lines(transition)] == [
        "CONFIRMING: nas on relay for 61s, restart in 89s if it stays",
        "CONFIRMING: nas on relay for 149s, restart in 1s if it stays",
        "RESTART: nas on relay for 150s, restarting tailscaled",
    ]


def test_a_remedy_that_is_confirmed_is_named() -> None:
    node = Node(
        replace(LADDER, remedies=(Remedy.OTHER_PORT,), max_relay_seconds=60), known(since=0)
    )
    assert lines(node.look(61, NAS_ON_RELAY)) == (
        "CONFIRMING: nas on relay for 61s, port change in 89s if it stays",
    )


@pytest.mark.parametrize("blind", [DOWN, STOPPED])
def test_a_run_that_observes_nothing_confirms_nothing(blind: Event) -> None:
    """The relay goes on over a short gap, but an outage may have ended in it."""
    node = Node(state=known())
    node.state = step(node.state, blind, now=Instant(T0 + 1), policy=POLICY).state
    assert lines(node.look(61, NAS_ON_RELAY)) == (
        "CONFIRMING: nas on relay for 661s, restart in 150s if it stays",
    )
    assert reason(node.look(210, NAS_ON_RELAY)) is Reason.CONFIRMING
    assert reason(node.look(211, NAS_ON_RELAY)) is Reason.RESTART


@pytest.mark.parametrize(
    ("age", "hold"), [(-1, None), (0, Hold.STARTING), (299, Hold.STARTING), (300, None)]
)
def test_tailscaled_starts_for_5_minutes(age: int, hold: Hold | None) -> None:
    """A start in the future is no start."""
    assert Node(state=known()).look(1, NAS_ON_RELAY, start=T0 + 1 - age).hold is hold


def test_nothing_that_is_remembered_lies_in_the_future() -> None:
    """A clock that went back unseen must not make the node unsteady for years.

    Nor may it make a peer known as direct for longer than the policy says.
    """
    records = {RESTART: Record(T0 - 1000, 0.0, 1.0, 0, 1)}
    node = Node(state=known(records=records))
    back = -400 * DAY
    node.look(back, NAS_ON_RELAY)
    assert node.state.memory == Memory(
        {NAS: PeerMemory(T0 + back, {RESTART: Record(T0 + back, 0.0, 1.0, 0, 1)})}, T0 + back
    )
    assert reason(node.look(back + 8 * DAY, NAS_ON_RELAY)) is Reason.NEVER_DIRECT


def attempts(number: int, **fields: Any) -> tuple[Attempt, ...]:
    """Attempts without effect, the newest an hour ago."""
    return tuple(
        replace(
            Attempt(RESTART, "nas", T0 - 3600 * hours, T0, Stage.DONE, AttemptResult.NO_EFFECT),
            **fields,
        )
        for hours in range(number, 0, -1)
    )


@pytest.mark.parametrize(
    ("spent", "hold"),
    [
        pytest.param(attempts(6), Hold.NO_BUDGET, id="spent"),
        pytest.param(attempts(5), None, id="left"),
        pytest.param(attempts(6, at=T0 - DAY + 2), Hold.NO_BUDGET, id="a-day-ago"),
        pytest.param(attempts(6, at=T0 - DAY + 1), None, id="longer-ago"),
        pytest.param(attempts(6, result=AttemptResult.HELPED), None, id="helped"),
        pytest.param(attempts(6, stage=Stage.DECLINED), None, id="declined"),
        pytest.param(attempts(6, stage=Stage.FAILED), Hold.NO_BUDGET, id="failed"),
        pytest.param(
            (*attempts(5, at=T0 - DAY + 2), *attempts(1, stage=Stage.FAILED, is_harmless=True)),
            None,
            id="failed-without-harm",
        ),
    ],
)
def test_the_budget_counts_what_did_not_help_in_a_day(
    spent: tuple[Attempt, ...], hold: Hold | None
) -> None:
    node = Node(state=replace(known(), attempts=spent))
    transition = node.look(1, NAS_ON_RELAY)
    assert transition.hold is hold
    assert reason(transition) is (Reason.RESTART if hold is None else Reason.HELD)


def test_a_spent_budget_is_no_unsteadiness() -> None:
    node = Node(state=replace(known(), attempts=attempts(6)))
    node.look(1, NAS_ON_RELAY)
    assert reason(node.look(DAY - 6 * 3600 + 1, NAS_ON_RELAY)) is Reason.RESTART


def failing(node: Node, hours: int, *, start: int | None) -> list[int]:
    """When the node restarts tailscaled, in minutes, if each command fails."""
    node.outcome = Failed("systemctl: no")
    for at in range(1, hours * 3600, 60):
        node.look(at, NAS_ON_RELAY, start=start)
    return [at // 60 for at in node.restarts]


def test_commands_that_fail_and_do_no_harm_cost_no_budget_and_become_rare() -> None:
    """Their cooldowns double, and one that works again is found in time."""
    policy = replace(POLICY, budget=1)
    node = Node(policy, known())
    tried = failing(node, 26, start=T0 - DAY)
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    drawn = [attempt.cooldown_seconds or 0 for attempt in node.state.attempts]
    assert gaps == [-(-cooldown * 2**n // 60) for n, cooldown in enumerate(drawn[:-1])]
    assert len(tried) == 8
    node.outcome = Done()
    node.look(60 * 3600, NAS_ON_RELAY, start=T0 - DAY)
    assert node.state.restarts == 1


def test_commands_that_never_work_are_tried_once_a_day_at_least() -> None:
    node = Node(state=known())
    node.outcome = Failed("systemctl: no")
    for hour in range(20 * 24):
        node.look(3600 * hour + 1, NAS_ON_RELAY, peer("cam"), start=T0 - 100 * DAY)
        memory = node.state.memory  # the peer is seen direct often enough to be known
        node.state = replace(node.state, memory=replace(memory, peers={NAS: PeerMemory(T0 + DAY)}))
    days = [at // DAY for at in node.restarts]
    assert sorted(set(days[5:])) == list(range(days[5], days[-1] + 1))
    assert days[-1] >= 7
    assert len(days) <= 8 + days[-1]


@pytest.mark.parametrize(
    ("starts", "hold"),
    [
        pytest.param((None, None), Hold.NO_BUDGET, id="unknown"),
        pytest.param((T0 + 1, T0 + 1), Hold.NO_BUDGET, id="restarted"),
        pytest.param((T0 - DAY, T0 + 1), Hold.NO_BUDGET, id="restarted-later"),
        pytest.param((T0, T0), None, id="left-running"),
        pytest.param((T0, None), None, id="unknown-later"),
    ],
)
def test_a_command_that_failed_and_may_have_done_harm_costs_budget(
    starts: tuple[int | None, int | None], hold: Hold | None
) -> None:
    node = Node(replace(POLICY, budget=1), known())
    node.outcome = Failed("systemctl: no")
    node.look(1, NAS_ON_RELAY)
    node.look(61, NAS_ON_RELAY, start=starts[0])
    assert node.look(302, NAS_ON_RELAY, start=starts[1]).hold is hold


def test_a_peer_that_is_direct_after_a_command_without_effect_has_recovered() -> None:
    node = Node(state=known())
    node.outcome = Failed("systemctl: no")
    node.look(1, NAS_ON_RELAY, start=T0 - DAY)
    assert reason(node.look(61, peer("nas"), start=T0 - DAY)) is Reason.RECOVERED
    assert node.state.recoveries == 1


def test_the_peer_on_relay_the_longest_is_the_cause_and_all_are_subjects() -> None:
    state = known()
    peers = {f"n{name}CNTRL": PeerMemory(T0) for name in ("a", "b", "nas")}
    relays = {"a": Relay(T0 - 700, "naCNTRL"), "nas": Relay(T0 - 600, NAS)}
    node = Node(state=replace(state, relays=relays, memory=Memory(peers, T0 - 600)))
    transition = node.look(1, derp_peer("a"), derp_peer("b"), NAS_ON_RELAY, peer("vps"))
    (attempt,) = node.state.attempts
    cooldown = attempt.cooldown_seconds
    assert lines(transition) == (
        "RESTART: a on relay for 701s, restarting tailscaled",
        "DETECTED: b transitioned to relay",
        f"COOLDOWN: nas exceeded threshold but in cooldown ({cooldown}s remaining)",
    )
    assert (attempt.peer, attempt.peer_id, attempt.direct_peers) == ("a", "naCNTRL", 1)
    assert attempt.subjects == ("naCNTRL", NAS, "nbCNTRL")
    assert attempt.judge_at == attempt.at + 300


def test_what_did_not_help_one_peer_did_not_help_the_others() -> None:
    node = Node(state=known())
    both = (NAS_ON_RELAY, derp_peer("rpi3"))
    node.look(0, peer("rpi3"), NAS_ON_RELAY)
    for at in range(1, 3600, 60):
        node.look(at, *both)
    assert node.restarts == [1]
    assert set(node.state.memory.peers["nrpi3CNTRL"].records) == {RESTART}


def test_a_cooldown_is_drawn_by_the_node_and_the_time() -> None:
    def drawn(at: int, node: str = "nself") -> int:
        transition = Node(state=known()).look(at, NAS_ON_RELAY, Self={"ID": node})
        return restarts(transition)[0].attempt.cooldown_seconds or 0

    cooldowns = [drawn(at) for at in range(1, 50)]
    assert cooldowns == [drawn(at) for at in range(1, 50)]
    assert all(600 <= cooldown <= 900 for cooldown in cooldowns)
    assert max(cooldowns) > 850
    assert len(set(cooldowns)) > 40
    assert drawn(1, "nother") != drawn(1)


def test_an_experiment_ends_before_the_next_one_begins() -> None:
    """Even if the cooldown of the policy is shorter."""
    hasty = replace(POLICY, cooldown_seconds=0, discount=1.0)
    node = Node(hasty, known(since=5000))
    for at in range(1, 400, 10):
        node.look(at, NAS_ON_RELAY)
    assert node.restarts == [1, 301]


def test_a_restart_that_was_declined_is_no_trial() -> None:
    node = Node(state=known())
    node.outcome = Declined("tailscaled.service was stopped on purpose")
    node.look(1, NAS_ON_RELAY)
    node.look(400, NAS_ON_RELAY)
    assert node.state.memory.peers[NAS].records == {}
    assert node.state.attempts[-1].result is AttemptResult.UNCONFIRMED


WORSE = Attempt(
    Remedy.OTHER_PORT,
    "nas",
    T0 - 1000,
    T0 - 700,
    Stage.DONE,
    AttemptResult.WORSE,
    peer_id=NAS,
    cooldown_seconds=600,
)
WAY_BACK = (
    "RESTART: nas on relay for 1601s, restarting tailscaled on the configured port: fewer peers "
    "are direct on the other one"
)
PATIENT = "restarts helped 0 of 1 times: next worth it at 23995s"
VPS_ON_RELAY = derp_peer("vps")
BOTH = (NAS_ON_RELAY, VPS_ON_RELAY)
FAILED_ONCE = {remedy: Record(T0 - 700, 0.0, 1.0, 0, 1, streak=1) for remedy in Remedy}


def on_worse_port(*later: Attempt, since: int = 1601) -> State:
    """State in which `vps` is on relay since `nas` caused a change of the port."""
    state = known(records=FAILED_ONCE, since=since)
    return replace(
        state,
        attempts=(WORSE, *later),
        relays={**state.relays, "vps": Relay(T0 - 500, "nvpsCNTRL")},
        memory=replace(state.memory, peers={**state.memory.peers, "nvpsCNTRL": PeerMemory(T0)}),
    )


def test_a_port_on_which_fewer_peers_are_direct_is_left_at_once() -> None:
    """Although neither remedy is worth it. No peer has a trial of the way back."""
    node = Node(LADDER, on_worse_port())
    story = [lines(node.look(0, NAS_ON_RELAY, VPS_ON_RELAY))]
    story += [lines(node.look(at, NAS_ON_RELAY, peer("vps"))) for at in (60, 300, 900, 960)]
    assert story == [
        (WAY_BACK, "WAITING: vps on relay for 500s (threshold: 600s)"),
        (f"PATIENT: nas on relay for 1661s; {PATIENT}", "RECOVERED: vps back to direct"),
        ("OUTCOME: nas still on relay 300s after the restart: no effect (0 of 1)",),
        (),
        (),
    ]
    assert node.restarts == [0]
    assert node.state.attempts[-1].subjects == ()
    assert node.state.memory.peers[NAS].records == FAILED_ONCE


def test_the_way_back_comes_before_every_other_remedy() -> None:
    """Another peer is on relay for longer, and the next port change is worth it for it."""
    state = on_worse_port()
    state = replace(
        state,
        relays={**state.relays, "cam": Relay(T0 - 9000, "ncamCNTRL")},
        memory=replace(state.memory, peers={**state.memory.peers, "ncamCNTRL": PeerMemory(T0)}),
    )
    both = (derp_peer("cam"), *BOTH)
    waiting = Node(LADDER, replace(state, attempts=(replace(WORSE, cooldown_seconds=1001),)))
    assert waiting.look(0, *both).due == Due(T0 + 1, RESTART, "nas")
    transition = Node(LADDER, state).look(0, *both)
    assert (reason(transition), reason(transition, "cam")) == (Reason.RESTART, Reason.COOLDOWN)
    (effect,) = restarts(transition)
    assert (effect.attempt.remedy, effect.attempt.peer) == (RESTART, "nas")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"Self": {"Online": False}}, Reason.HELD, id="held"),
        pytest.param({"start": T0 - 200}, Reason.HELD, id="starting"),
    ],
)
def test_the_way_back_is_held_back_like_any_remedy(
    fields: dict[str, Any], expected: Reason
) -> None:
    assert reason(Node(LADDER, on_worse_port()).look(0, *BOTH, **fields)) is expected


def test_the_way_back_waits_for_the_cooldown_and_for_the_budget() -> None:
    cooling = Node(LADDER, replace(on_worse_port(), attempts=(replace(WORSE, at=T0 - 599),)))
    assert reason(cooling.look(0, *BOTH)) is Reason.COOLDOWN
    spent = Node(replace(LADDER, budget=1), on_worse_port())
    assert reason(spent.look(0, *BOTH)) is Reason.HELD


@pytest.mark.parametrize(
    "vps",
    [
        pytest.param(peer("vps", "offline"), id="offline"),
        pytest.param(peer("vps"), id="direct-again"),
        pytest.param(derp_peer("cam"), id="other-peer-never-direct"),
    ],
)
def test_without_a_peer_that_lost_its_direct_path_there_is_no_way_back(
    vps: dict[str, Any],
) -> None:
    node = Node(LADDER, on_worse_port())
    assert reason(node.look(0, NAS_ON_RELAY, vps)) is Reason.PATIENT
    assert reason(node.look(1, NAS_ON_RELAY, vps)) is Reason.PATIENT


def test_a_peer_that_was_on_relay_before_or_is_excluded_is_not_lost() -> None:
    state = on_worse_port()
    before = replace(state, relays={**state.relays, "vps": Relay(T0 - 1000, "nvpsCNTRL")})
    failed = {**state.memory.peers, "nvpsCNTRL": PeerMemory(T0, FAILED_ONCE)}
    before = replace(before, memory=replace(before.memory, peers=failed))
    assert reason(Node(LADDER, before).look(0, *BOTH)) is Reason.PATIENT
    excluded = replace(LADDER, excluded=frozenset({"vps"}))
    assert reason(Node(excluded, state).look(0, *BOTH)) is Reason.PATIENT


def done(remedy: Remedy, result: AttemptResult, stage: Stage = Stage.DONE) -> Attempt:
    """Attempt after `WORSE`, with its cooldown over."""
    return Attempt(remedy, "nas", T0 - 400, T0 - 100, stage, result, NAS, 300)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(on_worse_port(), Reason.RESTART, id="worse"),
        pytest.param(
            on_worse_port(done(RESTART, AttemptResult.UNCONFIRMED, Stage.FAILED)),
            Reason.RESTART,
            id="the-way-back-failed",
        ),
        pytest.param(
            on_worse_port(done(RESTART, AttemptResult.UNCONFIRMED, Stage.DECLINED)),
            Reason.RESTART,
            id="the-way-back-declined",
        ),
        pytest.param(
            on_worse_port(done(RESTART, AttemptResult.NO_EFFECT)), Reason.PATIENT, id="back-already"
        ),
        pytest.param(
            on_worse_port(done(Remedy.OTHER_PORT, AttemptResult.NO_EFFECT)),
            Reason.PATIENT,
            id="no-effect",
        ),
        pytest.param(on_worse_port(since=999), Reason.PATIENT, id="younger-relay"),
        pytest.param(
            replace(on_worse_port(), attempts=(replace(WORSE, peer="cam", peer_id=""),)),
            Reason.PATIENT,
            id="other-cause",
        ),
        pytest.param(
            replace(on_worse_port(), attempts=(replace(WORSE, peer_id=""),)),
            Reason.RESTART,
            id="cause-without-id",
        ),
    ],
)
def test_only_the_cause_of_the_last_start_leads_back(state: State, expected: Reason) -> None:
    assert reason(Node(LADDER, state).look(0, *BOTH)) is expected


HELPED = replace(WORSE, result=AttemptResult.HELPED)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        pytest.param((HELPED,), Remedy.OTHER_PORT, id="helped"),
        pytest.param(
            (HELPED, done(Remedy.OTHER_PORT, AttemptResult.NO_EFFECT)),
            Remedy.OTHER_PORT,
            id="the-next-one-had-no-effect",
        ),
        pytest.param(
            (HELPED, done(RESTART, AttemptResult.UNCONFIRMED, Stage.FAILED)),
            Remedy.OTHER_PORT,
            id="a-restart-failed",
        ),
        pytest.param(
            (HELPED, done(RESTART, AttemptResult.HELPED)), RESTART, id="on-the-configured-port"
        ),
        pytest.param(
            (HELPED, done(Remedy.OTHER_PORT, AttemptResult.WORSE)),
            RESTART,
            id="the-next-one-made-it-worse",
        ),
        pytest.param(
            (done(Remedy.OTHER_PORT, AttemptResult.NO_EFFECT),), RESTART, id="no-effect-at-all"
        ),
        pytest.param(
            (HELPED, done(Remedy.OTHER_PORT, AttemptResult.UNCONFIRMED, Stage.FAILED)),
            RESTART,
            id="the-next-one-failed",
        ),
        pytest.param((replace(HELPED, is_undone=True),), RESTART, id="started-by-somebody-else"),
        pytest.param((replace(HELPED, remedy=RESTART),), RESTART, id="a-restart-helped"),
    ],
)
def test_a_port_that_helped_is_not_given_up_for_another_peer(
    attempts: tuple[Attempt, ...], expected: Remedy
) -> None:
    node = Node(LADDER, replace(known(since=601), attempts=attempts))
    (effect,) = restarts(node.look(0, NAS_ON_RELAY))
    assert effect.attempt.remedy is expected


UNDONE = done(Remedy.OTHER_PORT, AttemptResult.UNCONFIRMED, Stage.FAILED)
TWICE = {
    RESTART: Record(T0 - 700, 0.0, 1.0, 0, 1),
    Remedy.OTHER_PORT: Record(T0 - 700, 0.0, 0.5, 0, 1),
}
"Restarts are worth it after 1200 s, and another port after 900 s."


@pytest.mark.parametrize(
    ("seconds", "last", "expected"),
    [
        pytest.param(1201, UNDONE, RESTART, id="both-are-worth-it"),
        pytest.param(1000, UNDONE, Remedy.OTHER_PORT, id="only-one-is-worth-it"),
        pytest.param(1201, replace(UNDONE, remedy=RESTART), Remedy.OTHER_PORT, id="restart-failed"),
        pytest.param(1201, replace(UNDONE, stage=Stage.DECLINED), Remedy.OTHER_PORT, id="declined"),
    ],
)
def test_after_a_command_that_failed_the_other_remedy_has_its_turn(
    seconds: int, last: Attempt, expected: Remedy
) -> None:
    node = Node(LADDER, replace(known(records=TWICE, since=seconds), attempts=(last,)))
    (effect,) = restarts(node.look(0, NAS_ON_RELAY))
    assert effect.attempt.remedy is expected


def test_what_is_due_after_a_command_that_failed_is_known_before() -> None:
    """In the cooldown, the restart becomes worth it, too."""
    last = replace(UNDONE, cooldown_seconds=700)
    node = Node(LADDER, replace(known(records=TWICE, since=1000), attempts=(last,)))
    assert node.look(0, NAS_ON_RELAY).due == Due(T0 + 300, RESTART, "nas")
    (effect,) = restarts(node.look(300, NAS_ON_RELAY))
    assert effect.attempt.remedy is RESTART


def test_a_port_change_that_never_works_does_not_stop_restarts() -> None:
    """The second restart comes when it is worth it, after more than six hours."""
    node = Node(LADDER, known())
    node.failing = Remedy.OTHER_PORT
    for at in range(1, 26_000, 60):
        node.look(at, NAS_ON_RELAY, start=T0 - DAY)
    attempts = node.state.attempts
    done_at = [attempt.at - T0 for attempt in attempts if attempt.stage is Stage.DONE]
    assert [attempt.remedy for attempt in attempts if attempt.stage is Stage.DONE] == [RESTART] * 2
    assert done_at[1] > 23_000
    assert 6 <= len(attempts) - len(done_at) <= 8


def test_without_permission_for_another_port_a_port_that_helped_is_given_up() -> None:
    node = Node(POLICY, replace(known(since=601), attempts=(HELPED,)))
    (effect,) = restarts(node.look(0, NAS_ON_RELAY))
    assert effect.attempt.remedy is RESTART


def test_on_a_port_that_helped_the_record_of_restarts_does_not_count() -> None:
    """A restart would be worth it, but it would end what helped another peer."""
    failed = {Remedy.OTHER_PORT: Record(T0, 0.0, 1.0, 0, 1, streak=1)}
    node = Node(LADDER, replace(known(records=failed, since=601), attempts=(HELPED,)))
    assert node.look(0, NAS_ON_RELAY).due == Due(T0 + 23_400, Remedy.OTHER_PORT, "nas")


@pytest.mark.parametrize(
    ("starts", "is_undone"),
    [
        pytest.param((T0 - 900, T0 - 900), False, id="no-start"),
        pytest.param((T0 - 900, T0 - 30), True, id="another-start"),
        pytest.param((None, T0 - 30), False, id="first-look-after-the-port-changed"),
        pytest.param((T0 - 900, None), False, id="unknown"),
    ],
)
def test_a_start_by_somebody_else_is_on_the_configured_port(
    starts: tuple[int | None, int | None], *, is_undone: bool
) -> None:
    before, now = starts
    restart = replace(HELPED, remedy=RESTART)
    state = replace(known(), attempts=(restart, HELPED), tailscaled_start=before)
    attempts = Node(LADDER, state).look(0, peer("nas"), start=now).state.attempts
    assert [attempt.is_undone for attempt in attempts] == [False, is_undone]


def test_without_any_allowed_remedy_there_is_no_way_back() -> None:
    nothing = replace(LADDER, remedies=())
    assert reason(Node(nothing, on_worse_port()).look(0, *BOTH)) is Reason.PATIENT
    port = replace(LADDER, remedies=(Remedy.OTHER_PORT,))
    assert reason(Node(port, on_worse_port()).look(0, *BOTH)) is Reason.RESTART


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (AttemptResult.HELPED, "nas direct 12s after the restart: helped (3 of 4)"),
        (AttemptResult.NO_EFFECT, "nas still on relay 12s after the restart: no effect (3 of 4)"),
        (
            AttemptResult.WORSE,
            "nas still on relay 12s after the restart, and fewer peers are direct: worse (3 of 4)",
        ),
        (AttemptResult.UNCONFIRMED, "nas not observed 12s after the restart: unconfirmed"),
    ],
)
def test_each_result_has_its_line(result: AttemptResult, expected: str) -> None:
    attempt = Attempt(RESTART, "nas", T0, T0 + 300, result=result)
    remembered = PeerMemory(T0, {RESTART: Record(T0, times_helped=3, times=4)})
    assert guarded.outcome_line(attempt, "nas", remembered, T0 + 12) == f"OUTCOME: {expected}"


def test_the_result_for_a_peer_that_was_idle_before_it_was_direct_is_told() -> None:
    """Its relay has ended already, so that it did not recover. Another peer says nothing."""
    node = Node(state=known())
    node.look(1, peer("cam"), NAS_ON_RELAY)
    assert lines(node.look(13, peer("cam"), peer("nas", "idle"))) == ()
    assert lines(node.look(25, peer("cam"), peer("nas"))) == (
        "OUTCOME: nas direct 24s after the restart: helped (1 of 1)",
    )


def test_a_direct_peer_does_not_hide_the_others() -> None:
    assert lines(Node(state=known()).look(0, peer("cam"), NAS_ON_RELAY)) == (
        "WAITING: nas on relay for 600s (threshold: 600s)",
    )


def test_the_result_of_a_restart_of_the_documented_policy_is_told() -> None:
    """It knew the name of the peer alone, and has left no record."""
    attempt = Attempt(RESTART, "nas", T0 - 60, T0 + 540, Stage.DONE)
    node = Node(state=replace(known(), attempts=(attempt,)))
    assert lines(node.look(0, peer("nas"))) == (
        "OUTCOME: nas direct 60s after the restart: helped",
    )


def test_a_damaged_name_in_the_state_breaks_no_line() -> None:
    attempt = Attempt(RESTART, "a\nb", T0 - 60, T0 - 30, Stage.DONE)
    node = Node(state=replace(known(), attempts=(attempt,)))
    assert lines(node.look(0, peer("cam"))) == (
        "OUTCOME: a\N{REPLACEMENT CHARACTER}b not observed 60s after the restart: unconfirmed",
    )


def test_a_peer_without_an_id_is_remembered_by_its_name() -> None:
    nameless = derp_peer("nas", ID="")
    state = replace(
        known(),
        relays={"nas": Relay(T0 - 600)},
        memory=Memory({"nas": PeerMemory(T0 - DAY)}, T0 - 600),
    )
    node = Node(state=state)
    node.look(1, nameless)
    (attempt,) = node.state.attempts
    assert (attempt.peer, attempt.peer_id, attempt.subjects) == ("nas", "", ("nas",))
    node.look(301, nameless)
    assert node.state.memory.peers["nas"].records[RESTART].times == 1


def test_a_record_outlasts_the_time_of_the_last_direct_path() -> None:
    old = PeerMemory(None, {RESTART: Record(T0 - 20 * DAY, 1.0, 0.0, 1, 1)})
    node = Node(state=replace(known(), memory=Memory({"nold": old}, T0 - 600)))
    node.look(0, peer("cam"))
    assert set(node.state.memory.peers) == {"nold", "ncamCNTRL"}


def test_the_result_for_a_peer_that_is_gone_is_told() -> None:
    node = Node(state=known())
    node.look(1, NAS_ON_RELAY)
    assert lines(node.look(301, peer("vps"))) == (
        "OUTCOME: nas not observed 300s after the restart: unconfirmed",
    )


def test_the_line_about_a_peer_that_is_gone_stands_where_its_name_belongs() -> None:
    node = Node(state=known())
    node.look(1, NAS_ON_RELAY)
    assert lines(node.look(301, derp_peer("cam"), derp_peer("vps"))) == (
        "DETECTED: cam transitioned to relay",
        "OUTCOME: nas not observed 300s after the restart: unconfirmed",
        "DETECTED: vps transitioned to relay",
    )


def test_a_change_of_the_policy_starts_relay_again_and_keeps_the_rest() -> None:
    node = Node(state=replace(known(), restarts=3))
    node.policy = ThresholdPolicy()
    there = node.look(700, NAS_ON_RELAY)
    assert (reason(there), node.state.restarts) == (Reason.DETECTED, 3)
    assert node.state.memory == known().memory
    node.policy = POLICY
    back = node.look(760, NAS_ON_RELAY)
    assert (reason(back), back.is_after_break) == (Reason.DETECTED, True)
    assert reason(node.look(760 + 601, NAS_ON_RELAY)) is Reason.RESTART


def test_only_evidence_is_judged() -> None:
    node = Node()
    transition = node.look(0, peer("idle", "idle"), derp_peer("phone", OS="iOS"), peer("nas"))
    assert [(verdict.peer, verdict.reason) for verdict in transition.verdicts or ()] == [
        ("idle", Reason.UNKNOWN),
        ("nas", Reason.DIRECT),
        ("phone", Reason.UNKNOWN),
    ]


def test_failures_in_a_row_are_kept_although_older_attempts_cost_more() -> None:
    """Otherwise the cooldown would never double once the list of attempts is full."""
    old = attempts(24, at=T0 - 2 * DAY)
    node = Node(state=replace(known(), attempts=old))
    node.outcome = Failed("systemctl: no")
    for at in range(1, 3 * 3600, 60):
        node.look(at, NAS_ON_RELAY, start=T0 - 3 * DAY)
    assert len(node.restarts) == 4
    assert [attempt.is_harmless for attempt in node.state.attempts[-4:]] == [True] * 4
