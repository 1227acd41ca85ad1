"""The table a second time, told from the other end: one peer's life, cut into spells, and the instants of the restarts.

Nothing here steps. A life is a list of sightings; runs that saw nothing are no sightings. A spell is a stretch of equal
sightings, and all that is said of a peer follows from when its spells began and when restarts were.
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

from .worlds import DOWN, T0, Remembered, lines, remembered, restarts, seen


class Sighting(NamedTuple):
    """One look at one peer."""

    at: int
    kind: str
    "direct, relay or away."


class Told(NamedTuple):
    """What is said of a peer in the run at an instant."""

    at: int
    text: str


class Restart(NamedTuple):
    """A restart, and the peer that it was for."""

    at: int
    peer: str


def spells(life: list[Sighting]) -> Iterator[tuple[str, list[int]]]:
    """Yields what a peer was, and the instants at which it was seen so, for each stretch of its life."""
    for kind, sightings in groupby(life, key=lambda sighting: sighting.kind):
        yield kind, [sighting.at for sighting in sightings]


def cooling(at: int, instants: list[int], cooldown: int) -> int:
    """Returns the seconds for which a restart before this instant still forbids another."""
    return max([earlier + cooldown - at for earlier in instants if earlier < at] + [0])


def biography(
    name: str, life: list[Sighting], done: list[Restart], policy: ThresholdPolicy
) -> tuple[list[Told], int, int | None]:
    """Returns all that is said of a peer, how often it recovered by itself, and since when it is on relay at the end."""
    instants = [restart.at for restart in done]
    told: list[Told] = []
    recoveries, start = 0, None
    for kind, times in spells(life):
        if kind == "direct" and start is not None:
            told.append(Told(times[0], f"RECOVERED: {name} back to direct"))
            recoveries += not any(
                start <= at < times[0] < at + policy.cooldown_seconds for at in instants
            )
        start = times[0] if kind == "relay" else None
        if kind == "relay":
            told.append(Told(times[0], f"DETECTED: {name} transitioned to relay"))
            told += [
                Told(at, relayed_for(name, at, at - times[0], done, policy)) for at in times[1:]
            ]
    return told, recoveries, start


def relayed_for(
    name: str, at: int, seconds: int, done: list[Restart], policy: ThresholdPolicy
) -> str:
    """Returns what is said of a peer that is still on relay."""
    if seconds <= policy.max_relay_seconds:
        return f"WAITING: {name} on relay for {seconds}s (threshold: {policy.max_relay_seconds}s)"
    if name in policy.excluded:
        return f"EXCLUDED: {name} on relay for {seconds}s, excluded from restarts"
    if Restart(at, name) in done:
        return f"RESTART: {name} on relay for {seconds}s, restarting tailscaled"
    is_for_another = any(restart.at == at for restart in done)
    remaining = (
        policy.cooldown_seconds
        if is_for_another
        else cooling(at, [restart.at for restart in done], policy.cooldown_seconds)
    )
    return f"COOLDOWN: {name} exceeded threshold but in cooldown ({remaining}s remaining)"


def due(
    lives: dict[str, list[Sighting]], at: int, earlier: list[int], policy: ThresholdPolicy
) -> str | None:
    """Returns the peer for which tailscaled is to be restarted at this instant, after these restarts."""
    if cooling(at, earlier, policy.cooldown_seconds):
        return None
    begins: dict[str, int] = {}
    for name in lives.keys() - policy.excluded:
        *_, (kind, times) = [
            ("away", [at]),
            *spells([sighting for sighting in lives[name] if sighting.at <= at]),
        ]
        if kind == "relay" and times[-1] == at and at - times[0] > policy.max_relay_seconds:
            begins[name] = times[0]
    return min(begins, key=lambda name: (begins[name], name), default=None)


class Run(NamedTuple):
    """One run: how long after the one before it, whether it saw anything, and what came of a restart."""

    after: int
    sees: bool
    outcome: Outcome | None


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
    """The lines, the counters, the restarts and what is remembered are those of the table as it is told here."""
    state, at = State(), T0
    told: dict[int, list[str]] = {}
    done: list[Restart] = []
    outcomes: list[Outcome | None] = []
    lives: dict[str, list[Sighting]] = {name: [] for name in NAMES}
    for index, run in enumerate(history):
        at += run.after
        event = (
            seen(*(peer(name, KINDS[kinds[name][index]]) for name in NAMES)) if run.sees else DOWN
        )
        if run.sees:
            lives = {
                name: [*life, Sighting(at, kinds[name][index])] for name, life in lives.items()
            }
        transition = step(state, event, now=Instant(at), policy=policy)
        told[at] = list(lines(transition))
        state = transition.state
        for effect in restarts(transition):
            done.append(Restart(at, effect.attempt.peer))
            outcomes.append(run.outcome)
            for sent in (Asking(effect.attempt), Performed(effect.attempt, run.outcome or Done())):
                if isinstance(sent, Asking) or run.outcome is not None:
                    state = step(state, sent, now=Instant(at), policy=policy).state

    biographies = {name: biography(name, life, done, policy) for name, life in lives.items()}
    expected = {
        instant: [text for name in NAMES for when, text in biographies[name][0] if when == instant]
        for instant in told
    }
    assert told == expected
    causes = [
        (
            instant,
            due(lives, instant, [restart.at for restart in done if restart.at < instant], policy),
        )
        for instant in told
    ]
    assert done == [Restart(instant, cause) for instant, cause in causes if cause is not None]
    failures = sum(isinstance(outcome, Failed) for outcome in outcomes)
    settled = step(state, DOWN, now=Instant(at), policy=policy).state
    assert replace(remembered(settled), last_run=None, last_success=None) == Remembered(
        relay_since={
            name: since for name, (_, _, since) in biographies.items() if since is not None
        },
        last_restart=done[-1].at if done else None,
        restarts=len(outcomes) - failures,
        restart_failures=failures,
        detections=sum("DETECTED" in text for texts in expected.values() for text in texts),
        recoveries=sum(recoveries for _, recoveries, _ in biographies.values()),
    )
