"""The optional dependencies of tsfc, which are its extras in pyproject.toml."""

from __future__ import annotations

from typing import Literal


def advice(extra: Literal["report", "fleet"]) -> str:
    """Return how to install an extra, for the end of an error.

    No package index has tsfc, so the advice names the page for each kind of
    installation instead of one command.
    """
    return f"install the extra {extra!r} of tsfc: docs/offline.md says how"
