"""Thousands of random signals at random moments, for each job."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.processes import Forked
from support.random_signals import CASES, machine, soak


@pytest.mark.parametrize(("job", "source"), CASES)
def test_a_signal_ends_a_job_and_leaves_nothing(
    box: Path, forks: Forked, job: str, source: str, *, repetitions: int, seed: int
) -> None:
    """Half of the signals for each way to ask tailscaled."""
    with machine(box, forks, job, source) as host:
        soak(host, -(-repetitions // 2), seed=seed, second=0.0, say=print)


@pytest.mark.parametrize(("job", "source"), CASES)
def test_a_second_signal_ends_a_job_that_cleans_up(
    box: Path, forks: Forked, job: str, source: str, *, repetitions: int, seed: int
) -> None:
    """It can leave a temporary file, which the next run replaces or removes."""
    with machine(box, forks, job, source) as host:
        soak(host, -(-repetitions // 10), seed=seed, second=1.0, say=print)
