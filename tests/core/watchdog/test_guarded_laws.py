"""Properties of the guarded policy for every state that it makes, and every status."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from returns.result import Success

from support.statuses import decoded, peer
from tsfc.core.clock import Instant
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog import guarded, memory
from tsfc.core.watchdog.effects import Apply, Effect, Log
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed
from tsfc.core.watchdog.experiment import Trial, is_open
from tsfc.core.watchdog.memory import DAY_SECONDS, Memory, PeerMemory, Record
from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Attempt, Done, Remedy
from tsfc.core.watchdog.state import State, decode, encode
from tsfc.core.watchdog.step import Transition, step

from .strategies import (
    GUARDED_POLICIES,
    GUARDED_STATES,
    GUARDED_STATUSES,
    RECORDS,
    WILD_EVENTS,
    WILD_GUARDED_POLICIES,
    WILD_INSTANTS,
    WILD_MEMORIES,
    WILD_STATES,
)
from .test_laws import state_later
from .worlds import T0, derp_peer, lines, restarts

HOUR = 3600
RUNS = {"state": GUARDED_STATES, "status": GUARDED_STATUSES, "policy": GUARDED_POLICIES}


def run(
    state: State, status: Status, policy: GuardedPolicy, *, at: int = T0, start: int | None = None
) -> Transition:
    """Transition of a run that observes peers."""
    return step(state, Observed(status, start), now=Instant(at), policy=policy)


@given(
    state=WILD_STATES,
    remembered=WILD_MEMORIES,
    event=WILD_EVENTS,
    now=WILD_INSTANTS,
    policy=WILD_GUARDED_POLICIES,
)
def test_it_decides_on_any_input(
    state: State, remembered: Memory, event: Event, now: Instant, policy: GuardedPolicy
) -> None:
    """It always decides: printable lines, at most one remedy, one verdict per peer."""
    before = replace(state, memory=remembered)
    transition = step(before, event, now=now, policy=policy)
    assert len(restarts(transition)) <= 1
    assert all(line.isprintable() for line in lines(transition))
    peers = [verdict.peer for verdict in transition.verdicts or ()]
    assert peers == sorted(set(peers))
    assert step(before, event, now=now, policy=policy) == transition


@given(**RUNS, data=st.data())
def test_removing_a_peer_never_adds_a_remedy(
    state: State, status: Status, policy: GuardedPolicy, data: st.DataObject
) -> None:
    """Also if the peer that is left then has another name."""
    peers = dict(status.peer or {})
    if peers and not restarts(run(state, status, policy)):
        del peers[data.draw(st.sampled_from(sorted(peers)))]
        assert not restarts(run(state, replace(status, peer=peers), policy))


@given(**RUNS, data=st.data())
def test_the_order_of_what_is_remembered_changes_nothing(
    state: State, status: Status, policy: GuardedPolicy, data: st.DataObject
) -> None:
    def shuffled(items: Iterable[tuple[str, PeerMemory]]) -> dict[str, PeerMemory]:
        return dict(data.draw(st.permutations(list(items))))

    peers = shuffled(state.memory.peers.items())
    other = replace(state, memory=replace(state.memory, peers=peers))
    assert run(other, status, policy) == run(state, status, policy)


def undrawn(transition: Transition) -> Transition:
    """The transition without the cooldown that is drawn for a new attempt."""
    if not restarts(transition):
        return transition

    def without(effect: Effect) -> Effect:
        if isinstance(effect, Apply):
            return Apply(replace(effect.attempt, cooldown_seconds=None))
        is_line = isinstance(effect, Log)
        return Log(re.sub(r"\(\d+s remaining", "(remaining", effect.line)) if is_line else effect

    *earlier, newest = transition.state.attempts
    attempts = (*earlier, replace(newest, cooldown_seconds=None))
    return replace(
        transition,
        state=replace(transition.state, attempts=attempts),
        effects=tuple(map(without, transition.effects)),
    )


def attempt_later(attempt: Attempt, seconds: int) -> Attempt:
    """The attempt with its times moved."""
    return replace(attempt, at=attempt.at + seconds, judge_at=attempt.judge_at + seconds)


def all_later(state: State, seconds: int) -> State:
    """The state with all its times moved, also those that only this policy remembers."""
    later = state_later(state, seconds, 0)
    return replace(later, memory=memory.moved(state.memory, lambda at: at + seconds))


@given(
    **RUNS,
    hours=st.integers(-1000, 100_000),
    start=st.none() | st.integers(T0 - 600, T0 + 10),
)
def test_another_hour_changes_only_the_stored_times_and_the_drawn_cooldown(
    state: State, status: Status, policy: GuardedPolicy, hours: int, start: int | None
) -> None:
    """Whole hours, because the last direct path is remembered to the hour."""
    shift = hours * HOUR
    here = undrawn(run(state, status, policy, start=start))
    there = undrawn(
        run(
            all_later(state, shift),
            status,
            policy,
            at=T0 + shift,
            start=None if start is None else start + shift,
        )
    )
    due = here.due and replace(here.due, at=here.due.at + shift)
    effects = tuple(
        Apply(attempt_later(effect.attempt, shift)) if isinstance(effect, Apply) else effect
        for effect in here.effects
    )
    moved = replace(here, state=all_later(here.state, shift), effects=effects, due=due)
    assert there == moved


@given(**RUNS)
def test_every_state_that_guarded_makes_is_read_back_unchanged(
    state: State, status: Status, policy: GuardedPolicy
) -> None:
    after = run(state, status, policy).state
    assert decode(encode(after)) == Success(after)


@given(**RUNS)
def test_the_documented_policy_leaves_what_guarded_remembers(
    state: State, status: Status, policy: GuardedPolicy
) -> None:
    documented = ThresholdPolicy(policy.max_relay_seconds, policy.cooldown_seconds)
    after = step(state, Observed(status), now=Instant(T0), policy=documented).state
    assert after.memory == state.memory


@given(**RUNS)
def test_counters_decide_nothing(state: State, status: Status, policy: GuardedPolicy) -> None:
    """So that histories may be compared without them."""
    blank = replace(
        state,
        detections=0,
        recoveries=0,
        restarts=0,
        restart_failures=0,
        memory=replace(state.memory, outcomes={}),
    )
    plain, counted = run(blank, status, policy), run(state, status, policy)
    assert (plain.effects, plain.verdicts, plain.due) == (
        counted.effects,
        counted.verdicts,
        counted.due,
    )


@given(**RUNS)
def test_what_is_due_comes_then_and_not_before(
    state: State, status: Status, policy: GuardedPolicy
) -> None:
    """If every peer stays on its path, no outcome is open, and records do not fade."""
    lasting = replace(policy, half_life_days=1e9)
    first = run(state, status, lasting)
    if first.due is None or restarts(first) or any(map(is_open, first.state.attempts)):
        return
    if first.due.at > T0 + 1:
        before = run(first.state, status, lasting, at=first.due.at - 1)
        assert not restarts(before)
    (effect,) = restarts(run(first.state, status, lasting, at=first.due.at))
    assert (effect.attempt.remedy, effect.attempt.peer) == (first.due.remedy, first.due.peer)


@given(record=st.none() | RECORDS, policy=GUARDED_POLICIES, others=st.lists(st.booleans()))
def test_a_remedy_that_did_not_help_is_worth_it_later(
    record: Record | None, policy: GuardedPolicy, others: list[bool]
) -> None:
    """One that helped is worth it sooner, or as soon."""
    policy = replace(policy, remedies=(Remedy.RESTART,))
    remembered = Memory({"a": PeerMemory(T0, {} if record is None else {Remedy.RESTART: record})})

    def worth_at(remembered: Memory) -> int:
        return guarded.outlook(remembered.peers["a"], Remedy.RESTART, T0, policy).worth_at

    half_life = int(policy.half_life_days * DAY_SECONDS)
    for has_helped in others:
        before = worth_at(remembered)
        trial = Trial("a", Remedy.RESTART, has_helped=has_helped)
        remembered = memory.with_trials(remembered, [trial], T0, half_life)
        after = worth_at(remembered)
        assert after <= before if has_helped else after >= before


DAYS = 400
LADDER = (Remedy.RESTART, Remedy.OTHER_PORT)


@pytest.mark.slow
@pytest.mark.parametrize("remedies", [LADDER[:1], LADDER])
@pytest.mark.parametrize(
    ("known_days", "times"),
    [
        pytest.param(7, 3, id="default"),
        pytest.param(DAYS, 4, id="known-for-ever"),
    ],
)
@pytest.mark.parametrize("is_idle_daily", [False, True])
def test_remedies_that_never_help_end(
    remedies: tuple[Remedy, ...], known_days: int, times: int, *, is_idle_daily: bool
) -> None:
    """A peer was direct once and then stays on relay; the gaps grow with each remedy.

    If it is idle once a day, its relay starts again each time.
    """
    policy = GuardedPolicy(remedies=remedies, known_direct_days=known_days)
    state = run(State(), decoded(peer("nas")), policy).state
    on_relay, idle = decoded(derp_peer("nas")), decoded(peer("nas", "idle"))
    at: dict[Remedy, list[int]] = {remedy: [T0] for remedy in remedies}
    for number in range(1, DAYS * 24):
        now = T0 + HOUR * number
        is_idle = is_idle_daily and number % 24 == 0
        transition = run(state, idle if is_idle else on_relay, policy, at=now)
        state = transition.state
        for effect in restarts(transition):
            at[effect.attempt.remedy].append(now)
            for event in (Asking(effect.attempt), Performed(effect.attempt, Done())):
                state = step(state, event, now=Instant(now), policy=policy).state
    for instants in at.values():
        gaps = [later - earlier for earlier, later in pairwise(instants)]
        assert 1 <= len(gaps) <= times
        assert gaps == sorted(set(gaps))


@pytest.mark.slow
def test_ports_that_always_make_it_worse_end() -> None:
    """`nas` is never cured, and `vps` is direct on the configured port only."""
    policy = GuardedPolicy(remedies=LADDER)
    state = run(State(), decoded(peer("nas"), peer("vps")), policy).state
    looks = {
        Remedy.RESTART: decoded(derp_peer("nas"), peer("vps")),
        Remedy.OTHER_PORT: decoded(derp_peer("nas"), derp_peer("vps")),
    }
    done: list[Remedy] = []
    last = T0
    for now in range(T0 + 300, T0 + 20 * DAY_SECONDS, 300):
        transition = run(state, looks[done[-1] if done else Remedy.RESTART], policy, at=now)
        state = transition.state
        for effect in restarts(transition):
            done.append(effect.attempt.remedy)
            last = now
            for event in (Asking(effect.attempt), Performed(effect.attempt, Done())):
                state = step(state, event, now=Instant(now), policy=policy).state
    assert done[:3] == [Remedy.RESTART, Remedy.OTHER_PORT, Remedy.RESTART]
    assert (Remedy.OTHER_PORT, Remedy.OTHER_PORT) not in pairwise(done)
    assert done[-1] is Remedy.RESTART
    assert len(done) <= 9
    assert last <= T0 + policy.known_direct_days * DAY_SECONDS
