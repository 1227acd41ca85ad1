"""Entry point of ``python -m tsfc``."""

from __future__ import annotations

from tsfc.cli.main import entry

if __name__ == "__main__":
    entry()
