"""`--compare` gives every combination of the values."""

from __future__ import annotations

import pytest
from returns.result import Failure, Success

from tsfc.core.evaluation.candidate import Bound, Candidate
from tsfc.core.evaluation.policies import LIMIT, policies, table
from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Remedy

BASE = ThresholdPolicy(600, 700, frozenset({"phone"}))


def test_without_a_comparison_there_is_only_the_base() -> None:
    assert policies(BASE, ()) == Success((BASE,))


@pytest.mark.parametrize(
    ("comparisons", "expected"),
    [
        pytest.param(
            ["max-relay-seconds=1, 2"],
            [ThresholdPolicy(1, 700, BASE.excluded), ThresholdPolicy(2, 700, BASE.excluded)],
            id="values",
        ),
        pytest.param(
            ["max-relay-seconds=1s,1min"],
            [ThresholdPolicy(1, 700, BASE.excluded), ThresholdPolicy(60, 700, BASE.excluded)],
            id="time-spans",
        ),
        pytest.param(
            ["max-relay-seconds=1,2", "cooldown-seconds=3,4"],
            [
                ThresholdPolicy(threshold, cooldown, BASE.excluded)
                for threshold in (1, 2)
                for cooldown in (3, 4)
            ],
            id="combinations",
        ),
        pytest.param(
            ["exclude-peer=,nas"],
            [BASE, ThresholdPolicy(600, 700, frozenset({"phone", "nas"}))],
            id="excluded-peers-are-added",
        ),
        pytest.param(["max-relay-seconds=600,600"], [BASE], id="equal-policies-are-one"),
        pytest.param(
            ["policy=none,documented,guarded,oracle"],
            [Bound.NONE, BASE, GuardedPolicy(600, 700, BASE.excluded), Bound.ORACLE],
            id="names",
        ),
        pytest.param(
            ["max-relay-seconds=1,2", "policy=none,documented,guarded"],
            [
                Bound.NONE,
                ThresholdPolicy(1, 700, BASE.excluded),
                GuardedPolicy(1, 700, BASE.excluded),
                ThresholdPolicy(2, 700, BASE.excluded),
                GuardedPolicy(2, 700, BASE.excluded),
            ],
            id="names-and-values",
        ),
        pytest.param(
            ["policy=documented,guarded", "budget=0,24"],
            [
                BASE,
                GuardedPolicy(600, 700, BASE.excluded, budget=0),
                GuardedPolicy(600, 700, BASE.excluded, budget=24),
            ],
            id="only-guarded-has-a-budget",
        ),
        pytest.param(
            ["policy=documented,guarded", "remedies=restart,restart+other-port,other-port"],
            [
                BASE,
                GuardedPolicy(600, 700, BASE.excluded),
                GuardedPolicy(
                    600, 700, BASE.excluded, remedies=(Remedy.RESTART, Remedy.OTHER_PORT)
                ),
                GuardedPolicy(600, 700, BASE.excluded, remedies=(Remedy.OTHER_PORT,)),
            ],
            id="only-guarded-has-remedies",
        ),
    ],
)
def test_each_combination_is_a_candidate(comparisons: list[str], expected: list[Candidate]) -> None:
    assert policies(BASE, comparisons) == Success(tuple(expected))


@pytest.mark.parametrize(
    "comparison",
    [
        pytest.param("max-relay-seconds", id="no-value"),
        pytest.param("exclude-peer", id="no-value-of-a-name"),
        pytest.param("max-relay-seconds=", id="empty-value"),
        pytest.param("max-relay-seconds=1,x", id="not-a-number"),
        pytest.param("max-relay-seconds=-1", id="negative"),
        pytest.param("max-relay-seconds=²", id="not-ascii"),
        pytest.param("cooldown-seconds=99999999999999999999", id="too-large"),
        pytest.param("cooldown-seconds=1.5s", id="a-fraction-of-a-second"),
        pytest.param("budget=1min", id="a-span-of-restarts"),
        pytest.param("policy=best", id="no-such-policy"),
        pytest.param("policy=", id="no-policy"),
        pytest.param("budget=25", id="budget-too-large"),
        pytest.param("remedies=", id="no-remedy"),
        pytest.param("remedies=restart,rebind", id="no-such-remedy"),
        pytest.param("remedies=restart+restart", id="a-remedy-twice"),
        pytest.param("unit=a", id="not-a-policy-option"),
    ],
)
def test_a_malformed_comparison_is_an_error(comparison: str) -> None:
    result = policies(BASE, [comparison])
    assert isinstance(result, Failure)
    assert result.failure().startswith(f"--compare {comparison!r} ")
    assert "\n" not in result.failure()


def test_the_options_of_the_guarded_policy_are_kept() -> None:
    base = GuardedPolicy(600, 700, BASE.excluded, budget=3)
    assert policies(base, ["policy=guarded,documented"]) == Success((base, BASE))


@pytest.mark.parametrize("comparison", ["budget=1,2", "remedies=restart,other-port"])
def test_an_option_of_the_guarded_policy_without_it_is_an_error(comparison: str) -> None:
    result = policies(BASE, [comparison, "policy=none,documented"])
    assert isinstance(result, Failure)
    option = comparison.partition("=")[0]
    assert result.failure() == (
        f"--compare {option}: only the guarded policy has it; add --policy guarded"
    )


def test_too_many_policies_are_an_error() -> None:
    values = ",".join(map(str, range(LIMIT)))
    assert len(policies(BASE, [f"max-relay-seconds={values}"]).unwrap()) == LIMIT
    result = policies(BASE, [f"max-relay-seconds={values},{LIMIT}"])
    assert isinstance(result, Failure)
    assert f"{LIMIT + 1} policies" in result.failure()


def test_the_table_has_one_row_of_counts_per_policy() -> None:
    counts = [{"restarts": 3, "relay_seconds": 40}, {"restarts": 0, "relay_seconds": 50}]
    header, rows = table([BASE, Bound.NONE], counts, ["relay_seconds", "restarts"])
    assert header == ("policy", "relay seconds", "restarts")
    assert rows == [
        ("documented max-relay-seconds=600 cooldown-seconds=700 exclude-peer=phone", "40", "3"),
        ("none", "50", "0"),
    ]
