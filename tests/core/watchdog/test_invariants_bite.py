"""The state machine finds every broken promise.

For each promise there is a version of `step` that breaks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.watchdog.effects import Apply, Log
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed, Unobservable
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.remedy import Attempt, Remedy, Stage
from tsfc.core.watchdog.state import State, pending, restart_at
from tsfc.core.watchdog.step import Transition, step
from tsfc.core.watchdog.track import Reason

from .machine import Tailnet
from .random_node import assert_found
from .worlds import STOPPED, Step, lines, restarts

Alteration = Callable[[State, Event, Transition], Transition]
"Changes a transition; also gets the state before and the event."


def with_policy(alter: Callable[[Policy], Policy]) -> Step:
    """Return a `step` with an altered policy that counts recoveries correctly."""

    def broken(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        right = step(state, event, now=now, policy=policy).state
        return with_state(
            step(state, event, now=now, policy=alter(policy)), recoveries=right.recoveries
        )

    return broken


def with_transition(alter: Alteration) -> Step:
    """Return a `step` with an altered transition."""

    def broken(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        return alter(state, event, step(state, event, now=now, policy=policy))

    return broken


def with_state(transition: Transition, **changes: Any) -> Transition:
    """Return the transition with other values in its state."""
    return replace(transition, state=replace(transition.state, **changes))


def with_effects(transition: Transition, *effects: Log | Apply) -> Transition:
    """Return the transition with more effects at its end."""
    return replace(transition, effects=(*transition.effects, *effects))


def restart(peer: str) -> Apply:
    """Return the effect of a restart because of a peer."""
    return Apply(Attempt(Remedy.RESTART, peer, 0, 0))


def without_pending(state: State) -> State:
    """Return the state with every attempt done, so that none is pending."""
    done = tuple(replace(attempt, stage=Stage.DONE) for attempt in state.attempts)
    return replace(state, attempts=done)


def is_unobserved(event: Event) -> bool:
    """Whether peers could not be observed."""
    return isinstance(event, Unobservable) or event == STOPPED


def unjudged(state: State, transition: Transition) -> list[str]:
    """Names of peers in the state that have no verdict."""
    return sorted(state.relays.keys() - {verdict.peer for verdict in transition.verdicts or ()})


def restarts_for_a_recovered_peer(_: State, _event: Event, transition: Transition) -> Transition:
    recovered = [
        verdict.peer for verdict in transition.verdicts or () if verdict.reason is Reason.RECOVERED
    ]
    return (
        with_effects(transition, restart(recovered[0]))
        if recovered and not restarts(transition)
        else transition
    )


def restarts_for_an_unwatched_peer(
    state: State, event: Event, transition: Transition
) -> Transition:
    unwatched = (
        unjudged(state, transition)
        if isinstance(event, Observed) and not is_unobserved(event)
        else []
    )
    return replace(transition, effects=(restart(unwatched[0]),)) if unwatched else transition


def restarts_for_the_last_by_name(_: State, _event: Event, transition: Transition) -> Transition:
    stuck = [
        verdict
        for verdict in transition.verdicts or ()
        if verdict.reason in {Reason.COOLDOWN, Reason.RESTART}
    ]
    if not restarts(transition):
        return transition
    return replace(
        transition,
        effects=(
            *transition.effects[:-1],
            restart(stuck[-1].peer),
        ),
    )


def reports_a_wrong_duration(_: State, _event: Event, transition: Transition) -> Transition:
    altered = [
        replace(verdict, relay_seconds=verdict.relay_seconds + 1)
        for verdict in transition.verdicts or ()
    ]
    return replace(transition, verdicts=tuple(altered)) if altered else transition


def restarts_twice(_: State, _event: Event, transition: Transition) -> Transition:
    return with_effects(transition, *restarts(transition))


def counts_no_restart(state: State, _event: Event, transition: Transition) -> Transition:
    return with_state(transition, restarts=state.restarts)


def counts_no_failure(state: State, _event: Event, transition: Transition) -> Transition:
    return with_state(transition, restart_failures=state.restart_failures)


def counts_no_recovery(state: State, _event: Event, transition: Transition) -> Transition:
    return with_state(transition, recoveries=state.recoveries)


def resets_detections_after_a_restart(_: State, event: Event, transition: Transition) -> Transition:
    return (
        with_state(transition, detections=0)
        if isinstance(event, Asking | Performed)
        else transition
    )


def counts_no_detection(state: State, _event: Event, transition: Transition) -> Transition:
    return with_state(transition, detections=state.detections)


def counts_offline_as_recovered(state: State, _event: Event, transition: Transition) -> Transition:
    return with_state(
        transition,
        recoveries=state.recoveries + len(state.relays.keys() - transition.state.relays.keys()),
    )


def forgets_peers_on_a_fault(_: State, event: Event, transition: Transition) -> Transition:
    return with_state(transition, relays={}) if is_unobserved(event) else transition


def starts_the_cooldown_on_a_fault(_: State, event: Event, transition: Transition) -> Transition:
    return (
        with_state(transition, attempts=(restart_at(transition.state.last_run.unix),))
        if is_unobserved(event) and transition.state.last_run
        else transition
    )


def restarts_on_a_fault(_: State, event: Event, transition: Transition) -> Transition:
    return with_effects(transition, restart("pi")) if is_unobserved(event) else transition


def logs_a_peer_on_a_fault(_: State, event: Event, transition: Transition) -> Transition:
    return (
        with_effects(transition, Log("WAITING: pi on relay for 1s (threshold: 600s)"))
        if is_unobserved(event)
        else transition
    )


def has_verdicts_on_a_fault(_: State, _event: Event, transition: Transition) -> Transition:
    return replace(transition, verdicts=transition.verdicts or ())


def succeeds_on_a_fault(_: State, event: Event, transition: Transition) -> Transition:
    return (
        with_state(transition, last_success=transition.state.last_run)
        if is_unobserved(event)
        else transition
    )


def never_sets_last_success(state: State, _event: Event, transition: Transition) -> Transition:
    return with_state(transition, last_success=state.last_success)


def keeps_unwatched_peers(state: State, _event: Event, transition: Transition) -> Transition:
    stale = {name: state.relays[name] for name in unjudged(state, transition)}
    return with_state(transition, relays={**stale, **transition.state.relays})


def logs_in_reverse_order(_: State, _event: Event, transition: Transition) -> Transition:
    return replace(transition, effects=transition.effects[::-1])


def logs_a_line_twice(_: State, _event: Event, transition: Transition) -> Transition:
    waiting = [
        effect
        for effect in transition.effects
        if isinstance(effect, Log) and effect.line.startswith("WAITING")
    ]
    return with_effects(transition, *waiting[-1:])


def logs_an_unwatched_peer(state: State, event: Event, transition: Transition) -> Transition:
    unwatched = unjudged(state, transition)
    log = (
        [
            Log(text)
            for text in sorted(
                [*lines(transition), f"WAITING: {unwatched[0]} is unwatched"],
                key=lambda text: text.split(": ")[1],
            )
        ]
        if unwatched
        else []
    )
    return (
        replace(transition, effects=(*log, *restarts(transition)))
        if unwatched and not is_unobserved(event)
        else transition
    )


def restarts_without_a_pending_attempt(
    _: State, _event: Event, transition: Transition
) -> Transition:
    return replace(transition, state=without_pending(transition.state))


def forgets_peers_after_a_restart(_: State, event: Event, transition: Transition) -> Transition:
    return (
        with_state(transition, relays={}) if isinstance(event, Asking | Performed) else transition
    )


def makes_a_state_that_cannot_be_stored(
    state: State, event: Event, transition: Transition
) -> Transition:
    return (
        with_state(transition, last_success=Instant(-1))
        if is_unobserved(event) and state.last_success is not None
        else transition
    )


def starts_the_cooldown_only_after_success(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    right = step(state, event, now=now, policy=policy)
    if state.restart_failures == 0 or is_unobserved(event) or isinstance(event, Asking | Performed):
        return right
    if pending(state) is not None:  # without it, the restart would not be counted either
        return right
    hasty = step(replace(state, attempts=()), event, now=now, policy=policy)
    if not restarts(hasty):
        return right
    attempts = (*state.attempts, *hasty.state.attempts)
    return with_state(hasty, recoveries=right.state.recoveries, attempts=attempts)


def trusts_a_stopped_tailscaled(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    running = (
        replace(event, status=replace(event.status, backend_state="Running"))
        if isinstance(event, Observed)
        else event
    )
    return step(state, running, now=now, policy=policy)


def loses_a_pending_restart(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    attempt = pending(state)
    is_lost = attempt is not None and attempt.stage is Stage.ASKED
    if is_lost and not isinstance(event, Performed):
        return step(without_pending(state), event, now=now, policy=policy)
    return step(state, event, now=now, policy=policy)


def ignores_clock_steps(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
    return step(state, event, now=Instant(now.unix), policy=policy)


def forgets(**fields: Any) -> Step:
    """Return a `step` that does not know these fields of the state when it decides."""

    def broken(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        if not isinstance(event, Asking | Performed):
            state = replace(state, **fields)
        return step(state, event, now=now, policy=policy)

    return broken


def ignores_other_boots(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
    seen = state.last_success
    if seen is not None and seen.boot is not None and now.boot is not None:
        here = replace(seen.boot, id=now.boot.id, monotonic=0, seconds=now.boot.seconds)
        awake = replace(now.boot, monotonic=0) if seen.boot.id != now.boot.id else now.boot
        if seen.boot.id != now.boot.id:
            state = replace(state, last_success=replace(seen, boot=here), last_run=None)
            now = replace(now, boot=awake)
    return step(state, event, now=now, policy=policy)


def ignores_suspends(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
    awake = now.boot and replace(now.boot, monotonic=now.boot.seconds)
    return step(state, event, now=replace(now, boot=awake), policy=policy)


def ignores_starts(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
    if isinstance(event, Observed):
        event = replace(event, tailscaled_start=None)
    return step(state, event, now=now, policy=policy)


def trusts_a_node_that_is_cut_off(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    if isinstance(event, Observed):
        own = replace(event.status.self_, online=True)
        event = replace(event, status=replace(event.status, self_=own))
    return step(state, event, now=now, policy=policy)


CAUSE = "the cause of a restart is "
CLOCK = (
    "relays have each peer on relay"
    "|without an observation, the relays stay as they are"
    "|without an observation, the cooldown stays as it is"
    "|each peer that recovers without a restart counts"
    "|no restart within the cooldown"
    "|" + CAUSE
)
"The promises about times. Which one breaks first depends on the history."

BROKEN = [
    pytest.param(forgets(blind_since=None), CLOCK, id="blind time ignored"),
    pytest.param(
        forgets(has_answered=True),
        "without an observation, only a restart that left tailscaled down is repeated",
        id="left down",
    ),
    pytest.param(ignores_other_boots, CLOCK, id="reboots ignored"),
    pytest.param(ignores_suspends, CLOCK, id="suspends ignored"),
    pytest.param(ignores_starts, CLOCK, id="starts of tailscaled ignored"),
    pytest.param(
        trusts_a_node_that_is_cut_off,
        "no restart while the control server is away",
        id="cut off, and trusted",
    ),
    pytest.param(
        with_policy(lambda policy: replace(policy, cooldown_seconds=0)),
        "no restart within the cooldown",
        id="cooldown ignored",
    ),
    pytest.param(
        with_policy(lambda policy: replace(policy, cooldown_seconds=policy.cooldown_seconds - 1)),
        "no restart within the cooldown",
        id="cooldown too short",
    ),
    pytest.param(
        starts_the_cooldown_only_after_success,
        "no restart within the cooldown",
        id="cooldown after success only",
    ),
    pytest.param(
        with_policy(lambda policy: replace(policy, excluded=frozenset())),
        CAUSE + "not excluded",
        id="exclusion ignored",
    ),
    pytest.param(
        with_policy(lambda policy: replace(policy, excluded=policy.excluded - {"cam"})),
        CAUSE + "not excluded",
        id="exclusion by full name only",
    ),
    pytest.param(
        with_policy(lambda policy: replace(policy, max_relay_seconds=policy.max_relay_seconds - 1)),
        CAUSE + "on relay for longer",
        id="threshold too low",
    ),
    pytest.param(
        with_transition(restarts_for_a_recovered_peer),
        CAUSE + "on relay in the same run|no restart within the cooldown",
        id="restart for a direct peer",
    ),
    pytest.param(
        with_transition(restarts_for_an_unwatched_peer),
        CAUSE + "watched and online|no restart within the cooldown",
        id="restart for an unwatched peer",
    ),
    pytest.param(
        with_transition(restarts_for_the_last_by_name),
        CAUSE + "the peer longest on relay, the first by name in a tie",
        id="restart for the wrong peer",
    ),
    pytest.param(
        with_transition(reports_a_wrong_duration),
        CAUSE + "on relay for as long as its verdict says",
        id="wrong duration",
    ),
    pytest.param(with_transition(restarts_twice), "a run restarts at most once", id="two restarts"),
    pytest.param(
        with_transition(counts_no_restart),
        "each restart that was done, or may have been done, is counted once",
        id="restarts lost",
    ),
    pytest.param(
        with_transition(counts_no_failure),
        "each failed restart is counted once",
        id="failures lost",
    ),
    pytest.param(
        with_transition(counts_no_recovery),
        "each peer that recovers without a restart counts one recovery",
        id="recoveries lost",
    ),
    pytest.param(
        with_transition(resets_detections_after_a_restart),
        "counters never decrease",
        id="detections reset to 0",
    ),
    pytest.param(
        with_transition(counts_no_detection),
        "each line DETECTED counts one detection",
        id="detections lost",
    ),
    pytest.param(
        with_transition(counts_offline_as_recovered),
        "each peer that recovers without a restart counts one recovery",
        id="offline counted as recovered",
    ),
    pytest.param(
        loses_a_pending_restart,
        "each restart that was done, or may have been done, is counted once",
        id="pending restart not counted",
    ),
    pytest.param(
        with_transition(forgets_peers_on_a_fault),
        "without an observation, the relays stay as they are",
        id="peers forgotten on a fault",
    ),
    pytest.param(
        with_transition(starts_the_cooldown_on_a_fault),
        "without an observation, the cooldown stays as it is",
        id="cooldown from a fault",
    ),
    pytest.param(
        with_transition(restarts_on_a_fault),
        "without an observation, only a restart that left tailscaled down is repeated",
        id="restart on a fault",
    ),
    pytest.param(
        with_transition(logs_a_peer_on_a_fault),
        "without an observation, no peer has a line",
        id="line on a fault",
    ),
    pytest.param(
        with_transition(has_verdicts_on_a_fault),
        "without an observation, no peer has a verdict",
        id="verdicts on a fault",
    ),
    pytest.param(
        with_transition(succeeds_on_a_fault),
        "without an observation, the run is not a success",
        id="success on a fault",
    ),
    pytest.param(
        trusts_a_stopped_tailscaled, "without an observation", id="stopped tailscaled trusted"
    ),
    pytest.param(
        with_transition(never_sets_last_success),
        "a run that observes peers sets last_success",
        id="success lost",
    ),
    pytest.param(
        with_transition(keeps_unwatched_peers),
        "relays have each peer on relay, with the time when it changed to relay",
        id="unwatched peer kept",
    ),
    pytest.param(ignores_clock_steps, CLOCK, id="clock steps ignored"),
    pytest.param(
        with_transition(logs_in_reverse_order),
        "the lines are sorted by name",
        id="lines out of order",
    ),
    pytest.param(
        with_transition(logs_a_line_twice), "each peer has at most one line", id="line repeated"
    ),
    pytest.param(
        with_transition(logs_an_unwatched_peer),
        "only watched peers have a line",
        id="line about an unwatched peer",
    ),
    pytest.param(
        with_transition(restarts_without_a_pending_attempt),
        "a restart is pending from the run that decides it",
        id="attempt not pending",
    ),
    pytest.param(
        with_transition(forgets_peers_after_a_restart),
        "an event of a restart changes only its attempt and its counters",
        id="peers forgotten after a restart",
    ),
    pytest.param(
        with_transition(makes_a_state_that_cannot_be_stored),
        "decoding an encoded state returns it unchanged",
        id="state that cannot be stored",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "promise"), BROKEN)
def test_a_broken_promise_is_found(broken: Step, promise: str) -> None:
    assert_found(Tailnet, broken, promise)
