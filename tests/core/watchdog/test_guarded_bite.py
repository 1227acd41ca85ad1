"""The state machine of the guarded policy finds every broken promise.

For each promise there is a version of `step` that breaks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.tailscale.status import PeerStatus, Status
from tsfc.core.watchdog.effects import Apply
from tsfc.core.watchdog.events import Event, Observed
from tsfc.core.watchdog.memory import Memory, PeerMemory
from tsfc.core.watchdog.policy import GuardedPolicy, Policy
from tsfc.core.watchdog.remedy import AttemptResult, Remedy, Stage
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import Transition, step
from tsfc.core.watchdog.track import DIRECT

from .guarded_machine import GuardedTailnet
from .random_node import assert_found
from .test_invariants_bite import (
    logs_a_line_twice,
    logs_in_reverse_order,
    makes_a_state_that_cannot_be_stored,
    restarts_on_a_fault,
    restarts_twice,
    with_state,
    with_transition,
)
from .worlds import T0, Step, restarts


def with_policy(**fields: Any) -> Step:
    """Return a `step` that has other options."""

    def broken(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        return step(state, event, now=now, policy=replace(policy, **fields))

    return broken


def with_options(alter: Callable[[GuardedPolicy], GuardedPolicy]) -> Step:
    """Return a `step` with altered options."""

    def broken(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        assert isinstance(policy, GuardedPolicy)
        return step(state, event, now=now, policy=alter(policy))

    return broken


def with_status(alter: Callable[[Status], Status]) -> Step:
    """Return a `step` that sees another status."""

    def broken(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        if isinstance(event, Observed):
            event = replace(event, status=alter(event.status))
        return step(state, event, now=now, policy=policy)

    return broken


def with_peers(alter: Callable[[PeerStatus], PeerStatus]) -> Step:
    """Return a `step` that sees other peers."""
    return with_status(
        lambda status: replace(
            status, peer={key: alter(peer) for key, peer in (status.peer or {}).items()}
        )
    )


def with_memory(alter: Callable[[Memory], Memory]) -> Step:
    """Return a `step` that remembers something else."""

    def broken(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        return step(replace(state, memory=alter(state.memory)), event, now=now, policy=policy)

    return broken


def with_one_remedy(broken: Step) -> Step:
    """Return a `step` that is only broken where no two remedies can take turns."""

    def maybe(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        is_one = isinstance(policy, GuardedPolicy) and len(policy.remedies) == 1
        return (broken if is_one else step)(state, event, now=now, policy=policy)

    return maybe


def as_if_well(status: Status) -> Status:
    return replace(status, self_=replace(status.self_, online=True))


def without_expiry(status: Status) -> Status:
    return replace(status, self_=replace(status.self_, key_expiry=None))


def without_health(status: Status) -> Status:
    return replace(status, health=())


def without_records(memory: Memory) -> Memory:
    peers = {key: replace(peer, records={}) for key, peer in memory.peers.items()}
    return replace(memory, peers=peers)


def without_streaks(memory: Memory) -> Memory:
    def peer(remembered: PeerMemory) -> PeerMemory:
        records = {
            remedy: replace(record, streak=0) for remedy, record in remembered.records.items()
        }
        return replace(remembered, records=records)

    return replace(memory, peers={key: peer(each) for key, each in memory.peers.items()})


def as_if_all_were_direct(memory: Memory) -> Memory:
    known = {key: PeerMemory(T0) for key in ("ncam", "nA", "nB", "nnas", "npi", "nrpi3")}
    return replace(memory, peers={**known, **memory.peers})


def as_if_tailscaled_started_earlier(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    has_failed = state.attempts and state.attempts[-1].stage is Stage.FAILED
    if isinstance(event, Observed) and event.tailscaled_start is not None and not has_failed:
        event = replace(event, tailscaled_start=event.tailscaled_start - 300)
    return step(state, event, now=now, policy=policy)


def as_if_all_had_helped(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
    helped = [
        attempt
        if attempt.result is AttemptResult.PENDING
        else replace(attempt, result=AttemptResult.HELPED)
        for attempt in state.attempts
    ]
    return step(replace(state, attempts=tuple(helped)), event, now=now, policy=policy)


def as_if_attempts_were_long_ago(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    if isinstance(event, Observed):
        earlier = tuple(replace(attempt, at=attempt.at - 1000) for attempt in state.attempts)
        state = replace(state, attempts=earlier)
    return step(state, event, now=now, policy=policy)


def as_if_blind_runs_were_well(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    transition = step(state, event, now=now, policy=policy)
    if transition.verdicts is not None:
        return transition
    after = replace(transition.state.memory, steady_since=state.memory.steady_since)
    return replace(transition, state=replace(transition.state, memory=after))


def as_if_relays_were_watched_longer(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    relays = {
        name: replace(relay, since=max(0, relay.since - 60)) for name, relay in state.relays.items()
    }
    patient = replace(policy, max_relay_seconds=policy.max_relay_seconds + 60)
    after = step(state, event, now=now, policy=policy).state
    transition = step(replace(state, relays=relays), event, now=now, policy=patient)
    return replace(transition, state=replace(transition.state, relays=after.relays))


def never_leads_back(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
    return step(as_if_no_port_was_worse(state), event, now=now, policy=policy)


def as_if_no_port_was_worse(state: State) -> State:
    attempts = tuple(
        replace(attempt, result=AttemptResult.NO_EFFECT)
        if attempt.result is AttemptResult.WORSE
        else attempt
        for attempt in state.attempts
    )
    return replace(state, attempts=attempts)


def leads_back_without_need(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    """As if every restart that made it worse had changed the port."""
    attempts = tuple(
        replace(attempt, remedy=Remedy.OTHER_PORT)
        if attempt.result is AttemptResult.WORSE
        else attempt
        for attempt in state.attempts
    )
    return step(replace(state, attempts=attempts), event, now=now, policy=policy)


def forgets_that_a_port_helped(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    transition = step(state, event, now=now, policy=policy)
    attempts = tuple(
        replace(attempt, is_undone=attempt.result is AttemptResult.HELPED)
        if attempt.remedy is Remedy.OTHER_PORT
        else attempt
        for attempt in transition.state.attempts
    )
    return replace(transition, state=replace(transition.state, attempts=attempts))


def forgets_which_command_failed(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    attempts = tuple(
        replace(attempt, stage=Stage.DECLINED) if attempt.stage is Stage.FAILED else attempt
        for attempt in state.attempts
    )
    transition = step(replace(state, attempts=attempts), event, now=now, policy=policy)
    if not restarts(transition) or attempts == state.attempts:
        return step(state, event, now=now, policy=policy)
    return transition


def as_if_no_failure_was_harmless(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    """The budget does not count these failures either."""
    attempts = tuple(
        replace(attempt, is_harmless=False, stage=Stage.DECLINED)
        if attempt.is_harmless
        else attempt
        for attempt in state.attempts
    )
    return step(replace(state, attempts=attempts), event, now=now, policy=policy)


def as_if_all_failures_were_harmless(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    attempts = tuple(
        replace(attempt, stage=Stage.DECLINED) if attempt.stage is Stage.FAILED else attempt
        for attempt in state.attempts
    )
    return step(replace(state, attempts=attempts), event, now=now, policy=policy)


def restarts_for_a_direct_peer(_: State, _event: Event, transition: Transition) -> Transition:
    direct = [verdict.peer for verdict in transition.verdicts or () if verdict.reason in DIRECT]
    if not restarts(transition) or not direct:
        return transition
    effects = [
        replace(effect, attempt=replace(effect.attempt, peer=direct[0]))
        if isinstance(effect, Apply)
        else effect
        for effect in transition.effects
    ]
    return replace(transition, effects=tuple(effects))


def forgets_relays(_: State, event: Event, transition: Transition) -> Transition:
    is_long = len(transition.state.relays) > 1 and isinstance(event, Observed)
    return with_state(transition, relays={}) if is_long else transition


def treats_idle_as_relay(peer: PeerStatus) -> PeerStatus:
    return replace(peer, active=True)


ALLOWED = "only a remedy that is allowed is applied"
ON_RELAY = "the cause of a remedy is seen on relay"
APART = "one experiment at a time: no remedy in the cooldown of another"
BUDGET = "no more remedies in a day than the budget"
LONGER = "each remedy that does not help makes the next one wait for longer"
WATCHED = "the cause of a remedy was watched for 150 s"
WELL = "no remedy before the node was well for 150 s"
CUT_OFF = f"no remedy while the node is cut off|{WELL}"
RELAYS = "relays have each peer on relay, with the time when it changed to relay"

BROKEN = [
    pytest.param(
        with_transition(makes_a_state_that_cannot_be_stored),
        "decoding an encoded state returns it unchanged",
        id="state that cannot be stored",
    ),
    pytest.param(
        with_transition(restarts_twice), "a run applies one remedy at most", id="two remedies"
    ),
    pytest.param(with_transition(forgets_relays), RELAYS, id="relays forgotten"),
    pytest.param(
        with_peers(treats_idle_as_relay), f"{ON_RELAY}|{RELAYS}", id="idle taken for relay"
    ),
    pytest.param(
        with_peers(lambda peer: replace(peer, os="linux")),
        f"{ON_RELAY}|{RELAYS}",
        id="phones judged",
    ),
    pytest.param(
        with_transition(logs_a_line_twice), "each peer has at most one line", id="line repeated"
    ),
    pytest.param(
        with_transition(logs_in_reverse_order),
        "the lines are in the order of the names",
        id="lines out of order",
    ),
    pytest.param(
        with_transition(restarts_on_a_fault),
        "without an observation, only a restart that left tailscaled down is repeated",
        id="remedy on a fault",
    ),
    pytest.param(with_policy(remedies=tuple(Remedy)), ALLOWED, id="remedies not allowed"),
    pytest.param(with_transition(restarts_for_a_direct_peer), ON_RELAY, id="remedy for nothing"),
    pytest.param(
        with_policy(excluded=frozenset()),
        "the cause of a remedy is not excluded",
        id="exclusion ignored",
    ),
    pytest.param(
        with_memory(as_if_all_were_direct),
        "the cause of a remedy was seen direct",
        id="never direct",
    ),
    pytest.param(
        with_policy(known_direct_days=30),
        "the cause of a remedy was seen direct lately",
        id="direct long ago",
    ),
    pytest.param(with_status(as_if_well), CUT_OFF, id="control ignored"),
    pytest.param(with_status(without_expiry), CUT_OFF, id="key ignored"),
    pytest.param(with_status(without_health), CUT_OFF, id="relay servers ignored"),
    pytest.param(
        as_if_tailscaled_started_earlier,
        f"no remedy in the first 5 minutes of tailscaled|{WELL}",
        id="start ignored",
    ),
    pytest.param(
        with_memory(lambda memory: replace(memory, steady_since=0)), WELL, id="not steady"
    ),
    pytest.param(as_if_blind_runs_were_well, WELL, id="blind taken for well"),
    pytest.param(as_if_relays_were_watched_longer, WATCHED, id="relay not watched"),
    pytest.param(with_policy(cooldown_seconds=0), APART, id="cooldown ignored"),
    pytest.param(as_if_attempts_were_long_ago, f"{APART}|{LONGER}", id="experiments cut short"),
    pytest.param(
        with_options(lambda policy: replace(policy, budget=policy.budget + 1)),
        BUDGET,
        id="budget exceeded",
    ),
    pytest.param(
        with_one_remedy(as_if_no_failure_was_harmless),
        "commands that fail in a row are tried ever more rarely",
        id="no backoff",
    ),
    pytest.param(with_one_remedy(as_if_all_failures_were_harmless), BUDGET, id="harm for free"),
    pytest.param(as_if_all_had_helped, BUDGET, id="budget counts nothing"),
    pytest.param(
        with_options(
            lambda policy: replace(policy, max_relay_seconds=policy.max_relay_seconds - 1)
        ),
        "the cause of a remedy is on relay for longer than the threshold",
        id="threshold too low",
    ),
    pytest.param(never_leads_back, "a port that made it worse is left at once", id="no way back"),
    pytest.param(leads_back_without_need, f"{LONGER}|{ALLOWED}", id="way back without need"),
    pytest.param(
        forgets_that_a_port_helped,
        "a port that helped is not given up for a restart",
        id="port given up",
    ),
    pytest.param(
        forgets_which_command_failed,
        "after a command that failed, another remedy that is worth it comes first",
        id="no turns",
    ),
    pytest.param(with_policy(discount=1.0), LONGER, id="no discount"),
    pytest.param(with_memory(without_records), LONGER, id="records forgotten"),
    pytest.param(with_memory(without_streaks), LONGER, id="streaks forgotten"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "promise"), BROKEN)
def test_a_broken_promise_is_found(broken: Step, promise: str) -> None:
    assert_found(GuardedTailnet, broken, promise)
