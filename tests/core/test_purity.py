from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from tsfc import core

IMPURE = {
    "socket",
    "subprocess",
    "ssl",
    "select",
    "selectors",
    "asyncio",
    "threading",
    "http",
    "tempfile",
    "logging",
    "prometheus_client",
}
"""Modules that do I/O, or are slow to load.

import-linter checks that the core does not import them directly. The tests here check
that they are not loaded at all. msgspec and returns load none of them.
prometheus_client loads most, because it can also serve HTTP; the core uses only its
renderer and its parser.
"""
TEXT_MODULES = {
    "tsfc.core.metrics.exposition",
    "tsfc.core.metrics.lint",
    "tsfc.core.native_metrics",
}
"Modules that render or parse metrics as text; all others handle metrics as data."

MODULES = [module.name for module in pkgutil.walk_packages(core.__path__, "tsfc.core.")]


def loaded_by(module: str) -> set[str]:
    """Return the impure modules that a new process has after importing one module."""
    program = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return IMPURE & set(run.stdout.split())


@pytest.mark.parametrize("module", [module for module in MODULES if module not in TEXT_MODULES])
def test_core_modules_load_no_impure_module(module: str) -> None:
    assert loaded_by(module) == set()


@pytest.mark.parametrize("module", sorted(TEXT_MODULES))
def test_text_modules_load_only_the_impure_modules_of_prometheus_client(module: str) -> None:
    assert loaded_by(module) == loaded_by("prometheus_client, prometheus_client.parser")
