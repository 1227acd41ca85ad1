"""Fixtures of all tests, and settings of Hypothesis that make runs reproducible."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.processes import Forked, forked, short_directory

# `nohup` and shells in the background start programs with these signals ignored, and
# processes inherit that. The tests send them.
for number, action in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, action)

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
    """A temporary directory whose path is short enough for a Unix socket."""
    with short_directory() as directory:
        yield directory


@pytest.fixture
def programs(box: Path) -> Path:
    """The directory on PATH of the processes under test; tests add programs to it."""
    directory = box / "bin"
    directory.mkdir()
    return directory


@pytest.fixture(scope="session")
def forks() -> Iterator[Forked]:
    """Runs of tsfc in forks of one process, which start faster than new processes."""
    with forked() as forks:
        yield forks
