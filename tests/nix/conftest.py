from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nix_instantiate() -> Callable[..., str]:
    """Nix without a store: from the arguments of `nix-instantiate`, run in the checkout, to what it prints."""
    program = shutil.which("nix-instantiate")
    if program is None:
        reason = "nix-instantiate is not on PATH; it is in the Debian package nix-bin"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)

    def instantiate(*arguments: str) -> str:
        run = subprocess.run([program, "--store", "dummy://", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert run.returncode == 0, run.stderr
        return run.stdout

    return instantiate
