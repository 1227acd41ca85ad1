"""One Chromium for all tests of pages."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from support import browser


@pytest.fixture(scope="session")
def chromium() -> Generator[browser.Browser]:
    """Headless Chromium."""
    with browser.chromium() as found:
        yield found
