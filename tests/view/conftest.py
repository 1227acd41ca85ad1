"""Fixtures of the tests of the views."""

from __future__ import annotations

from pathlib import Path

import pytest

from .node import Node


@pytest.fixture
def node(box: Path) -> Node:
    """A node without a status; its watchdog has not run."""
    return Node(box)
