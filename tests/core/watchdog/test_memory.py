"""What the guarded policy remembers, and for how long."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from returns.result import Failure

from tsfc.core.watchdog import memory as memories
from tsfc.core.watchdog.experiment import Trial
from tsfc.core.watchdog.memory import Memory, PeerMemory, Record
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy
from tsfc.core.watchdog.state import State, decode, encode

HOUR = 3600
NOW = 500_000 * HOUR
DAY = 86_400
RESTART = Remedy.RESTART
HALF_LIFE = 14 * DAY


def _with_direct(memory: Memory, *keys: str, now: int = NOW) -> Memory:
    return memories.with_direct(
        memory, keys, now, keep_seconds=7 * DAY, half_life_seconds=HALF_LIFE
    )


def _tried(memory: Memory, *outcomes: bool, now: int = NOW) -> Memory:
    for has_helped in outcomes:
        trial = Trial("nas", RESTART, has_helped=has_helped)
        memory = memories.with_trials(memory, [trial], now, HALF_LIFE)
    return memory


def test_a_record_counts_what_helped_and_what_did_not() -> None:
    record = _tried(Memory(), True, False, False).peers["nas"].records[RESTART]
    assert record == Record(NOW, 1.0, 2.0, times_helped=1, times=3, streak=2)


def test_help_ends_a_streak() -> None:
    assert _tried(Memory(), False, False, True).peers["nas"].records[RESTART].streak == 0


def test_a_weight_halves_in_each_half_life() -> None:
    memory = _tried(Memory(), True, False)
    record = memory.peers["nas"].records[RESTART]
    assert memories.weights(record, NOW + HALF_LIFE, HALF_LIFE) == (0.5, 0.5)
    assert memories.weights(record, NOW + 2 * HALF_LIFE, HALF_LIFE) == (0.25, 0.25)
    later = _tried(memory, True, now=NOW + HALF_LIFE).peers["nas"].records[RESTART]
    assert (later.helped, later.unhelpful, later.times) == (1.5, 0.5, 3)


def test_a_clock_that_goes_back_adds_no_weight() -> None:
    record = _tried(Memory(), True).peers["nas"].records[RESTART]
    assert memories.weights(record, NOW - DAY, HALF_LIFE) == (1.0, 0.0)


def test_a_direct_peer_is_remembered_to_the_hour() -> None:
    memory = _with_direct(Memory(), "nas", now=NOW + 59)
    assert memory.peers == {"nas": PeerMemory(NOW)}
    assert _with_direct(memory, "nas", now=NOW + HOUR - 1) is memory
    assert _with_direct(memory, "nas", now=NOW + HOUR).peers == {"nas": PeerMemory(NOW + HOUR)}


def test_a_direct_peer_ends_its_streak_and_what_was_told() -> None:
    memory = memories.with_told(_tried(Memory(), False), ["nas"], NOW)
    peer = _with_direct(memory, "nas").peers["nas"]
    assert (peer.told_at, peer.records[RESTART].streak) == (None, 0)
    assert peer.records[RESTART].times == 1


@pytest.mark.parametrize(
    ("peer", "days", "is_kept"),
    [
        pytest.param(PeerMemory(NOW), 7, True, id="direct-lately"),
        pytest.param(PeerMemory(NOW), 8, False, id="direct-long-ago"),
        pytest.param(PeerMemory(told_at=NOW), 7, True, id="told-lately"),
        pytest.param(PeerMemory(told_at=NOW), 8, False, id="told-long-ago"),
        pytest.param(PeerMemory(None, {RESTART: Record(NOW, 1.0)}), 60, True, id="record"),
        pytest.param(PeerMemory(None, {RESTART: Record(NOW, 1.0)}), 61, False, id="faded"),
        pytest.param(PeerMemory(None, {RESTART: Record(NOW, 0.05)}), 0, True, id="just-enough"),
    ],
)
def test_what_is_old_is_dropped_when_something_changes(
    peer: PeerMemory, days: int, *, is_kept: bool
) -> None:
    now = NOW + days * DAY
    memory = _with_direct(Memory({"old": peer}), "nas", now=now)
    assert ("old" in memory.peers) is is_kept
    assert memory.peers["nas"] == PeerMemory(now)


def test_a_negative_weight_is_damage() -> None:
    """With it, a probability could be a division by zero."""
    state = State(memory=Memory({"nas": PeerMemory(NOW, {RESTART: Record(NOW, 0.0, -1.0)})}))
    assert isinstance(decode(encode(state)), Failure)


def test_results_are_counted_by_remedy() -> None:
    attempt = Attempt(RESTART, "nas", 1, 2, result=AttemptResult.HELPED)
    worse = replace(attempt, remedy=Remedy.OTHER_PORT, result=AttemptResult.WORSE)
    memory = memories.with_results(Memory(outcomes={"restart/helped": 1}), [attempt, worse])
    assert memory.outcomes == {"other-port/worse": 1, "restart/helped": 2}


def test_without_a_line_the_memory_stays_the_same() -> None:
    memory = Memory()
    assert memories.with_told(memory, [], NOW) is memory


def test_all_times_move_with_the_clock() -> None:
    memory = Memory(
        {"nas": PeerMemory(10, {RESTART: Record(20, 1.0)}, 30), "new": PeerMemory()},
        steady_since=40,
        outcomes={"restart/helped": 1},
    )
    assert memories.moved(memory, lambda at: at + 100) == Memory(
        {"nas": PeerMemory(110, {RESTART: Record(120, 1.0)}, 130), "new": PeerMemory()},
        steady_since=140,
        outcomes={"restart/helped": 1},
    )
    assert memories.moved(Memory(), lambda at: at + 100) == Memory()
