"""What the machine has to have for a test: without it the test is skipped and says so; where CI runs, it fails."""

from __future__ import annotations

import os
import shutil

import pytest


def require(missing: str | None) -> None:
    """Ends the test where something is missing, which this says in one line."""
    if missing is not None:
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


def program(name: str, package: str) -> str:
    """Returns the path of a program, of this Debian package; ends the test where there is none."""
    found = shutil.which(name)
    require(None if found else f"{name} is not on PATH; it is in the Debian package {package}")
    assert found
    return found
