from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from support.required import program


@pytest.fixture(scope="session")
def promtool() -> Callable[[str], tuple[int, str]]:
    """The parser and the linter of Prometheus: from a text to an exit status (1 refused, 3 something to object, 0 neither) and what is said."""
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
