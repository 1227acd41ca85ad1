from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.required import program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def nix() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `nix-instantiate` in the checkout, without a store."""
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
    """Runs `nix-instantiate`, which must succeed, and returns its output."""

    def instantiate(*arguments: str) -> str:
        result = nix(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return instantiate
