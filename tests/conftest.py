"""What all tests have: Hypothesis the same in every run, and a directory with a short path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.processes import Forked, forked, short_directory

settings.register_profile(
    "tsfc",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tsfc")


@pytest.fixture
def box() -> Iterator[Path]:
    """A directory of the test's own, with a path short enough for a socket in it."""
    with short_directory() as directory:
        yield directory


@pytest.fixture
def programs(box: Path) -> Path:
    """The PATH of the processes under test, where the test puts programs."""
    directory = box / "bin"
    directory.mkdir()
    return directory


@pytest.fixture(scope="session")
def forks() -> Iterator[Forked]:
    """Runs that need no start of their own."""
    with forked() as forks:
        yield forks
