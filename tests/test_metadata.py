"""What a package index, or `pip show`, says about the package."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    """Metadata of the project, as its build backend makes them."""
    ran = subprocess.run(
        [sys.executable, "-m", "hatchling", "metadata"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    made: dict[str, Any] = json.loads(ran.stdout)
    return made


def test_the_description_has_no_link_that_an_index_cannot_open(metadata: dict[str, Any]) -> None:
    """If the repository has a public address, the links begin with it."""
    text, base = metadata["readme"]["text"], metadata.get("urls", {}).get("Source")
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert [link for link in links if not link.startswith("https://")] == []
    relative = re.findall(
        r"(?<!!)\[[^\]\n]*\]\((?!https:)([^)]*)\)", (ROOT / "README.md").read_text()
    )
    assert len(relative) > 10
    assert base is None or {f"{base}/{link}" for link in relative} <= set(links)


def test_the_description_is_the_readme_otherwise(metadata: dict[str, Any]) -> None:
    """No pattern of a link takes more of the text with it than a link."""
    readme = (ROOT / "README.md").read_text()
    without_pictures = re.sub(r"^!\[.*\]\(.*\)\n\n", "", readme, flags=re.MULTILINE)
    words = re.sub(r"\]\([^)\s]*\)", "", without_pictures).replace("[", "")
    described = re.sub(r"\]\([^)\s]*\)", "", metadata["readme"]["text"]).replace("[", "")
    assert described == words


def test_it_is_a_program_for_administrators(metadata: dict[str, Any]) -> None:
    assert metadata["authors"] == [{"name": "tsfc developers"}]
    assert {
        "Environment :: Console",
        "Intended Audience :: System Administrators",
        f"Programming Language :: Python :: {sys.version_info.major}.{sys.version_info.minor}",
    } <= set(metadata["classifiers"])


def test_each_dependency_has_its_reason_and_its_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = [*project["dependencies"], *extras["fleet"], *extras["report"]]
    rows = re.findall(
        r"^\| ([a-z0-9-]+) \| [^|]+ \| ([^|]+) \|$",
        (ROOT / "CONTRIBUTING.md").read_text(),
        re.MULTILINE,
    )
    assert [name for name, _ in rows[1:]] == [re.split("[>=]", name)[0] for name in required]
    for name, licence in rows[1:]:
        about = distribution(name).metadata
        stated = about["License-Expression"] or about["License"]
        assert stated in {licence, None}, name  # jinja2 has only a file
