"""Print pip constraints for the lowest versions that pyproject.toml allows."""

from __future__ import annotations

import tomllib
from pathlib import Path


def main() -> None:
    """Print one constraint per runtime dependency."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for dependency in project["dependencies"]:
        print(dependency.replace(">=", "=="))


if __name__ == "__main__":
    main()
