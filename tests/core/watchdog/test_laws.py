"""Properties of `step` for every state, event, time and policy."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from returns.result import Success

from tsfc.core.clock import MAX_NUMBER, Instant
from tsfc.core.tailscale.peers import named
from tsfc.core.tailscale.status import PeerStatus, Status
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed
from tsfc.core.watchdog.files import PEER_PREFIX, is_script_file, to_files
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Done, Failed, Remedy, Stage
from tsfc.core.watchdog.state import Relay, State, decode, encode
from tsfc.core.watchdog.step import step
from tsfc.core.watchdog.track import DIRECT, Reason

from .strategies import (
    HOSTILE,
    INSTANTS,
    POLICIES,
    STATES,
    STATUSES,
    STORABLE_STATES,
    WILD_EVENTS,
    WILD_INSTANTS,
    WILD_POLICIES,
    WILD_STATES,
    WILD_STATUSES,
)
from .worlds import NOW, POLICY, T0, lines, restarts

WILD_RUNS = {
    "state": WILD_STATES,
    "event": WILD_EVENTS,
    "now": WILD_INSTANTS,
    "policy": WILD_POLICIES,
}
RUNS = {"state": STATES, "status": STATUSES, "now": INSTANTS, "policy": POLICIES}


@given(**WILD_RUNS)
def test_step_decides_on_any_input(
    state: State, event: Event, now: Instant, policy: Policy
) -> None:
    """It always decides: printable lines, at most one restart, one verdict per peer."""
    transition = step(state, event, now=now, policy=policy)
    assert len(restarts(transition)) <= 1
    assert all(line.isprintable() for line in lines(transition))
    if transition.verdicts is not None:
        peers = [verdict.peer for verdict in transition.verdicts]
        assert peers == sorted(set(peers))
        assert transition.state.relays.keys() == {
            verdict.peer for verdict in transition.verdicts if verdict.reason not in DIRECT
        }


@given(**WILD_RUNS)
def test_step_is_deterministic_and_leaves_its_arguments_alone(
    state: State, event: Event, now: Instant, policy: Policy
) -> None:
    """Equal arguments give equal transitions, and the call does not change them."""
    copies = deepcopy((state, event, now, policy))
    first = step(state, event, now=now, policy=policy)
    assert (state, event, now, policy) == copies
    assert step(copies[0], copies[1], now=copies[2], policy=copies[3]) == first


def reordered(mapping: Mapping[str, Any], data: st.DataObject) -> dict[str, Any]:
    """Return the same mapping in a random order."""
    return dict(data.draw(st.permutations(list(mapping.items()))))


@given(
    state=WILD_STATES, status=WILD_STATUSES, now=WILD_INSTANTS, policy=WILD_POLICIES, data=st.data()
)
def test_the_order_of_the_peers_changes_nothing(
    state: State, status: Status, now: Instant, policy: Policy, data: st.DataObject
) -> None:
    """JSON and the state directory list peers in any order."""
    expected = step(state, Observed(status), now=now, policy=policy)
    other = replace(status, peer=None if status.peer is None else reordered(status.peer, data))
    assert (
        step(
            replace(state, relays=reordered(state.relays, data)),
            Observed(other),
            now=now,
            policy=policy,
        )
        == expected
    )


@given(**RUNS, data=st.data())
def test_the_node_keys_change_nothing(
    state: State, status: Status, now: Instant, policy: Policy, data: st.DataObject
) -> None:
    """The watchdog identifies peers by their names, not by their node keys."""
    peers = status.peer or {}
    other: dict[str, PeerStatus] = dict(
        zip(peers, data.draw(st.permutations(list(peers.values()))), strict=True)
    )
    expected = step(state, Observed(status), now=now, policy=policy)
    assert step(state, Observed(replace(status, peer=other)), now=now, policy=policy) == expected


def instant_later(instant: Instant, seconds: int, uptime: int) -> Instant:
    """Return the instant with both clocks advanced."""
    return Instant(
        instant.unix + seconds,
        instant.boot
        and replace(
            instant.boot,
            seconds=instant.boot.seconds + uptime,
            monotonic=None if instant.boot.monotonic is None else instant.boot.monotonic + uptime,
        ),
    )


def attempt_later(attempt: Attempt, seconds: int) -> Attempt:
    """Return the attempt with its times moved."""
    return replace(attempt, at=attempt.at + seconds, judge_at=attempt.judge_at + seconds)


def state_later(state: State, seconds: int, uptime: int) -> State:
    """Return the state with all its times moved."""

    def later(instant: int | None) -> int | None:
        return None if instant is None else instant + seconds

    return replace(
        state,
        relays={
            name: Relay(relay.since + seconds, relay.id) for name, relay in state.relays.items()
        },
        attempts=tuple(attempt_later(attempt, seconds) for attempt in state.attempts),
        last_success=None
        if state.last_success is None
        else instant_later(state.last_success, seconds, uptime),
        blind_since=later(state.blind_since),
        tailscaled_start=later(state.tailscaled_start),
        all_offline_since=later(state.all_offline_since),
        last_run=None if state.last_run is None else instant_later(state.last_run, seconds, uptime),
    )


@given(**RUNS, shift=st.tuples(st.integers(-T0 // 2, T0), st.integers(0, T0)))
def test_the_date_changes_only_the_stored_times(
    state: State, status: Status, now: Instant, policy: Policy, shift: tuple[int, int]
) -> None:
    """Decisions depend on durations only: another date moves only the stored times."""
    transition = step(state, Observed(status), now=now, policy=policy)
    later = step(
        state_later(state, *shift), Observed(status), now=instant_later(now, *shift), policy=policy
    )
    assert later.state == state_later(transition.state, *shift)
    assert (later.verdicts, lines(later)) == (transition.verdicts, lines(transition))
    assert (later.due is None) == (transition.due is None)
    if later.due is not None and transition.due is not None:
        assert later.due == replace(transition.due, at=transition.due.at + shift[0])


@given(**RUNS)
def test_a_second_run_in_the_same_second_detects_nothing_new(
    state: State, status: Status, now: Instant, policy: Policy
) -> None:
    """No peer is detected or recovers twice, and no stored time moves."""
    first = step(state, Observed(status), now=now, policy=policy)
    state = first.state
    for effect in restarts(first):
        state = step(state, Asking(effect.attempt), now=now, policy=policy).state
    second = step(state, Observed(status), now=now, policy=policy)
    assert second.state.relays == first.state.relays
    assert {verdict.reason for verdict in second.verdicts or ()}.isdisjoint(
        {Reason.DETECTED, Reason.RECOVERED, Reason.RESTORED}
    )
    assert restarts(second) == () or policy.cooldown_seconds == 0 or not restarts(first)


@given(state=STORABLE_STATES)
def test_every_storable_state_is_read_back_unchanged(state: State) -> None:
    """Also with any peer names."""
    assert decode(encode(state)) == Success(state)


@given(state=STATES, status=WILD_STATUSES, policy=WILD_POLICIES, unix=st.integers(0, 2**53))
def test_every_state_that_step_returns_is_read_back_unchanged(
    state: State, status: Status, policy: Policy, unix: int
) -> None:
    """Also if the status has hostile names."""
    after = step(state, Observed(status), now=Instant(unix), policy=policy).state
    attempts = tuple(replace(attempt, judge_at=0) for attempt in after.attempts)
    # A wild policy may put `judge_at` out of the range that a file can store.
    storable = replace(after, attempts=attempts)
    assert decode(encode(storable)) == Success(storable)


LONG = st.builds(
    str.__mul__,
    st.sampled_from(["x", "é", "\U0001f9e6", "%", "#", "/", ".", "x\0"]),
    st.sampled_from([1, 60, 200, 10_000]),
)


@given(
    peers=st.dictionaries(
        st.integers(0, 99).map(str),
        st.builds(
            PeerStatus,
            id=LONG | st.sampled_from(HOSTILE),
            host_name=LONG | st.sampled_from(HOSTILE),
            online=st.just(value=True),
        ),
        max_size=12,
    )
)
def test_file_names_of_peers_are_safe_and_distinct(peers: dict[str, PeerStatus]) -> None:
    """Each peer has its own file in the state directory, with a valid name."""
    status = Status(backend_state="Running", peer=peers)
    files = to_files(step(State(), Observed(status), now=NOW, policy=POLICY).state)
    assert (
        len([name for name in files if name.startswith(PEER_PREFIX)])
        == len(peers)
        == len(named(status))
    )
    for name in files:
        assert is_script_file(name)
        assert name.isascii()
        assert name.isprintable()
        assert "/" not in name
        assert name not in {".", ".."}
        assert len(name) <= 255


@pytest.mark.parametrize("count", [MAX_NUMBER - 1, MAX_NUMBER])
def test_a_counter_stays_at_the_largest_number_that_can_be_read_back(count: int) -> None:
    """One more would make `state.json` damaged, and begin the counters again."""
    full = State(
        relays={"b": Relay(T0)},
        restarts=count,
        restart_failures=count,
        detections=count,
        recoveries=count,
    )
    attempt = Attempt(Remedy.RESTART, "a", T0, T0, Stage.ASKED, AttemptResult.UNCONFIRMED)
    asked = replace(full, attempts=(attempt,))
    status = Status(
        backend_state="Running",
        peer={
            "a": PeerStatus(id="a", host_name="a", online=True),
            "b": PeerStatus(id="b", host_name="b", online=True, cur_addr="192.0.2.7:41641"),
        },
    )
    events: list[tuple[State, Event]] = [
        (full, Observed(status)),
        (asked, Performed(attempt, Done())),
        (asked, Performed(attempt, Failed("x"))),
        (asked, Observed(status)),
    ]
    after = [step(before, event, now=NOW, policy=POLICY).state for before, event in events]
    assert [decode(encode(state)) for state in after] == [Success(state) for state in after]
    assert after[0].detections == after[0].recoveries == MAX_NUMBER
    assert after[1].restarts == after[2].restart_failures == after[3].restarts == MAX_NUMBER
