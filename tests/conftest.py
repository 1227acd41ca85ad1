"""What all tests have: Hypothesis the same in every run, and a directory with a short path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.processes import short_directory

settings.register_profile("tsfc", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tsfc")


@pytest.fixture
def box() -> Iterator[Path]:
    """A directory of the test's own, with a path short enough for a socket in it."""
    with short_directory() as directory:
        yield directory
