"""The snapshot that a run writes for `tsfc peers` and `tsfc explain`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Success

from support.statuses import peer
from tsfc.core.clock import Boot, Instant
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.snapshot import Snapshot, decode, encode
from tsfc.core.watchdog.state import Relay, State
from tsfc.core.watchdog.step import step

from .strategies import STORABLE_STATES
from .worlds import DOWN, NOW, T0, derp_peer, make_state, observation

POLICY = ThresholdPolicy(300, 900, frozenset({"b"}))
POLICIES = st.builds(
    ThresholdPolicy,
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.frozensets(st.text(max_size=9), max_size=3),
)


@given(STORABLE_STATES, POLICIES)
def test_a_snapshot_is_read_back_as_it_was(state: State, policy: ThresholdPolicy) -> None:
    snapshot = Snapshot(Instant(T0, Boot("b1", 7)), policy, state)
    assert decode(encode(snapshot).encode()) == Success(snapshot)


def test_a_snapshot_is_the_same_in_every_run() -> None:
    """A set has another order in each process."""
    names = frozenset("abcdefgh")
    text = encode(Snapshot(NOW, ThresholdPolicy(excluded=names), State()))
    assert '"excluded":["a","b","c","d","e","f","g","h"]' in text


def test_the_error_about_an_invalid_snapshot_is_short() -> None:
    problem = decode(b'{"' + 200 * b"x" + b'":1}').failure()
    assert problem == ("not a snapshot of this release: Object missing required field `at`")
    long = decode(b'{"at":{"' + 200 * b"x" + b'":1}}').failure()
    prefix = "not a snapshot of this release: Object contains unknown field `"
    assert long == f"{prefix}{49 * 'x'}…"


def test_the_snapshot_of_a_run_that_observed_peers_says_so() -> None:
    before = make_state({"a": T0 - 400}, last_restart=T0 - 100, last_success=T0 - 60)
    after = step(before, observation(derp_peer("a"), peer("d")), now=NOW, policy=POLICY).state
    assert Snapshot(NOW, POLICY, after).saw_peers


def test_the_snapshot_of_a_run_without_an_observation_says_so_and_has_the_state() -> None:
    before = make_state({"a": T0 - 400}, last_restart=T0 - 100, last_success=T0 - 60)
    after = step(before, DOWN, now=NOW, policy=POLICY).state
    snapshot = Snapshot(NOW, POLICY, after)
    assert not snapshot.saw_peers
    assert snapshot.state.relays == {"a": Relay(T0 - 400)}


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{}", id="no fields"),
        pytest.param(
            b'{"at":{"unix":1},"policy":{"type":"oracle"},"state":{}}', id="unknown policy"
        ),
        pytest.param(b"\xff", id="not UTF-8"),
        pytest.param(b"[" * 100_000, id="nested"),
        pytest.param(b"# HELP x y\n", id="metrics"),
    ],
)
def test_an_invalid_snapshot_is_rejected_in_one_line(raw: bytes) -> None:
    problem = decode(raw).failure()
    assert problem.startswith("not a snapshot of this release: ")
    assert problem.isprintable()
