"""The guarded policy agrees with a second statement of its rules in each small history.

Two peers, each seen direct, on relay, without evidence, or not at all, in each of seven
runs, and each remedy that follows done or failed: all of that, in several rhythms. The
histories are a tree; branches at which both sides remember the same are played once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from support.statuses import decoded, peer
from tsfc.core.clock import Instant
from tsfc.core.watchdog.events import Asking, Observed, Performed
from tsfc.core.watchdog.policy import GuardedPolicy
from tsfc.core.watchdog.remedy import Attempt, Done, Failed, Outcome, Remedy
from tsfc.core.watchdog.state import State, encode
from tsfc.core.watchdog.step import Transition, step
from tsfc.core.watchdog.track import Reason

from .guarded_rules import Answer, Book, Deed, Sights, answer, leads_back, tidy
from .worlds import T0, lines, restarts

PATHS = {"direct": "direct", "relay": "derp", "unknown": "idle"}
LOOKS = [
    (
        {"a": a, "b": b},
        Observed(
            decoded(*(peer(name, PATHS[s]) for name, s in (("a", a), ("b", b)) if s in PATHS)),
            T0 - 1000,
        ),
    )
    for a, b in product([*PATHS, "absent"], repeat=2)
]
"Everything that a run can see."
BOTH_DIRECT = LOOKS[0][1]
OUTCOMES: dict[str, Outcome] = {"pending": Done(), "unconfirmed": Failed("systemctl: no")}
"The outcomes of the command, by what is known then of the remedy."


class Chapter(NamedTuple):
    """What both sides remember after some histories, and one of these."""

    state: State = State()
    book: Book = Book({"a": (), "b": ()})
    story: tuple[str, ...] = ()
    is_even: bool = True
    "Every run so far saw the same of both peers."


def explored(policy: GuardedPolicy, rhythm: tuple[int, ...], *, are_known: bool) -> set[str]:
    """Compare both sides in every history of runs at these times.

    Returns the reasons of all verdicts. If `are_known`, both peers are direct in the
    first run. Of two histories that are mirror images, only one is played.
    """
    reasons: set[str] = set()
    frontier = [Chapter()]
    for number, at in enumerate(rhythm):
        reached: dict[bytes, Chapter] = {}
        for chapter, (sights, event) in product(frontier, LOOKS):
            is_other_start = number == 0 and are_known and event is not BOTH_DIRECT
            if is_other_start or (chapter.is_even and sights["a"] < sights["b"]):
                continue
            now = Instant(T0 + at)
            transition = step(chapter.state, event, now=now, policy=policy)
            book, expected = answer(chapter.book, sights, now.unix, policy)
            assert decided(transition) == expected, (*chapter.story, at, sights)
            reasons.update(reason for reason, _ in expected.verdicts.values())
            if number + 1 == len(rhythm):
                continue
            is_even = chapter.is_even and sights["a"] == sights["b"]
            for state, after, result in futures(transition, book, sights, policy):
                key = b"%d %r %b" % (is_even, after, encode(state))
                story = (*chapter.story, f"{at}: {' '.join(sights.values())} {result}")
                reached[key] = Chapter(state, after, story, is_even)
        frontier = list(reached.values())
    return reasons


def futures(
    transition: Transition, book: Book, sights: Sights, policy: GuardedPolicy
) -> Iterator[tuple[State, Book, str]]:
    """What both sides remember after a run, by the outcome of its remedy."""
    for effect, (result, outcome) in product(restarts(transition), OUTCOMES.items()):
        state, now = transition.state, Instant(effect.attempt.at)
        for event in (Asking(effect.attempt), Performed(effect.attempt, outcome)):
            state = step(state, event, now=now, policy=policy).state
        yield uncounted(state), tidy(with_deed(book, sights, effect.attempt, result)), result
    if not restarts(transition):
        yield uncounted(transition.state), tidy(book), ""


def decided(transition: Transition) -> Answer:
    """What `step` decided, in the words of the second statement."""
    attempts = [effect.attempt for effect in restarts(transition)]
    verdicts = {
        verdict.peer: (str(verdict.reason), verdict.relay_seconds)
        for verdict in transition.verdicts or ()
    }
    said = [" ".join(line.split(" ")[:2]) for line in lines(transition)]
    return Answer(verdicts, (attempts[0].peer, attempts[0].remedy) if attempts else None, said)


def with_deed(book: Book, sights: Sights, attempt: Attempt, result: str) -> Book:
    """The book with a remedy. Its cooldown is drawn: the rules say only from what range."""
    drawn = attempt.cooldown_seconds
    assert drawn is not None
    assert COOLDOWN <= drawn < COOLDOWN * 3 // 2
    has_trials = result == "pending" and not leads_back(book, attempt.peer)
    deed = Deed(
        attempt.at,
        drawn,
        attempt.remedy,
        attempt.peer,
        list(sights.values()).count("direct"),
        book.on_relay if has_trials else frozenset(),
        result,
        result == "pending",
    )
    return book._replace(deeds=(*book.deeds, deed))


def uncounted(state: State) -> State:
    """The state without counters, which no decision reads."""
    return replace(
        state,
        detections=0,
        recoveries=0,
        restarts=0,
        restart_failures=0,
        memory=replace(state.memory, outcomes={}),
    )


COOLDOWN = 300
POLICY = GuardedPolicy(max_relay_seconds=130, cooldown_seconds=COOLDOWN, discount=0.5, budget=1)
LADDER = replace(
    POLICY,
    max_relay_seconds=100,
    discount=0.05,
    remedies=(Remedy.RESTART, Remedy.OTHER_PORT),
    budget=6,
)
UNREACHED = {Reason.EXCLUDED, Reason.NEVER_DIRECT, Reason.HELD}
PORT = replace(LADDER, remedies=(Remedy.OTHER_PORT,))
BOTH_REMEDIES = replace(LADDER, remedies=(Remedy.OTHER_PORT, Remedy.RESTART))
DAYS = replace(
    POLICY, max_relay_seconds=100, discount=0.001, excluded=frozenset({"b"}), known_direct_days=1
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "rhythm", "are_known", "not_reached"),
    [
        pytest.param(
            POLICY,
            (0, 120, 240, 420, 540, 720, 900),
            False,
            {Reason.EXCLUDED, Reason.CONFIRMING},
            id="from-nothing",
        ),
        pytest.param(
            LADDER,
            (0, 10, 111, 161, 461, 611, 911),
            True,
            UNREACHED,
            id="ladder",
        ),
        pytest.param(
            PORT,
            (0, 10, 161, 461, 611, 911, 1061),
            True,
            {*UNREACHED, Reason.WAITING, Reason.CONFIRMING},
            id="other-port",
        ),
        pytest.param(
            BOTH_REMEDIES,
            (0, 10, 161, 171, 461, 631, 931),
            True,
            {*UNREACHED, Reason.CONFIRMING},
            id="a-port-that-helped",
        ),
        pytest.param(
            DAYS,
            (0, 150, 265, 2900, 3200, 86_500, 89_100),
            True,
            {Reason.WAITING, Reason.HELD},
            id="days",
        ),
    ],
)
def test_both_statements_agree_in_every_history_of_seven_runs(
    policy: GuardedPolicy, rhythm: tuple[int, ...], *, are_known: bool, not_reached: set[Reason]
) -> None:
    """The times are chosen so that every limit lies between two of them, or on one."""
    assert explored(policy, rhythm, are_known=are_known) == set(Reason) - not_reached
