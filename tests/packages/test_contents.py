"""Each package has all files that tsfc needs."""

from __future__ import annotations

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from packages.debian import ROOT

pytestmark = pytest.mark.slow

SOURCE = {
    str(path.relative_to(ROOT / "src"))
    for path in (ROOT / "src/tsfc").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
"Files of the program; some of them are not code, such as units."
CHECKS_NOTHING = (1).to_bytes(4, "little")
"Flags of compiled code that is not compared with its source (PEP 552)."


def test_the_wheel_has_all_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if name.startswith("tsfc/")} == SOURCE


def content_of_deb(deb: Path) -> dict[str, bytes]:
    """Regular files of a Debian package."""
    packed = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(deb)], check=True, capture_output=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        files = [entry for entry in tar if entry.isfile()]
        assert {(entry.uname, entry.mode & 0o022) for entry in files} == {("root", 0)}
        return {entry.name: file.read() for entry in files if (file := tar.extractfile(entry))}


def content_of_pyz(pyz: Path) -> dict[str, bytes]:
    """Files of the archive inside of a zipapp."""
    with (
        zipfile.ZipFile(pyz) as outer,
        outer.open("tsfc.zip") as inner,
        zipfile.ZipFile(inner) as archive,
    ):
        # Python reads the whole list at each start.
        assert len(outer.namelist()) <= 6
        return {name: archive.read(name) for name in archive.namelist()}


def check(content: dict[str, bytes]) -> None:
    """Check that all files of tsfc are there, and the compiled code of all modules."""
    site = next(name for name in content if name.endswith("/tsfc/py.typed")).removesuffix(
        "tsfc/py.typed"
    )
    names = {name.removeprefix(site) for name in content if name.startswith(site)}
    assert names >= SOURCE
    for name in ("msgspec/__init__.py", "httptools/__init__.py", "rich/__init__.py"):
        assert name in names
    modules = [name for name in content if name.endswith(".py") and name.startswith(site)]
    assert len(modules) > 500
    for name in modules:
        directory, _, file = name.rpartition("/")
        compiled = [
            data
            for path, data in content.items()
            if path.startswith(f"{directory}/__pycache__/{file.removesuffix('.py')}.cpython-")
        ]
        assert [data[4:8] for data in compiled] == [CHECKS_NOTHING], name


def test_the_debian_package_has_all_files_compiled(deb: Path) -> None:
    content = content_of_deb(deb)
    check(content)
    assert {
        "./usr/share/bash-completion/completions/tsfc",
        "./usr/share/doc/tsfc/README.md",
        "./usr/share/doc/tsfc/copyright",
        "./usr/share/doc/tsfc/docs/jobs.md",
        "./usr/share/fish/vendor_completions.d/tsfc.fish",
        "./usr/share/man/man1/tsfc-peers.1",
        "./usr/share/zsh/site-functions/_tsfc",
    } <= set(content)


def test_the_zipapp_has_all_files_compiled(pyz: Path) -> None:
    check(content_of_pyz(pyz))
