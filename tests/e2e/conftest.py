"""What all these tests have: a machine that can have a lab, and for each lab that several tests share one worker."""

from __future__ import annotations

import pytest

from lab import NEWEST, OLDEST, builds
from support.required import require

RELEASES = [pytest.param(NEWEST, id="newest"), pytest.param(OLDEST, id="oldest")]


@pytest.fixture(scope="session", autouse=True)
def _can_have_a_lab() -> None:
    require(builds.missing())


@pytest.fixture(scope="module", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """A release of Tailscale: all is tried with the newest and with the oldest that is supported."""
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the tests that share a lab in one worker (`--dist loadgroup`); whoever makes its own may run anywhere."""
    for item in items:
        if isinstance(item, pytest.Function) and "tailnet" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}-{item.callspec.params['release']}"))
