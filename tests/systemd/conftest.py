from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.hosts import Host, hosting, require_bootable


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    """A host with the default jobs installed and their timers stopped."""
    require_bootable()
    with hosting() as host:
        yield host.without_timers()
