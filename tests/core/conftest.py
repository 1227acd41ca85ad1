from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from support.required import program


@pytest.fixture(scope="session")
def promtool() -> Callable[[str], tuple[int, str]]:
    """Prometheus' parser and linter, as a function from a text to a status and output.

    The exit status is 0 if the text is fine, 1 if it cannot be parsed, 3 for a lint
    error.
    """
    promtool = program("promtool", "prometheus")

    def check(text: str) -> tuple[int, str]:
        run = subprocess.run(
            [promtool, "check", "metrics"],
            input=text.encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        return run.returncode, (run.stdout + run.stderr).decode()

    return check
