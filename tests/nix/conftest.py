from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.required import program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nix_instantiate() -> Callable[..., str]:
    """Nix without a store: from the arguments of `nix-instantiate`, run in the checkout, to what it prints."""
    nix = program("nix-instantiate", "nix-bin")

    def instantiate(*arguments: str) -> str:
        run = subprocess.run([nix, "--store", "dummy://", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert run.returncode == 0, run.stderr
        return run.stdout

    return instantiate
