"""Requirements of the lab, the releases under test, and the scheduling of the tests."""

from __future__ import annotations

import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from lab import NEWEST, OLDEST, builds
from support.required import require

LONGEST = re.compile(r"test_(idle_nodes_become_direct|a_silent_control_server)_")
"The slowest tests, two to three minutes each. They start first."
SHARING = ("test_exporter", "test_states")
"Modules whose tests share one lab per release."
RELEASES = [pytest.param(NEWEST, id="newest"), pytest.param(OLDEST, id="oldest")]


@pytest.fixture(scope="session", autouse=True)
def _require_lab() -> None:
    require(builds.missing())


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """A release of Tailscale: the newest, and the oldest that tsfc supports."""
    return str(request.param)


class LabScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Run the tests that share a lab on one worker, and others on any free worker.

    `--dist loadgroup` does not work: pytest-xdist 3.8.0 cannot mark groups in pytest
    9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        match = re.match(r".*/(\w+)\.py::.*\[(newest|oldest)", nodeid)
        return f"{match[1]}, {match[2]}" if match and match[1] in SHARING else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LabScheduling:
    """Use `LabScheduling` (a hook of pytest-xdist)."""
    return LabScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the slowest tests first (a hook of pytest)."""
    items.sort(key=lambda item: not LONGEST.match(item.name))
