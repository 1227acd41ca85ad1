"""A second implementation of the policy's table, which `step` must agree with.

The reference is not a state machine. It looks back at the whole life of each peer: a
list of sightings, one for each run that observed peers. A spell is a series of equal
sightings. The lines about a peer follow from the start of its spells and from the times
of the restarts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from support.statuses import peer
from tsfc.core.clock import Instant
from tsfc.core.watchdog.events import Asking, Performed
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.remedy import Done, Failed, Outcome
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import step

from .worlds import DOWN, STOPPED, T0, Summary, lines, observation, restarts, summarize


class Sighting(NamedTuple):
    """Observation of one peer in one run."""

    at: int
    kind: str
    "`direct`, `relay`, or `away`: not watched, or not without a break until now."


class Line(NamedTuple):
    """Log line about a peer, and the time of its run."""

    at: int
    text: str


class Restart(NamedTuple):
    """Time of a restart, and the peer that caused it."""

    at: int
    peer: str


def spells(life: list[Sighting]) -> Iterator[tuple[str, list[int]]]:
    """Yield the kind and the times of each spell of a peer."""
    for kind, sightings in groupby(life, key=lambda sighting: sighting.kind):
        yield kind, [sighting.at for sighting in sightings]


def cooldown_left(at: int, instants: list[int], cooldown: int) -> int:
    """Seconds until the cooldown of all restarts before `at` is over."""
    return max([earlier + cooldown - at for earlier in instants if earlier < at] + [0])


def biography(
    name: str, life: list[Sighting], all_restarts: list[Restart], policy: ThresholdPolicy
) -> tuple[list[Line], int, int | None]:
    """Return the lines about a peer, its recoveries, and when its relay began.

    A recovery counts unless a restart caused it. The last value is None if the peer is
    not on relay at the end.
    """
    instants = [restart.at for restart in all_restarts]
    log: list[Line] = []
    recoveries, start = 0, None
    for kind, times in spells(life):
        if kind == "direct" and start is not None:
            log.append(Line(times[0], f"RECOVERED: {name} back to direct"))
            recoveries += not any(
                start <= at < times[0] < at + policy.cooldown_seconds for at in instants
            )
        start = times[0] if kind == "relay" else None
        if kind == "relay":
            log.append(Line(times[0], f"DETECTED: {name} transitioned to relay"))
            log += [
                Line(at, relay_line(name, at, at - times[0], all_restarts, policy))
                for at in times[1:]
            ]
    return log, recoveries, start


def relay_line(
    name: str, at: int, seconds: int, all_restarts: list[Restart], policy: ThresholdPolicy
) -> str:
    """Log line about a peer that is on relay for a second run or longer."""
    if seconds <= policy.max_relay_seconds:
        return f"WAITING: {name} on relay for {seconds}s (threshold: {policy.max_relay_seconds}s)"
    if name in policy.excluded:
        return f"EXCLUDED: {name} on relay for {seconds}s, excluded from restarts"
    if Restart(at, name) in all_restarts:
        return f"RESTART: {name} on relay for {seconds}s, restarting tailscaled"
    is_for_another = any(restart.at == at for restart in all_restarts)
    remaining = (
        policy.cooldown_seconds
        if is_for_another
        else cooldown_left(at, [restart.at for restart in all_restarts], policy.cooldown_seconds)
    )
    return f"COOLDOWN: {name} exceeded threshold but in cooldown ({remaining}s remaining)"


def due(
    lives: dict[str, list[Sighting]], at: int, earlier: list[int], policy: ThresholdPolicy
) -> str | None:
    """Peer that causes a restart at this time, after the earlier restarts."""
    if cooldown_left(at, earlier, policy.cooldown_seconds):
        return None
    starts: dict[str, int] = {}
    for name in lives.keys() - policy.excluded:
        *_, (kind, times) = [
            ("away", [at]),
            *spells([sighting for sighting in lives[name] if sighting.at <= at]),
        ]
        if kind == "relay" and times[-1] == at and at - times[0] > policy.max_relay_seconds:
            starts[name] = times[0]
    return min(starts, key=lambda name: (starts[name], name), default=None)


def left_down(
    at: int, all_restarts: list[Restart], observed_at: list[int], policy: ThresholdPolicy
) -> Restart | None:
    """Last restart before `at`, if tailscaled has not answered since and it is time."""
    earlier = [restart for restart in all_restarts if restart.at < at]
    if not earlier or any(earlier[-1].at < instant < at for instant in observed_at):
        return None
    cooldown = cooldown_left(at, [restart.at for restart in earlier], policy.cooldown_seconds)
    return None if cooldown else earlier[-1]


class Run(NamedTuple):
    """One run of the watchdog."""

    after: int
    "Seconds since the previous run."
    observes: bool
    "Whether it observes peers."
    outcome: Outcome | None
    "Outcome of a restart; None if the run was killed before it."


NAMES = ["a", "b", "c"]
RUNS = 24
KINDS = {"direct": "direct", "relay": "derp", "away": "offline"}
STRETCHES = st.lists(
    st.tuples(st.sampled_from([*KINDS, "relay"]), st.integers(1, 12)), min_size=RUNS, max_size=RUNS
)
LIVES = STRETCHES.map(
    lambda stretches: [kind for kind, length in stretches for _ in range(length)][:RUNS]
)
HISTORIES = st.lists(
    st.builds(
        Run,
        st.sampled_from([60, 60, 1, 59, 61, 299, 300, 301, 599, 600, 601]),
        st.sampled_from([True, True, True, True, False]),
        st.sampled_from([Done(), Done(), Failed("systemctl: no"), None]),
    ),
    min_size=RUNS,
    max_size=RUNS,
)
POLICIES = st.builds(
    ThresholdPolicy,
    max_relay_seconds=st.sampled_from([0, 60, 600]),
    cooldown_seconds=st.sampled_from([0, 60, 600, 1200]),
    excluded=st.frozensets(st.sampled_from(NAMES), max_size=1),
)


@pytest.mark.slow
@settings(max_examples=300)
@given(history=HISTORIES, kinds=st.fixed_dictionaries(dict.fromkeys(NAMES, LIVES)), policy=POLICIES)
def test_step_agrees_with_the_reference(
    history: list[Run], kinds: dict[str, list[str]], policy: ThresholdPolicy
) -> None:
    """Lines, counters, restarts and the stored times are the same."""
    state, at = State(), T0
    observed_at: list[int] = []
    blind_since: int | None = None
    log: dict[int, list[str]] = {}
    all_restarts: list[Restart] = []
    outcomes: list[Outcome | None] = []
    lives: dict[str, list[Sighting]] = {name: [] for name in NAMES}

    # Play the history with `step`, and record sightings, lines and restarts.
    for index, run in enumerate(history):
        at += run.after
        event = (
            observation(*(peer(name, KINDS[kinds[name][index]]) for name in NAMES))
            if run.observes
            else DOWN
        )
        if run.observes:
            has_break = bool(observed_at) and blind_since is not None and at - blind_since > 300
            lives = {
                name: [
                    *life,
                    *([Sighting(at, "away")] if has_break else []),
                    Sighting(at, kinds[name][index]),
                ]
                for name, life in lives.items()
            }
            observed_at.append(at)
            blind_since = None
        elif blind_since is None:
            blind_since = at
        transition = step(state, event, now=Instant(at), policy=policy)
        log[at] = list(lines(transition))
        state = transition.state
        for effect in restarts(transition):
            all_restarts.append(Restart(at, effect.attempt.peer))
            outcomes.append(run.outcome)
            for event_of_restart in (
                Asking(effect.attempt),
                Performed(effect.attempt, run.outcome or Done()),
            ):
                if isinstance(event_of_restart, Asking) or run.outcome is not None:
                    state = step(state, event_of_restart, now=Instant(at), policy=policy).state

    # The lines are those of the reference.
    biographies = {
        name: biography(name, life, all_restarts, policy) for name, life in lives.items()
    }
    expected = {
        instant: [text for name in NAMES for when, text in biographies[name][0] if when == instant]
        for instant in log
    }
    repeated = {
        instant: restart
        for instant in log
        if instant not in observed_at
        and (restart := left_down(instant, all_restarts, observed_at, policy)) is not None
    }
    for instant, restart in repeated.items():
        expected[instant].append(
            f"RESTART: tailscaled down since the restart {instant - restart.at}s ago, "
            "restarting tailscaled"
        )
    assert log == expected

    # The restarts as well.
    causes = [
        (
            instant,
            repeated[instant].peer
            if instant in repeated
            else due(
                lives,
                instant,
                [restart.at for restart in all_restarts if restart.at < instant],
                policy,
            ),
        )
        for instant in log
    ]
    assert all_restarts == [
        Restart(instant, cause) for instant, cause in causes if cause is not None
    ]

    # And the state, once a pending restart is settled.
    failures = sum(isinstance(outcome, Failed) for outcome in outcomes)
    settled = step(state, STOPPED, now=Instant(at), policy=policy).state
    assert replace(summarize(settled), last_run=None, last_success=None) == Summary(
        relay_since={
            name: since for name, (_, _, since) in biographies.items() if since is not None
        },
        last_restart=all_restarts[-1].at if all_restarts else None,
        restarts=len(outcomes) - failures,
        restart_failures=failures,
        detections=sum("DETECTED" in text for texts in expected.values() for text in texts),
        recoveries=sum(recoveries for _, recoveries, _ in biographies.values()),
    )
