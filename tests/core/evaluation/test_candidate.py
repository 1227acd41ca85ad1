"""A candidate is shown with its name and its options."""

from __future__ import annotations

import pytest

from core.evaluation.evaluated import counted
from support.captures import START, seen
from support.statuses import peer
from tsfc.core.evaluation.candidate import (
    NAMES,
    Bound,
    Candidate,
    as_object,
    named,
    text,
    watching,
)
from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Remedy

EXCLUDED = frozenset({"nas", "b"})
DOCUMENTED = ThresholdPolicy(1, 2, EXCLUDED)
GUARDED = GuardedPolicy(1, 2, budget=3, remedies=(Remedy.RESTART, Remedy.OTHER_PORT))


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (
            DOCUMENTED,
            "documented max-relay-seconds=1 cooldown-seconds=2 exclude-peer=b exclude-peer=nas",
        ),
        (
            GUARDED,
            "guarded max-relay-seconds=1 cooldown-seconds=2 budget=3 remedies=restart,other-port",
        ),
        (GuardedPolicy(), "guarded max-relay-seconds=600 cooldown-seconds=600 budget=6"),
        (Bound.NONE, "none"),
        (Bound.ORACLE, "oracle"),
    ],
)
def test_a_candidate_is_shown_as_its_name_and_its_options(
    candidate: Candidate, expected: str
) -> None:
    assert text(candidate) == expected


def test_the_object_of_a_candidate_has_its_name_and_its_options() -> None:
    common = {"max_relay_seconds": 1, "cooldown_seconds": 2}
    assert as_object(DOCUMENTED) == {
        "policy": "documented",
        **common,
        "exclude_peers": ["b", "nas"],
    }
    assert as_object(GUARDED) == {
        "policy": "guarded",
        **common,
        "exclude_peers": [],
        "remedies": ["restart", "other-port"],
        "budget": 3,
        "known_direct_days": GUARDED.known_direct_days,
        "discount": GUARDED.discount,
        "half_life_days": GUARDED.half_life_days,
    }
    assert as_object(Bound.NONE) == {"policy": "none"}


def test_a_name_keeps_the_options_that_both_policies_have() -> None:
    assert named(DOCUMENTED, "guarded") == GuardedPolicy(1, 2, EXCLUDED)
    assert named(GUARDED, "guarded") == GUARDED
    assert named(GUARDED, "documented") == ThresholdPolicy(1, 2)
    assert named(GUARDED, "none") is Bound.NONE
    assert named(GUARDED, "best") is None
    assert all(named(DOCUMENTED, name) is not None for name in NAMES)


@pytest.mark.parametrize("bound", list(Bound))
def test_under_a_bound_the_watchdog_only_watches(bound: Bound) -> None:
    assert watching(GUARDED) is GUARDED
    day = [seen(START + at, peer("nas", "derp")) for at in range(0, 86_400, 600)]
    statistics = counted(day, watching(bound))
    assert (statistics.state.detections, statistics.state.attempts) == (1, ())
