"""Programs that a test needs. Without them, it is skipped; on CI, it fails."""

from __future__ import annotations

import os
import shutil

import pytest


def require(missing: str | None) -> None:
    """End the test if `missing`, one line about what is missing, is not None."""
    if missing is not None:
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


def program(name: str, package: str) -> str:
    """Return the path of a program; end the test if the Debian package is missing."""
    path = shutil.which(name)
    require(None if path else f"{name} is not on PATH; it is in the Debian package {package}")
    assert path
    return path
