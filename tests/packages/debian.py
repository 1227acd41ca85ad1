"""A Debian in a directory, in which packages are installed without a running systemd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.processes import Completed, short_directory

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}
NO_SYNC = "--dpkgopt=force-unsafe-io"
"The file system need not survive a crash."
UNPRIVILEGED = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
"Command that runs another one as `nobody`."


@dataclass(frozen=True)
class Debian:
    """A root file system of the same release as this machine's."""

    root: Path

    def bootstrap(self, mmdebstrap: str) -> None:
        """Create it from a mirror, with the Python that this machine has."""
        command = (mmdebstrap, "--quiet", "--mode=root", "--variant=minbase", NO_SYNC)
        python = f"--include={os.path.basename(os.path.realpath(PYTHON))}"
        subprocess.run([*command, python, _codename(), str(self.root)], check=True)

    def run(self, *command: str, check: bool = True) -> Completed:
        """Run a program in it as root; with `check` it must succeed."""
        done = subprocess.run(
            ["chroot", str(self.root), *command],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        ran = Completed(done.returncode, done.stdout, done.stderr)
        assert not check or ran.status == 0, (command, ran)
        return ran

    def path(self, inside: str) -> Path:
        """Return the path on this machine of a file."""
        return self.root / inside.removeprefix("/")

    def copy(self, file: Path) -> str:
        """Copy a file into it and return its path there."""
        shutil.copy(file, self.path("/srv") / f"tsfc-{file.name}")
        return f"/srv/tsfc-{file.name}"

    def own_files(self) -> set[str]:
        """Return the topmost files that have tsfc or tailscale in their names.

        Except for the logs and backups of dpkg, which are not the package's.
        """
        found = set[str]()
        for directory, directories, files in os.walk(self.root):
            own = {name for name in (*directories, *files) if re.search("tsfc|tailscale", name)}
            found |= {os.path.join(directory, name) for name in own}
            directories[:] = [name for name in directories if name not in own]
        return found

    def clean(self) -> None:
        """Remove the package, and everything with its names."""
        self.run("dpkg", "--purge", "--force-all", "tsfc", check=False)
        for path in map(Path, self.own_files()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


@contextmanager
def directory_in_memory() -> Generator[Path]:
    """Make a temporary directory that no disk slows down."""
    with short_directory() as directory:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", directory], check=True)
        try:
            yield directory
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)


def newer(deb: Path, version: str) -> Path:
    """Return a copy of a Debian package with another version."""
    tree, copy = deb.with_suffix(".tree"), deb.with_name(f"newer-{version}.deb")
    subprocess.run(["dpkg-deb", "--raw-extract", str(deb), str(tree)], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text(
        "".join(
            f"Version: {version}\n" if line.startswith("Version:") else f"{line}\n"
            for line in lines
        )
    )
    subprocess.run(["dpkg-deb", "-Znone", "--build", str(tree), str(copy)], check=True)
    shutil.rmtree(tree)
    return copy


def unusable() -> str | None:
    """Return in one line why packages cannot be tried here; None if they can."""
    if os.geteuid() != 0:
        return "trying packages needs root"
    return None if os.path.exists(PYTHON) else f"{PYTHON} is missing; it is in Debian's python3"


def _codename() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["VERSION_CODENAME"]
