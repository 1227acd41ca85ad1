"""Each promise can be broken: for each there is a `step` that breaks it, and the machine finds out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
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
from .worlds import STOPPED, Step, lines, restarts

Alteration = Callable[[State, Event, Transition], Transition]
"What is made, after `step` decided, of its decision; from the state before, the event and the decision."


def with_policy(alter: Callable[[Policy], Policy]) -> Step:
    """Returns a `step` that restarts by another policy than it was given, and counts recoveries by the one it was given."""

    def broken(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        right = step(state, event, now=now, policy=policy).state
        return with_state(
            step(state, event, now=now, policy=alter(policy)), recoveries=right.recoveries
        )

    return broken


def then(alter: Alteration) -> Step:
    """Returns a `step` that spoils what it decided."""

    def broken(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
        return alter(state, event, step(state, event, now=now, policy=policy))

    return broken


def with_state(transition: Transition, **changes: Any) -> Transition:
    """Returns the transition to a state that differs in this."""
    return replace(transition, state=replace(transition.state, **changes))


def with_effects(transition: Transition, *effects: Log | Apply) -> Transition:
    """Returns the transition with these effects behind its own."""
    return replace(transition, effects=(*transition.effects, *effects))


def restart(peer: str) -> Apply:
    """A restart because of a peer."""
    return Apply(Attempt(Remedy.RESTART, peer, 0, 0))


def noted(state: State) -> State:
    """The state in which no attempt is pending."""
    done = tuple(replace(attempt, stage=Stage.DONE) for attempt in state.attempts)
    return replace(state, attempts=done)


def is_blind(event: Event) -> bool:
    """Reports whether nothing could be seen."""
    return isinstance(event, Unobservable) or event == STOPPED


def not_judged(state: State, transition: Transition) -> list[str]:
    """Returns the names that are remembered, and of whom there is no verdict."""
    return sorted(
        state.relay_since.keys() - {verdict.peer for verdict in transition.verdicts or ()}
    )


def restarts_for_who_was_on_relay(_: State, _event: Event, transition: Transition) -> Transition:
    recovered = [
        verdict.peer for verdict in transition.verdicts or () if verdict.reason is Reason.RECOVERED
    ]
    return (
        with_effects(transition, restart(recovered[0]))
        if recovered and not restarts(transition)
        else transition
    )


def restarts_for_who_is_away(state: State, event: Event, transition: Transition) -> Transition:
    gone = (
        not_judged(state, transition) if isinstance(event, Observed) and not is_blind(event) else []
    )
    return replace(transition, effects=(restart(gone[0]),)) if gone else transition


def restarts_for_any_that_is_stuck(_: State, _event: Event, transition: Transition) -> Transition:
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


def says_another_number(_: State, _event: Event, transition: Transition) -> Transition:
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


def begins_anew_after_a_restart(_: State, event: Event, transition: Transition) -> Transition:
    return (
        with_state(transition, detections=0)
        if isinstance(event, Asking | Performed)
        else transition
    )


def detects_without_counting(state: State, _event: Event, transition: Transition) -> Transition:
    return with_state(transition, detections=state.detections)


def counts_offline_as_recovered(state: State, _event: Event, transition: Transition) -> Transition:
    return with_state(
        transition,
        recoveries=state.recoveries
        + len(state.relay_since.keys() - transition.state.relay_since.keys()),
    )


def forgets_on_a_fault(_: State, event: Event, transition: Transition) -> Transition:
    return with_state(transition, relay_since={}) if is_blind(event) else transition


def cools_down_from_a_fault(_: State, event: Event, transition: Transition) -> Transition:
    return (
        with_state(transition, attempts=(restart_at(transition.state.last_run.unix),))
        if is_blind(event) and transition.state.last_run
        else transition
    )


def restarts_a_daemon_that_is_down(_: State, event: Event, transition: Transition) -> Transition:
    return with_effects(transition, restart("pi")) if is_blind(event) else transition


def talks_in_the_dark(_: State, event: Event, transition: Transition) -> Transition:
    return (
        with_effects(transition, Log("WAITING: pi on relay for 1s (threshold: 600s)"))
        if is_blind(event)
        else transition
    )


def judges_in_the_dark(_: State, _event: Event, transition: Transition) -> Transition:
    return replace(transition, verdicts=transition.verdicts or ())


def looks_alive_when_tailscaled_is_dead(
    _: State, event: Event, transition: Transition
) -> Transition:
    return (
        with_state(
            transition, last_success=transition.state.last_run and transition.state.last_run.unix
        )
        if is_blind(event)
        else transition
    )


def never_sees_its_success(state: State, _event: Event, transition: Transition) -> Transition:
    return with_state(transition, last_success=state.last_success)


def remembers_who_went_away(state: State, _event: Event, transition: Transition) -> Transition:
    kept = {name: state.relay_since[name] for name in not_judged(state, transition)}
    return with_state(transition, relay_since={**kept, **transition.state.relay_since})


def talks_in_any_order(_: State, _event: Event, transition: Transition) -> Transition:
    return replace(transition, effects=transition.effects[::-1])


def says_it_twice(_: State, _event: Event, transition: Transition) -> Transition:
    waiting = [
        effect
        for effect in transition.effects
        if isinstance(effect, Log) and effect.line.startswith("WAITING")
    ]
    return with_effects(transition, *waiting[-1:])


def talks_of_who_is_away(state: State, event: Event, transition: Transition) -> Transition:
    gone = not_judged(state, transition)
    said = (
        [
            Log(text)
            for text in sorted(
                [*lines(transition), f"WAITING: {gone[0]} is gone"],
                key=lambda text: text.split(": ")[1],
            )
        ]
        if gone
        else []
    )
    return (
        replace(transition, effects=(*said, *restarts(transition)))
        if gone and not is_blind(event)
        else transition
    )


def restarts_without_a_note(_: State, _event: Event, transition: Transition) -> Transition:
    return replace(transition, state=noted(transition.state))


def forgets_everybody_after_a_restart(_: State, event: Event, transition: Transition) -> Transition:
    return (
        with_state(transition, relay_since={})
        if isinstance(event, Asking | Performed)
        else transition
    )


def keeps_what_no_file_holds(state: State, event: Event, transition: Transition) -> Transition:
    return (
        with_state(transition, last_success=-1)
        if is_blind(event) and state.last_success is not None
        else transition
    )


def cools_down_only_after_success(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    right = step(state, event, now=now, policy=policy)
    if state.restart_failures == 0 or is_blind(event) or isinstance(event, Asking | Performed):
        return right
    hasty = step(replace(state, attempts=()), event, now=now, policy=policy)
    return with_state(hasty, recoveries=right.state.recoveries) if restarts(hasty) else right


def believes_a_stopped_tailscaled(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    believed = (
        replace(event, status=replace(event.status, backend_state="Running"))
        if isinstance(event, Observed)
        else event
    )
    return step(state, believed, now=now, policy=policy)


def loses_the_restart_of_a_run_that_died(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    unsettled = pending(state)
    is_lost = unsettled is not None and unsettled.stage is Stage.ASKED
    if is_lost and not isinstance(event, Performed):
        return step(noted(state), event, now=now, policy=policy)
    return step(state, event, now=now, policy=policy)


def does_not_mind_the_clock(
    state: State, event: Event, *, now: Instant, policy: Policy
) -> Transition:
    return step(state, event, now=Instant(now.unix), policy=policy)


CAUSE = "the cause of a restart is "
CLOCK = (
    "remembered is who|no observation changes no peer|no observation begins or ends|a recovery is counted|no restart within the cooldown|"
    + CAUSE
)
"Whichever comes first: all that is about instants."

BROKEN: dict[str, tuple[Step, str]] = {
    "cooldown ignored": (
        with_policy(lambda policy: replace(policy, cooldown_seconds=0)),
        "no restart within the cooldown",
    ),
    "cooldown too short": (
        with_policy(lambda policy: replace(policy, cooldown_seconds=policy.cooldown_seconds - 1)),
        "no restart within the cooldown",
    ),
    "cooldown after success only": (
        cools_down_only_after_success,
        "no restart within the cooldown",
    ),
    "exclusion ignored": (
        with_policy(lambda policy: replace(policy, excluded=frozenset())),
        CAUSE + "not excluded",
    ),
    "exclusion by full name only": (
        with_policy(lambda policy: replace(policy, excluded=policy.excluded - {"cam"})),
        CAUSE + "not excluded",
    ),
    "threshold too low": (
        with_policy(lambda policy: replace(policy, max_relay_seconds=policy.max_relay_seconds - 1)),
        CAUSE + "on relay for longer",
    ),
    "restart for one that is direct": (
        then(restarts_for_who_was_on_relay),
        CAUSE + "on relay at that very instant|no restart within the cooldown",
    ),
    "restart for one that is away": (
        then(restarts_for_who_is_away),
        CAUSE + "watched and online|no restart within the cooldown",
    ),
    "restart for the wrong one": (
        then(restarts_for_any_that_is_stuck),
        CAUSE + "the longest on relay, and of equals the first by name",
    ),
    "wrong duration": (then(says_another_number), CAUSE + "on relay for as long as is said"),
    "two restarts": (then(restarts_twice), "one restart at most"),
    "restarts lost": (
        then(counts_no_restart),
        "each restart that was done, or may have been, is counted once",
    ),
    "failures lost": (then(counts_no_failure), "each restart that failed is counted once"),
    "recoveries lost": (
        then(counts_no_recovery),
        "a recovery is counted for each peer that is back by itself",
    ),
    "detections reset": (then(begins_anew_after_a_restart), "counters never go down"),
    "detections lost": (then(detects_without_counting), "a detection is counted for each DETECTED"),
    "offline counted as recovered": (
        then(counts_offline_as_recovered),
        "a recovery is counted for each peer that is back by itself",
    ),
    "pending restart lost": (
        loses_the_restart_of_a_run_that_died,
        "each restart that was done, or may have been, is counted once",
    ),
    "peers forgotten on a fault": (then(forgets_on_a_fault), "no observation changes no peer"),
    "cooldown from a fault": (
        then(cools_down_from_a_fault),
        "no observation begins or ends no cooldown",
    ),
    "restart on a fault": (then(restarts_a_daemon_that_is_down), "no observation restarts nothing"),
    "line on a fault": (then(talks_in_the_dark), "no observation says nothing of a peer"),
    "verdicts on a fault": (then(judges_in_the_dark), "no observation judges no peer"),
    "success on a fault": (
        then(looks_alive_when_tailscaled_is_dead),
        "no observation is no success",
    ),
    "stopped tailscaled believed": (believes_a_stopped_tailscaled, "no observation"),
    "success lost": (then(never_sees_its_success), "a run that saw the peers is a success"),
    "start remembered for who went away": (
        then(remembers_who_went_away),
        "remembered is who is on relay, and since when without a gap",
    ),
    "clock steps ignored": (
        does_not_mind_the_clock,
        CLOCK,
    ),
    "lines out of order": (then(talks_in_any_order), "in the order of the names"),
    "a line twice": (then(says_it_twice), "one line at most for each peer"),
    "a line of who is away": (then(talks_of_who_is_away), "nothing is said of who is not watched"),
    "restart not noted": (
        then(restarts_without_a_note),
        "a restart is pending from when it is asked for",
    ),
    "peers forgotten after a restart": (
        then(forgets_everybody_after_a_restart),
        "an outcome changes nothing but what is known of the restart",
    ),
    "state that no file holds": (
        then(keeps_what_no_file_holds),
        "the state comes back from its files as it was",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "promise"), BROKEN.values(), ids=BROKEN)
def test_a_broken_promise_is_found(broken: Step, promise: str) -> None:
    """The machine that runs this `step` fails, and for this reason."""
    machine = type("Broken", (Tailnet,), {"decide": staticmethod(broken)})
    until_found = settings(
        max_examples=1000,
        stateful_step_count=40,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError, match=promise):
        run_state_machine_as_test(machine, settings=until_found)
