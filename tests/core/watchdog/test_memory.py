"""What a run left behind is read from its metrics, and is what it remembers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from returns.result import Failure

from support.statuses import peer
from tsfc.core.clock import Instant
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.families import Sample
from tsfc.core.metrics.parse import read
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.memory import Memory, remembered
from tsfc.core.watchdog.metrics import metrics
from tsfc.core.watchdog.policy import ThresholdPolicy, is_excluded
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import step

from .strategies import INTEGERS, TEXT, WILD_STATUSES
from .worlds import DOWN, NOW, T0, relayed, seen

POLICY = ThresholdPolicy(300, 900, frozenset({"b"}))


def _read(text: str) -> Memory:
    return remembered(read(text).unwrap()).unwrap()


def test_it_is_what_the_run_kept() -> None:
    state = State(
        relay_since={"a": T0 - 400, "b": T0 - 50},
        last_restart=T0 - 100,
        restarts=1,
        restart_failures=2,
        detections=3,
        recoveries=4,
    )
    ran = step(
        state, seen(relayed("a"), relayed("b"), relayed("c"), peer("d")), now=NOW, policy=POLICY
    )
    known = _read(render(metrics(ran.state, ran.verdicts, now=NOW, policy=POLICY)))
    assert known == Memory(replace(ran.state, last_run=Instant(T0)), POLICY, saw_peers=True)


def test_of_a_run_that_saw_nobody_it_is_not_known_who_is_on_relay() -> None:
    ran = step(
        State(relay_since={"a": T0 - 400}, last_restart=T0 - 100, last_success=T0 - 60),
        DOWN,
        now=NOW,
        policy=POLICY,
    )
    known = _read(render(metrics(ran.state, ran.verdicts, now=NOW, policy=POLICY)))
    assert known == Memory(
        State(last_restart=T0 - 100, last_success=T0 - 60, last_run=Instant(T0)),
        ThresholdPolicy(300, 900),
        saw_peers=False,
    )


@given(WILD_STATUSES, st.lists(TEXT, max_size=3))
def test_whatever_peers_are_called_they_are_remembered_under_their_names(
    status: object, excluded: list[str]
) -> None:
    policy = ThresholdPolicy(300, 900, frozenset(excluded))
    ran = step(State(), Observed(status), now=NOW, policy=policy)  # type: ignore[arg-type]
    known = _read(render(metrics(ran.state, ran.verdicts, now=NOW, policy=policy)))
    assert known.state.relay_since == ran.state.relay_since
    assert {
        verdict.peer for verdict in ran.verdicts or () if is_excluded(policy, verdict.peer)
    } == known.policy.excluded


@given(
    st.dictionaries(
        st.sampled_from(
            [
                f"tailscale_watchdog_{name}"
                for name in (
                    "last_run_timestamp_seconds",
                    "max_relay_seconds",
                    "cooldown_seconds",
                    "peer_state",
                    "restarts_total",
                )
            ]
        ),
        st.lists(
            st.builds(
                Sample,
                st.dictionaries(st.sampled_from(["peer", "x"]), TEXT),
                st.floats() | INTEGERS.map(lambda number: float(number % 10**30)),
            )
        ).map(tuple),
    )
)
def test_samples_from_hell_are_read_or_refused(samples: dict[str, tuple[Sample, ...]]) -> None:
    known = remembered(samples)
    assert isinstance(known, Failure) or known.unwrap().state.last_run is not None


def test_what_is_not_the_watchdogs_is_refused() -> None:
    """So is what an older release wrote, which did not say under which policy."""
    assert (
        remembered(read("# HELP x y\n# TYPE x gauge\nx 1\n").unwrap()).failure()
        == "it is not what this release's watchdog writes"
    )
    assert isinstance(
        remembered(read("tailscale_watchdog_last_run_timestamp_seconds 1\n").unwrap()), Failure
    )
    assert isinstance(remembered({}), Failure)


def test_what_is_no_exposition_is_one_line() -> None:
    assert read('x{a="} 1\n').failure().isprintable()
    assert isinstance(read("x y z\n"), Failure)
