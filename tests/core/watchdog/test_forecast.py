"""The forecast agrees with what later runs of `step` do.

`search_restart` is the oracle: it finds the next restart by bisection over runs of
`step`, and does not use `due` of the policy.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from support.statuses import peer
from tsfc.core.clock import Instant
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.effects import Apply
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.forecast import Forecast, WhatIf, forecast, what_ifs
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.state import State
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


@given(STATES, LOOKS, POLICIES)
def test_the_forecast_restart_is_the_one_that_bisection_finds(
    state: State, observed: Observed, policy: ThresholdPolicy
) -> None:
    ahead = forecast(state, observed, now=NOW, policy=policy)
    transition = step(state, observed, now=NOW, policy=policy)
    assert ahead.verdicts == transition.verdicts
    assert (ahead.restart_seconds, ahead.restart_peer) == search_restart(state, observed, policy)


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
    assert ahead == Forecast((Verdict("a", Reason.COOLDOWN, 700),), 200, 200, "a")


def test_a_restart_that_is_due_begins_the_cooldown_of_the_others() -> None:
    state = make_state(relay_since={"a": T0 - 700, "b": T0 - 800})
    ahead = forecast(state, observation(derp_peer("a"), derp_peer("b")), now=NOW, policy=POLICY)
    assert ahead == Forecast(
        (Verdict("a", Reason.COOLDOWN, 700), Verdict("b", Reason.RESTART, 800)), 600, 0, "b"
    )


def test_without_a_peer_on_relay_there_is_no_restart() -> None:
    assert forecast(State(), observation(peer("a")), now=NOW, policy=POLICY) == Forecast(
        (Verdict("a", Reason.DIRECT),), 0, None, None
    )


def test_an_excluded_peer_never_causes_a_restart() -> None:
    policy = replace(POLICY, excluded=frozenset({"a"}))
    ahead = forecast(
        make_state(relay_since={"a": T0 - 50}), observation(derp_peer("a")), now=NOW, policy=policy
    )
    assert (ahead.restart_seconds, ahead.restart_peer) == (None, None)


def test_without_an_observation_only_the_cooldown_is_known() -> None:
    observed = Observed(replace(observation(derp_peer("a")).status, backend_state="Stopped"))
    assert forecast(
        make_state(last_restart=T0 - 100), observed, now=NOW, policy=POLICY
    ) == Forecast(None, 500, None, None)


def test_the_longest_threshold_and_cooldown_are_within_the_horizon() -> None:
    """The command line accepts up to 10**9 seconds."""
    policy = ThresholdPolicy(10**9, 10**9)
    state, observed = make_state(last_restart=T0), observation(derp_peer("a"))
    ahead = forecast(state, observed, now=NOW, policy=policy)
    assert (ahead.restart_seconds, ahead.restart_peer) == (10**9 + 1, "a")
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


def test_each_what_if_has_the_nearest_value_that_changes_the_verdict() -> None:
    observed = observation(derp_peer("a"))
    waiting = what_ifs(
        make_state(relay_since={"a": T0 - 300}), observed, "a", now=NOW, policy=POLICY
    )
    assert waiting == (WhatIf("--max-relay-seconds 299", Reason.RESTART),)
    due = what_ifs(
        make_state(relay_since={"a": T0 - 700}, last_restart=T0 - 650),
        observed,
        "a",
        now=NOW,
        policy=POLICY,
    )
    assert due == (
        WhatIf("--max-relay-seconds 700", Reason.WAITING),
        WhatIf("--cooldown-seconds 651", Reason.COOLDOWN),
        WhatIf("--exclude-peer a", Reason.EXCLUDED),
    )
    cooling = what_ifs(
        make_state(relay_since={"a": T0 - 700}, last_restart=T0 - 400),
        observed,
        "a",
        now=NOW,
        policy=POLICY,
    )
    assert WhatIf("--cooldown-seconds 400", Reason.RESTART) in cooling
    excluded = what_ifs(
        make_state(relay_since={"a": T0 - 700}),
        observed,
        "a",
        now=NOW,
        policy=replace(POLICY, excluded=frozenset({"a"})),
    )
    assert WhatIf("without --exclude-peer a", Reason.RESTART) in excluded


@pytest.mark.parametrize(
    ("relay_seconds", "last_restart", "option"),
    [
        pytest.param(0, None, None, id="no threshold is below 0 seconds"),
        pytest.param(1, None, WhatIf("--max-relay-seconds 0", Reason.RESTART), id="1 second"),
        pytest.param(
            600, None, WhatIf("--max-relay-seconds 599", Reason.RESTART), id="at the threshold"
        ),
        pytest.param(
            700, T0 - 600, WhatIf("--cooldown-seconds 601", Reason.COOLDOWN), id="cooldown over"
        ),
        pytest.param(
            700, T0, WhatIf("--cooldown-seconds 0", Reason.RESTART), id="restart this second"
        ),
    ],
)
def test_the_limits_of_what_ifs(
    relay_seconds: int, last_restart: int | None, option: WhatIf | None
) -> None:
    state = make_state(relay_since={"a": T0 - relay_seconds}, last_restart=last_restart)
    found = what_ifs(state, observation(derp_peer("a")), "a", now=NOW, policy=POLICY)
    assert found == () if option is None else option in found


def test_an_unknown_peer_has_no_what_ifs() -> None:
    assert what_ifs(State(), observation(peer("a")), "b", now=NOW, policy=POLICY) == ()
