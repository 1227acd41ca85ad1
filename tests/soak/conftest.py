"""Settings of `make soak`."""

from __future__ import annotations

import os
import secrets

import pytest


@pytest.fixture
def repetitions() -> int:
    """How often each test repeats: `TSFC_SOAK`, or 1,000."""
    return int(os.environ.get("TSFC_SOAK", "1000"))


@pytest.fixture
def seed() -> int:
    """The seed of a test: `TSFC_SOAK_SEED`, or a random one. The test prints it."""
    return int(os.environ.get("TSFC_SOAK_SEED", str(secrets.randbelow(2**32))))
