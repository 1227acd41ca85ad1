"""The forecast agrees with what later runs of `step` do.

`search_restart` is the oracle: it finds the next restart by bisection over runs of
`step`, and does not use `due` of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from support.statuses import decoded, peer
from tsfc.core.clock import Instant
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.decision import Due
from tsfc.core.watchdog.effects import Apply
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.forecast import PASSIVE, Forecast, WhatIf, forecast, what_ifs
from tsfc.core.watchdog.memory import Memory, PeerMemory, Record
from tsfc.core.watchdog.policy import GuardedPolicy, Policy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy, Stage
from tsfc.core.watchdog.state import Relay, State
from tsfc.core.watchdog.step import step
from tsfc.core.watchdog.track import Reason, Verdict

from .strategies import WILD_INSTANTS, WILD_POLICIES, WILD_STATES, WILD_STATUSES
from .worlds import NOW, POLICY, T0, derp_peer, make_state, observation

NAMES = ["a", "b", "c"]
SMALL = st.integers(0, 30)
LOOKS = st.lists(
    st.sampled_from([*[derp_peer(name) for name in NAMES], *[peer(name) for name in NAMES]]),
    max_size=4,
).map(lambda peers: observation(*{str(one["HostName"]): one for one in peers}.values()))
STATES = st.builds(
    make_state,
    relay_since=st.dictionaries(st.sampled_from(NAMES), st.integers(T0 - 40, T0), max_size=3),
    last_restart=st.none() | st.integers(T0 - 40, T0),
)
POLICIES = st.builds(
    ThresholdPolicy, SMALL, SMALL, st.frozensets(st.sampled_from(NAMES), max_size=2)
)


def _restart_at(state: State, observed: Observed, unix: int, policy: ThresholdPolicy) -> str | None:
    effects = step(state, observed, now=Instant(unix), policy=policy).effects
    return next((effect.attempt.peer for effect in effects if isinstance(effect, Apply)), None)


HORIZON_SECONDS = 2**32
"Seconds; more than the longest threshold and the longest cooldown together."


def search_restart(
    state: State, observed: Observed, policy: ThresholdPolicy
) -> tuple[int, str] | tuple[None, None]:
    """Seconds until the next restart, and the peer that causes it, by bisection."""
    after = step(state, observed, now=NOW, policy=policy).state
    first = _restart_at(state, observed, T0, policy)
    if first is not None:
        return 0, first
    last = _restart_at(after, observed, T0 + HORIZON_SECONDS, policy)
    if last is None:
        return None, None
    early, late = 0, HORIZON_SECONDS
    while late - early > 1:
        middle = (early + late) // 2
        if _restart_at(after, observed, T0 + middle, policy) is None:
            early = middle
        else:
            late = middle
    cause = _restart_at(after, observed, T0 + late, policy)
    assert cause is not None
    return late, cause


def _due(ahead: Forecast) -> tuple[int, str] | tuple[None, None]:
    return (None, None) if ahead.due is None else (ahead.due.at - T0, ahead.due.peer)


@given(STATES, LOOKS, POLICIES)
def test_the_forecast_restart_is_the_one_that_bisection_finds(
    state: State, observed: Observed, policy: ThresholdPolicy
) -> None:
    ahead = forecast(state, observed, now=NOW, policy=policy)
    transition = step(state, observed, now=NOW, policy=policy)
    assert ahead.verdicts == transition.verdicts
    assert _due(ahead) == search_restart(state, observed, policy)


@given(STATES, LOOKS, POLICIES, SMALL, SMALL)
def test_a_restart_that_is_due_stays_due(
    state: State, observed: Observed, policy: ThresholdPolicy, early: int, more: int
) -> None:
    """The bisection relies on this."""
    if _restart_at(state, observed, T0 + early, policy):
        assert _restart_at(state, observed, T0 + early + more, policy)


@given(WILD_STATES, WILD_STATUSES, WILD_INSTANTS, WILD_POLICIES)
def test_any_input_has_a_forecast(
    state: State, status: Status, now: Instant, policy: ThresholdPolicy
) -> None:
    observed = Observed(status)
    ahead = forecast(state, observed, now=now, policy=policy)
    for verdict in ahead.verdicts or ():
        what_ifs(state, observed, verdict.peer, now=now, policy=policy)


def test_the_rest_of_the_cooldown_is_that_of_the_log_line() -> None:
    state = make_state(relay_since={"a": T0 - 700}, last_restart=T0 - 400)
    ahead = forecast(state, observation(derp_peer("a")), now=NOW, policy=POLICY)
    assert ahead == Forecast(
        (Verdict("a", Reason.COOLDOWN, 700),), 200, Due(T0 + 200, Remedy.RESTART, "a")
    )


def test_a_restart_that_is_due_begins_the_cooldown_of_the_others() -> None:
    state = make_state(relay_since={"a": T0 - 700, "b": T0 - 800})
    ahead = forecast(state, observation(derp_peer("a"), derp_peer("b")), now=NOW, policy=POLICY)
    assert ahead == Forecast(
        (Verdict("a", Reason.COOLDOWN, 700), Verdict("b", Reason.RESTART, 800)),
        600,
        Due(T0, Remedy.RESTART, "b"),
    )


def test_without_a_peer_on_relay_there_is_no_restart() -> None:
    assert forecast(State(), observation(peer("a")), now=NOW, policy=POLICY) == Forecast(
        (Verdict("a", Reason.DIRECT),), 0, None
    )


def test_an_excluded_peer_never_causes_a_restart() -> None:
    policy = replace(POLICY, excluded=frozenset({"a"}))
    ahead = forecast(
        make_state(relay_since={"a": T0 - 50}), observation(derp_peer("a")), now=NOW, policy=policy
    )
    assert ahead.due is None


def test_without_an_observation_only_the_cooldown_is_known() -> None:
    observed = Observed(replace(observation(derp_peer("a")).status, backend_state="Stopped"))
    assert forecast(
        make_state(last_restart=T0 - 100), observed, now=NOW, policy=POLICY
    ) == Forecast(None, 500, None)


def test_the_longest_threshold_and_cooldown_are_within_the_horizon() -> None:
    """The command line accepts up to 10**9 seconds."""
    policy = ThresholdPolicy(10**9, 10**9)
    state, observed = make_state(last_restart=T0), observation(derp_peer("a"))
    ahead = forecast(state, observed, now=NOW, policy=policy)
    assert _due(ahead) == (10**9 + 1, "a")
    assert search_restart(state, observed, policy) == (10**9 + 1, "a")


@given(STATES, LOOKS, POLICIES)
def test_each_what_if_is_the_verdict_under_that_policy(
    state: State, observed: Observed, policy: ThresholdPolicy
) -> None:
    verdicts = step(state, observed, now=NOW, policy=policy).verdicts or ()
    for verdict in verdicts:
        for other in what_ifs(state, observed, verdict.peer, now=NOW, policy=policy):
            assert other.reason is not verdict.reason
            changed = (
                step(state, observed, now=NOW, policy=_with_option(policy, other.option)).verdicts
                or ()
            )
            assert next(new.reason for new in changed if new.peer == verdict.peer) is other.reason


def _with_option(policy: ThresholdPolicy, option: str) -> ThresholdPolicy:
    match option.split():
        case ["--max-relay-seconds", seconds]:
            return replace(policy, max_relay_seconds=int(seconds))
        case ["--cooldown-seconds", seconds]:
            return replace(policy, cooldown_seconds=int(seconds))
        case ["--exclude-peer", name]:
            return replace(policy, excluded=policy.excluded | {name})
        case ["without", "--exclude-peer", name]:
            return replace(policy, excluded=policy.excluded - {name})
        case _:
            raise AssertionError(option)


def _reasons(
    state: State, observed: Observed, policy: Policy = POLICY, name: str = "a"
) -> dict[str, Reason]:
    """The reasons of the what-ifs about a peer, by option."""
    found = what_ifs(state, observed, name, now=NOW, policy=policy)
    return {what_if.option: what_if.reason for what_if in found}


def test_each_what_if_has_the_nearest_value_that_changes_the_verdict() -> None:
    observed = observation(derp_peer("a"))
    waiting = make_state(relay_since={"a": T0 - 300})
    assert _reasons(waiting, observed) == {
        "--max-relay-seconds 299": Reason.RESTART,
    }
    due = make_state(relay_since={"a": T0 - 700}, last_restart=T0 - 650)
    assert _reasons(due, observed) == {
        "--max-relay-seconds 700": Reason.WAITING,
        "--cooldown-seconds 651": Reason.COOLDOWN,
        "--exclude-peer a": Reason.EXCLUDED,
    }
    cooling = make_state(relay_since={"a": T0 - 700}, last_restart=T0 - 400)
    assert _reasons(cooling, observed)["--cooldown-seconds 400"] is Reason.RESTART
    excluded = replace(POLICY, excluded=frozenset({"a"}))
    assert _reasons(make_state(relay_since={"a": T0 - 700}), observed, excluded) == {
        "without --exclude-peer a": Reason.RESTART
    }


@pytest.mark.parametrize(
    ("relay_seconds", "last_restart", "option", "reason"),
    [
        pytest.param(1, None, "--max-relay-seconds 0", Reason.RESTART, id="1 second"),
        pytest.param(600, None, "--max-relay-seconds 599", Reason.RESTART, id="at the threshold"),
        pytest.param(700, T0 - 600, "--cooldown-seconds 601", Reason.COOLDOWN, id="cooldown over"),
        pytest.param(700, T0, "--cooldown-seconds 0", Reason.RESTART, id="restart this second"),
    ],
)
def test_the_limits_of_what_ifs(
    relay_seconds: int, last_restart: int | None, option: str, reason: Reason
) -> None:
    state = make_state(relay_since={"a": T0 - relay_seconds}, last_restart=last_restart)
    assert _reasons(state, observation(derp_peer("a")))[option] is reason


def test_no_threshold_is_below_zero_seconds() -> None:
    assert _reasons(make_state(relay_since={"a": T0}), observation(derp_peer("a"))) == {}


def test_an_unknown_peer_has_no_what_ifs() -> None:
    assert _reasons(State(), observation(peer("a")), name="b") == {}


# Under the guarded policy

GUARDED = GuardedPolicy()
ON_RELAY = observation(derp_peer("a"))
FAILED = {Remedy.RESTART: Record(T0 - 90_000, unhelpful=1, times=1, streak=1)}
"Records of a peer that one restart did not help."


def _guarded(
    seconds: int,
    records: Mapping[Remedy, Record] = {},
    *,
    attempts: tuple[Attempt, ...] = (),
    direct_at: int | None = T0 - 86_400,
) -> State:
    """The state after a run that saw the peer on relay for this time."""
    return State(
        relays={"a": Relay(T0 - seconds, "naCNTRL")},
        attempts=attempts,
        last_success=Instant(T0 - 60),
        last_run=Instant(T0 - 60),
        policy="guarded",
        memory=Memory({"naCNTRL": PeerMemory(direct_at, records)}, steady_since=T0 - 900),
    )


def _unhelpful(number: int) -> tuple[Attempt, ...]:
    """Attempts of the last hours that did not help, the last one an hour ago."""
    return tuple(
        Attempt(Remedy.RESTART, "a", at, at + 300, Stage.DONE, AttemptResult.NO_EFFECT)
        for at in range(T0 - 3600 * number, T0, 3600)
    )


def test_a_threshold_that_makes_the_next_remedy_worth_it_is_found() -> None:
    """Not one under which the peer only gets another reason to wait."""
    for seconds in (300, 5000):
        (option,) = (
            o for o in _reasons(_guarded(seconds, FAILED), ON_RELAY, GUARDED) if "max" in o
        )
        nearest = int(option.split()[1])
        for threshold, is_passive in ((nearest + 1, True), (nearest, False), (0, False)):
            policy = replace(GUARDED, max_relay_seconds=threshold)
            ahead = forecast(_guarded(seconds, FAILED), ON_RELAY, now=NOW, policy=policy)
            assert ahead.verdicts is not None
            assert (ahead.verdicts[0].reason in PASSIVE) == is_passive


def test_a_threshold_that_makes_a_due_remedy_wait_is_found() -> None:
    assert _reasons(_guarded(30_000, FAILED), ON_RELAY, GUARDED) == {
        "--max-relay-seconds 770": Reason.PATIENT,
        "--exclude-peer a": Reason.EXCLUDED,
        "--remedies restart,other-port": Reason.RESTART,
        "--budget 0": Reason.HELD,
    }


def test_a_remedy_that_was_not_tried_may_be_worth_it() -> None:
    found = what_ifs(_guarded(5000, FAILED), ON_RELAY, "a", now=NOW, policy=GUARDED)
    assert (
        WhatIf("--remedies restart,other-port", Reason.RESTART, Due(T0, Remedy.OTHER_PORT, "a"))
        in found
    )


def test_another_remedy_that_would_be_due_is_a_difference() -> None:
    both = replace(GUARDED, remedies=tuple(Remedy))
    found = what_ifs(_guarded(30_000, FAILED), ON_RELAY, "a", now=NOW, policy=both)
    assert WhatIf("--remedies restart", Reason.RESTART, Due(T0, Remedy.RESTART, "a")) in found


@pytest.mark.parametrize(
    ("number", "budget", "option", "reason"),
    [
        pytest.param(6, 6, "--budget 7", Reason.RESTART, id="spent"),
        pytest.param(6, 2, "--budget 7", Reason.RESTART, id="overspent"),
        pytest.param(3, 6, "--budget 3", Reason.HELD, id="some left"),
        pytest.param(0, 6, "--budget 0", Reason.HELD, id="all left"),
    ],
)
def test_the_nearest_budget_is_found(number: int, budget: int, option: str, reason: Reason) -> None:
    state = _guarded(3000, attempts=_unhelpful(number))
    policy = replace(GUARDED, budget=budget)
    assert {o: r for o, r in _reasons(state, ON_RELAY, policy).items() if "budget" in o} == {
        option: reason
    }


def test_no_budget_helps_against_another_reason_to_hold_back() -> None:
    paused = replace(ON_RELAY, is_paused=True)
    state = _guarded(3000, attempts=_unhelpful(6))
    assert not [o for o in _reasons(state, paused, GUARDED) if "budget" in o]


@pytest.mark.parametrize(
    ("state", "observed", "seconds"),
    [
        pytest.param(_guarded(700, direct_at=None), ON_RELAY, 601, id="never direct"),
        pytest.param(_guarded(700, FAILED), ON_RELAY, 601, id="patient"),
        pytest.param(State(policy="guarded"), observation(peer("a", "idle")), 601, id="idle"),
        pytest.param(_guarded(700), replace(ON_RELAY, is_paused=True), None, id="paused"),
        pytest.param(_guarded(700), ON_RELAY, None, id="due now"),
        pytest.param(_guarded(300), ON_RELAY, None, id="due earlier"),
        pytest.param(State(policy="guarded"), observation(peer("a")), None, id="direct"),
    ],
)
def test_the_documented_policy_is_an_alternative_if_it_restarts_sooner(
    state: State, observed: Observed, seconds: int | None
) -> None:
    """A change of policy restarts nothing by itself: the relay begins again."""
    found = what_ifs(state, observed, "a", now=NOW, policy=GUARDED)
    expected = WhatIf(
        "--policy documented",
        Reason.DETECTED,
        None if seconds is None else Due(T0 + seconds, Remedy.RESTART, "a"),
    )
    assert [one for one in found if "policy" in one.option] == ([expected] if seconds else [])


def test_the_documented_policy_is_none_for_an_excluded_peer_or_a_cut_off_node() -> None:
    state = _guarded(700, direct_at=None)
    excluded = replace(GUARDED, excluded=frozenset({"a"}))
    assert "--policy documented" not in _reasons(state, ON_RELAY, excluded)
    cut_off = Observed(decoded(derp_peer("a"), Self={"Online": False}))
    assert "--policy documented" not in _reasons(state, cut_off, GUARDED)
