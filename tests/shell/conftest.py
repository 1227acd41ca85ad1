from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import Forked, forked


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
