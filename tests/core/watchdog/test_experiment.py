"""Attempts are judged by what became of the peers that were on relay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tsfc.core.watchdog.experiment import (
    LATE_SECONDS,
    Judgement,
    Seen,
    Trial,
    is_open,
    judge,
    peers_of,
)
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy, Stage
from tsfc.core.watchdog.sight import Sight

AT = 1000
JUDGE_AT = 1300
ATTEMPT = Attempt(
    Remedy.RESTART,
    "nas",
    AT,
    JUDGE_AT,
    Stage.DONE,
    peer_id="nN",
    direct_peers=2,
    subjects=("nN", "nB"),
)
DIRECT, RELAY, UNKNOWN = Sight.DIRECT, Sight.RELAY, Sight.UNKNOWN
HELPED, NO_EFFECT = AttemptResult.HELPED, AttemptResult.NO_EFFECT


def _judged(
    sights: dict[str, Sight],
    at: int,
    attempt: Attempt = ATTEMPT,
    *,
    direct_peers: int = 2,
    since: int = AT + 1,
) -> Judgement:
    relay_since = {peer: since for peer, sight in sights.items() if sight is RELAY}
    return judge((attempt,), Seen(at, sights, relay_since, direct_peers))


def test_a_peer_that_is_direct_in_time_was_helped() -> None:
    """The outcome for the other one stays open."""
    (after,) = _judged({"nN": DIRECT, "nB": RELAY}, AT + 12).attempts
    assert after == replace(ATTEMPT, result=HELPED, subjects=("nB",))
    assert is_open(after)


def test_before_its_time_nothing_is_said_of_a_peer_on_relay() -> None:
    assert _judged({"nN": RELAY, "nB": RELAY}, JUDGE_AT - 1) == Judgement((ATTEMPT,))


@pytest.mark.parametrize("at", [JUDGE_AT, JUDGE_AT + LATE_SECONDS])
def test_a_peer_on_relay_at_its_time_was_not_helped(at: int) -> None:
    judged = _judged({"nN": RELAY, "nB": DIRECT}, at)
    after = replace(ATTEMPT, result=NO_EFFECT, subjects=())
    trials = (
        Trial("nB", Remedy.RESTART, has_helped=True),
        Trial("nN", Remedy.RESTART, has_helped=False),
    )
    assert judged == Judgement((after,), (after,), trials)
    assert not is_open(after)


@pytest.mark.parametrize(
    ("sight", "direct_peers", "result"),
    [
        pytest.param(RELAY, 1, AttemptResult.WORSE, id="fewer-are-direct"),
        pytest.param(RELAY, 3, NO_EFFECT, id="more-are-direct"),
        pytest.param(UNKNOWN, 1, AttemptResult.UNCONFIRMED, id="no-evidence"),
        pytest.param(None, 1, AttemptResult.UNCONFIRMED, id="gone"),
        pytest.param(DIRECT, 1, HELPED, id="direct"),
    ],
)
def test_the_result_is_that_of_the_cause(
    sight: Sight | None, direct_peers: int, result: AttemptResult
) -> None:
    sights = {} if sight is None else {"nN": sight}
    judged = _judged(sights, JUDGE_AT, direct_peers=direct_peers)
    assert [attempt.result for attempt in judged.results] == [result]


def test_what_is_seen_too_late_confirms_nothing() -> None:
    judged = _judged({"nN": DIRECT, "nB": RELAY}, JUDGE_AT + LATE_SECONDS + 1)
    assert judged.attempts[0].result is AttemptResult.UNCONFIRMED
    assert judged.attempts[0].subjects == ()
    assert judged.trials == ()


def test_a_peer_that_stayed_on_relay_was_not_helped_however_late_that_is_seen() -> None:
    """Otherwise nothing is learned where the runs are far apart."""
    late = JUDGE_AT + 10 * LATE_SECONDS
    judged = _judged({"nN": RELAY, "nB": UNKNOWN}, late, since=AT)
    assert judged.attempts == (replace(ATTEMPT, result=NO_EFFECT, subjects=()),)
    assert judged.trials == (Trial("nN", Remedy.RESTART, has_helped=False),)


def test_each_attempt_is_judged_by_itself() -> None:
    other = replace(ATTEMPT, remedy=Remedy.OTHER_PORT, at=AT - 900, judge_at=JUDGE_AT - 900)
    judged = judge((other, ATTEMPT), Seen(JUDGE_AT, {"nN": RELAY, "nB": RELAY}, {"nN": 0, "nB": 0}))
    assert [(trial.remedy, trial.peer) for trial in judged.trials] == [
        (Remedy.OTHER_PORT, "nN"),
        (Remedy.OTHER_PORT, "nB"),
        (Remedy.RESTART, "nN"),
        (Remedy.RESTART, "nB"),
    ]


def test_without_an_id_the_name_tells_the_cause() -> None:
    nameless = replace(ATTEMPT, peer_id="", subjects=())
    judged = _judged({"nas": DIRECT}, AT + 60, nameless)
    assert judged.attempts[0].result is HELPED


def test_a_result_is_final() -> None:
    settled = replace(ATTEMPT, result=HELPED, subjects=("nB",))
    judged = _judged({"nN": RELAY, "nB": RELAY}, JUDGE_AT, settled)
    assert judged.attempts == (replace(settled, subjects=()),)
    assert judged.results == ()
    assert judged.trials == (Trial("nB", Remedy.RESTART, has_helped=False),)
    closed = replace(settled, subjects=())
    assert _judged({"nN": DIRECT}, JUDGE_AT, closed) == Judgement((closed,))


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(Sight)),
    st.lists(st.sets(st.sampled_from("abcdef")), max_size=3),
    st.integers(AT, JUDGE_AT + LATE_SECONDS + 1),
)
def test_other_peers_than_those_of_the_attempts_change_no_judgement(
    sights: dict[str, Sight], subjects: list[set[str]], at: int
) -> None:
    attempts = tuple(
        replace(ATTEMPT, peer_id="ab"[number % 2], subjects=tuple(sorted(some)), result=result)
        for number, (some, result) in enumerate(
            zip(subjects, (AttemptResult.PENDING, HELPED, NO_EFFECT), strict=False)
        )
    )
    wanted = peers_of(attempts)
    of_some = {peer: sight for peer, sight in sights.items() if peer in wanted}
    assert judge(attempts, _seen(at, of_some)) == judge(attempts, _seen(at, sights))


def _seen(at: int, sights: dict[str, Sight]) -> Seen:
    return Seen(at, sights, dict.fromkeys(sights, AT + 1), direct_peers=1)
