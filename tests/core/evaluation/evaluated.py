"""Runs of the watchdog over made-up observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import json
from returns.result import Result

from tsfc.core.evaluation.observation import instant, parse, status_of
from tsfc.core.evaluation.statistics import Statistics, update
from tsfc.core.faults import Fault
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.policy import Policy, ThresholdPolicy
from tsfc.core.watchdog.run import Run
from tsfc.offline.host import OfflineHost

POLICY = ThresholdPolicy(max_relay_seconds=100, cooldown_seconds=150)


def runs(
    observations: Iterable[dict[str, Any]], policy: Policy = POLICY
) -> Iterator[tuple[Run, Result[Status, Fault], tuple[str, ...]]]:
    """Run the watchdog on each observation; yield the run, the status and the lines."""
    host = OfflineHost()
    for fields in observations:
        observation = parse(json.encode(fields)).unwrap()
        observed = status_of(observation)
        run, lines = host.run(observed, now=instant(observation), policy=policy)
        yield run, observed, lines


def counted(observations: Iterable[dict[str, Any]], policy: Policy = POLICY) -> Statistics:
    """Return the statistics of these observations."""
    statistics = Statistics()
    for run, _, _ in runs(observations, policy):
        update(statistics, run)
    return statistics
