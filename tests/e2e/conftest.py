"""What all these tests have: a machine that can have a lab, and for each lab that several tests share one worker."""

from __future__ import annotations

import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from lab import NEWEST, OLDEST, builds
from support.required import require

LONGEST = "test_idle_nodes_become_direct"
"Its tests take three minutes each: what begins last, ends last."
SHARING = ("test_exporter", "test_states")
"The modules that have one lab for each release."
RELEASES = [pytest.param(NEWEST, id="newest"), pytest.param(OLDEST, id="oldest")]


@pytest.fixture(scope="session", autouse=True)
def _can_have_a_lab() -> None:
    require(builds.missing())


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """A release of Tailscale: all is tried with the newest and with the oldest that is supported."""
    return str(request.param)


class LabScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives all tests that share a lab to one worker, and any other test to whoever is free.

    Not xdist's own groups (`--dist loadgroup`): pytest-xdist 3.8.0 cannot mark them in pytest 9.2.0.
    """

    def _split_scope(self, nodeid: str) -> str:
        match = re.match(r".*/(\w+)\.py::.*\[(newest|oldest)", nodeid)
        return f"{match[1]}, {match[2]}" if match and match[1] in SHARING else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LabScheduling:
    """Is pytest-xdist's hook."""
    return LabScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Is pytest's hook: the longest first."""
    items.sort(key=lambda item: LONGEST not in item.name)
