from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from packages.debian import PYTHON, ROOT, Debian, directory_in_memory, unusable
from support.processes import short_directory
from support.required import program, require

BUILD = (sys.executable, "-m", "tools.packages.build", f"--python={PYTHON}")


def build(*arguments: str) -> Path:
    """Build a package and return its path."""
    done = subprocess.run(
        [*BUILD, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def output() -> Iterator[Path]:
    """A directory for packages."""
    with short_directory() as directory:
        yield directory


@pytest.fixture(scope="session")
def wheel(output: Path) -> Path:
    """The wheel, as pip builds it."""
    command = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir")
    subprocess.run([*command, str(output), str(ROOT)], check=True)
    return next(output.glob("*.whl"))


@pytest.fixture(scope="session")
def deb(output: Path) -> Path:
    """The Debian package for the Python of this machine's Debian."""
    program("dpkg-deb", "dpkg")
    require(unusable())
    return build(f"--output={output}", "deb")


@pytest.fixture(scope="session")
def pyz(output: Path) -> Path:
    """The zipapp for the Python of this machine's Debian."""
    require(unusable())
    return build(f"--output={output}", "pyz")


@pytest.fixture(scope="session")
def bootstrapped() -> Iterator[Debian]:
    """A Debian for all tests."""
    mmdebstrap = program("mmdebstrap", "mmdebstrap")
    require(unusable())
    with directory_in_memory() as root:
        debian = Debian(root / "debian")
        debian.bootstrap(mmdebstrap)
        yield debian


@pytest.fixture
def debian(bootstrapped: Debian) -> Iterator[Debian]:
    """A Debian that has only the essential packages and Python; tests leave nothing."""
    try:
        yield bootstrapped
    finally:
        bootstrapped.clean()
