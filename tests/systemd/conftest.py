from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.hosts import Host, hosting, require_bootable


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host on which all four jobs are installed, and none is started by itself."""
    require_bootable()
    with hosting() as host:
        yield host.without_timers()
