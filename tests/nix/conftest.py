from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.required import program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nix() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Nix without a store: from the arguments of `nix-instantiate`, run in the checkout, to how it ended."""
    instantiate = program("nix-instantiate", "nix-bin")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [instantiate, "--store", "dummy://", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture(scope="session")
def nix_instantiate(nix: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., str]:
    """The same, to what it prints; it has to succeed."""

    def instantiate(*arguments: str) -> str:
        ran = nix(*arguments)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    return instantiate
