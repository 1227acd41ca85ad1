from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def promtool() -> Callable[[str], tuple[int, str]]:
    """The parser and the linter of Prometheus: from a text to an exit status (1 refused, 3 something to object, 0 neither) and what is said."""
    program = shutil.which("promtool")
    if program is None:
        reason = "promtool is not on PATH; it is in the Debian package prometheus"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    def check(text: str) -> tuple[int, str]:
        run = subprocess.run([program, "check", "metrics"], input=text.encode(), capture_output=True, check=False, timeout=60)
        return run.returncode, (run.stdout + run.stderr).decode()

    return check
