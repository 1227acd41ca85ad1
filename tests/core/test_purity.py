from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from tsfc import core

WORLD = {
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
"""Modules that reach out of the process, or are dear to load.

That the core does not import them itself is import-linter's to check; here it is that they are not even there. msgspec
and returns load none of them. prometheus_client loads most, for it can serve HTTP, too; of it the core uses the renderer
and the parser.
"""
RENDERS = {
    "tsfc.core.metrics.exposition",
    "tsfc.core.metrics.lint",
    "tsfc.core.native_metrics",
}
"The modules that turn metrics into text, or read that; all others know them as data."

MODULES = [module.name for module in pkgutil.walk_packages(core.__path__, "tsfc.core.")]


def loaded_by(module: str) -> set[str]:
    """Which modules of the world there are in a fresh process that imports one module."""
    program = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return WORLD & set(run.stdout.split())


@pytest.mark.parametrize("module", [module for module in MODULES if module not in RENDERS])
def test_a_module_of_the_core_loads_nothing_of_the_world(module: str) -> None:
    """A fresh process that decides has no socket, no child, and nothing that could make one."""
    assert loaded_by(module) == set()


@pytest.mark.parametrize("module", sorted(RENDERS))
def test_a_module_that_renders_loads_what_prometheus_client_does(module: str) -> None:
    """And nothing else of the world."""
    assert loaded_by(module) == loaded_by("prometheus_client, prometheus_client.parser")
