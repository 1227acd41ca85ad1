"""Options and exit status that replay and simulate share."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.offline import replay, simulate
from tsfc.offline.comparison import Comparison, worst

COMPARISON = Comparison(ThresholdPolicy(), (), is_json=False, report=None, cluster=None)
MALFORMED = replace(COMPARISON, comparisons=("nothing=1",))
NONE = replace(COMPARISON, comparisons=("policy=none,documented,guarded",))
ORACLE = replace(COMPARISON, comparisons=("policy=documented,oracle",))
REPORT = replace(COMPARISON, report="r.html")
CLUSTER = replace(COMPARISON, cluster="tcp://127.0.0.1:1")
REPLAY = replay.Options(("c",), COMPARISON, since=0, until=1, metrics_path=None)
SIMULATE = simulate.Options("healthy", COMPARISON, days=None, seed=0, runs=1, capture=None)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(REPLAY, id="one-capture"),
        pytest.param(replace(REPLAY, comparison=REPORT, metrics_path="m"), id="report-and-metrics"),
        pytest.param(replace(REPLAY, sources=("c", "d")), id="two-captures"),
        pytest.param(replace(REPLAY, comparison=CLUSTER), id="cluster"),
        pytest.param(replace(REPLAY, comparison=NONE), id="none"),
    ],
)
def test_these_options_of_replay_go_together(options: replay.Options) -> None:
    assert replay.usage_error(options) is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param(replace(REPLAY, comparison=MALFORMED), "--compare 'nothing=1'", id="compare"),
        pytest.param(replace(REPLAY, comparison=ORACLE), "see `tsfc simulate`", id="oracle"),
        pytest.param(
            replace(REPLAY, sources=("c", "d"), comparison=REPORT),
            "need a single capture",
            id="report-of-two",
        ),
        pytest.param(
            replace(REPLAY, comparison=replace(CLUSTER, report="r.html")),
            "no --cluster",
            id="report-on-a-cluster",
        ),
        pytest.param(
            replace(REPLAY, sources=("c", "d"), metrics_path="m"),
            "need a single capture",
            id="metrics-of-two",
        ),
    ],
)
def test_other_options_of_replay_are_a_usage_error(options: replay.Options, error: str) -> None:
    assert error in str(replay.usage_error(options))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(replace(SIMULATE, capture="c"), id="capture"),
        pytest.param(replace(SIMULATE, runs=2, comparison=REPORT), id="report-of-two"),
        pytest.param(replace(SIMULATE, comparison=CLUSTER), id="cluster"),
        pytest.param(replace(SIMULATE, comparison=ORACLE), id="oracle"),
    ],
)
def test_these_options_of_simulate_go_together(options: simulate.Options) -> None:
    assert simulate.usage_error(options) is None


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param(replace(SIMULATE, scenario=None), "no scenario", id="no-scenario"),
        pytest.param(
            replace(SIMULATE, comparison=MALFORMED), "--compare 'nothing=1'", id="compare"
        ),
        pytest.param(
            replace(SIMULATE, capture="c", runs=2), "needs a single run", id="capture-of-two"
        ),
        pytest.param(
            replace(SIMULATE, capture="c", comparison=CLUSTER),
            "needs a single run",
            id="capture-on-a-cluster",
        ),
    ],
)
def test_other_options_of_simulate_are_a_usage_error(options: simulate.Options, error: str) -> None:
    assert error in str(simulate.usage_error(options))


def test_the_exit_status_is_that_of_the_worst_step() -> None:
    assert [worst(0), worst(0, 0), worst(1, 0), worst(0, 1, 2)] == [0, 0, 1, 2]
