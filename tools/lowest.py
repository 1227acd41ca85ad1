"""Prints the run-time dependencies at the lowest versions that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import tomllib
from pathlib import Path


def main() -> None:
    """Reads the dependencies from the one place that has them."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for dependency in project["dependencies"]:
        print(dependency.replace(">=", "=="))


if __name__ == "__main__":
    main()
