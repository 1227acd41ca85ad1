"""Build the Debian package and the zipapp into `dist/`.

Both have the same files: the wheel of this checkout and of each library, installed and
compiled for one version of Python. Usage: `python -m tools.packages.build {deb,pyz}`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipapp
from pathlib import Path
from string import Template
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from tools.packages.launcher import ARCHIVE, complete, site_packages

ROOT = Path(__file__).parents[2]
PREFIX = "/usr/lib/tsfc"
"Where the Debian package has its files."
DEB = Path(__file__).parent / "deb"
MIXIN = "src/tsfc/mixin/files"
"Runbooks and examples, to which the pages link."
SCRIPTS = ("postinst", "prerm", "postrm")
SHARE = ("bash-completion", "fish", "man", "zsh")
"Directories of the wheel's `share/` that other programs read."
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"Time of the files in an archive, so that it depends only on their content."


class Python(NamedTuple):
    """The interpreter that a package is for."""

    path: str
    "Path whose name has the version, such as `/usr/bin/python3.11`."
    version: tuple[int, int]


def main() -> None:
    """Build the package that the command line names, and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("deb", "pyz"))
    parser.add_argument("--python", default="/usr/bin/python3", help="Python of the hosts")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="directory")
    options = parser.parse_args()
    os.umask(0o022)
    options.output.mkdir(exist_ok=True)
    build = build_deb if options.kind == "deb" else build_pyz
    with tempfile.TemporaryDirectory(prefix="tsfc-package-") as scratch:
        print(build(_python(options.python), Path(scratch), options.output))


def build_deb(python: Python, scratch: Path, output: Path) -> Path:
    """Build the Debian package with dpkg-deb."""
    root, prefix = scratch / "root", scratch / "root" / PREFIX.removeprefix("/")
    _install(prefix, python)
    complete(str(prefix), PREFIX, python.path)
    (root / "usr/bin").mkdir()
    (root / "usr/bin/tsfc").symlink_to("../lib/tsfc/bin/tsfc")
    for name in SHARE:
        shutil.copytree(prefix / "share" / name, root / "usr/share" / name)
    shutil.rmtree(prefix / "share")
    # `--help` looks for the documentation in the prefix.
    (prefix / "share").symlink_to("../../share")
    _document(root / "usr/share/doc/tsfc")
    control = root / "DEBIAN"
    control.mkdir()
    values = {
        "version": _debian_version(),
        "architecture": _output("dpkg", "--print-architecture"),
        "python": os.path.basename(python.path),
        "kibibytes": _output("du", "-sk", str(root)).split()[0],
    }
    (control / "control").write_text(Template((DEB / "control").read_text()).substitute(values))
    for name in SCRIPTS:
        shutil.copy(DEB / name, control / name)
        (control / name).chmod(0o755)
    package = output / "tsfc_{version}_{architecture}.deb".format(**values)
    _run("dpkg-deb", "--root-owner-group", "--build", str(root), str(package))
    return package


def build_pyz(python: Python, scratch: Path, output: Path) -> Path:
    """Build the zipapp with zipapp of the standard library.

    It has only a few files, because Python reads the list of them at each start; the
    others are in an archive inside.
    """
    files, content = scratch / "files", scratch / "zipapp"
    content.mkdir()
    _install(files, python)
    archive = content / ARCHIVE
    _archive(files, archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()[:12]
    shutil.copy(Path(__file__).with_name("launcher.py"), content)
    (content / "__main__.py").write_text(
        "from launcher import main\n\n"
        f"main({f'{_version()}-{digest}'!r}, {python.version!r}, {platform.machine()!r})\n"
    )
    _compile(python, content, "-b")
    name = "tsfc-{}-python{}.{}-{}.pyz".format(_version(), *python.version, platform.machine())
    # Isolated from the environment and from the user's libraries, as the units are.
    zipapp.create_archive(content, output / name, interpreter=f"{python.path} -I")
    (output / name).chmod(0o755)
    return output / name


def _install(prefix: Path, python: Python) -> None:
    """Install tsfc and its libraries into `lib/`, with compiled files, and `share/`."""
    site = Path(site_packages(str(prefix), python.version))
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", python.path)
    arguments = ("--root-user-action=ignore", "--no-compile", "--target", str(site))
    _run(*pip, "install", *arguments, str(ROOT))
    shutil.rmtree(site / "bin")
    (site / "share").rename(prefix / "share")
    _compile(python, site)


def _compile(python: Python, directory: Path, *arguments: str) -> None:
    """Compile all files, for their path in `directory`.

    Archives change the times of files, so Python must not compare them.
    """
    command = (python.path, "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash")
    _run(*command, "-s", str(directory), *arguments, str(directory))


def _archive(directory: Path, archive: Path) -> None:
    with ZipFile(archive, "w", ZIP_DEFLATED) as file:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                entry = ZipInfo(str(path.relative_to(directory)), LONG_AGO)
                file.writestr(entry, path.read_bytes(), ZIP_DEFLATED)


def _document(directory: Path) -> None:
    """Copy the documentation, as pages that link to each other."""
    directory.mkdir(parents=True)
    shutil.copytree(ROOT / "docs", directory / "docs")
    shutil.copytree(ROOT / MIXIN, directory / "mixin")
    shutil.copy(ROOT / "README.md", directory)
    for page in (directory / "README.md", *(directory / "docs").glob("*.md")):
        page.write_text(page.read_text().replace(f"{MIXIN}/", "mixin/"))
    shutil.copy(DEB / "copyright", directory)
    changes = (ROOT / "CHANGELOG.md").read_bytes()
    (directory / "changelog.gz").write_bytes(gzip.compress(changes, mtime=0))


def _python(path: str) -> Python:
    code = "import os, sys; print(os.path.realpath(sys.executable), *sys.version_info[:2])"
    real, major, minor = _output(path, "-c", code).split()
    return Python(real, (int(major), int(minor)))


def _version() -> str:
    with (ROOT / "pyproject.toml").open("rb") as file:
        version: str = tomllib.load(file)["project"]["version"]
    return version


def _debian_version() -> str:
    """Return the version in Debian's order: `0.2.0~dev0` is older than `0.2.0`."""
    return re.sub(r"\.?(dev|a|b|rc)(\d)", r"~\1\2", _version())


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
