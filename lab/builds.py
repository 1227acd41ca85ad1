"""The programs of a lab, built from Go modules: once, into a cache outside of the work tree."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

NEWEST = "v1.102.3"
"The newest Tailscale."
OLDEST = "v1.78.3"
"The oldest that tsfc supports: 1.78 is the first with `tailscale metrics print`."
LEAST_GO = (1, 26, 6)
"What Tailscale v1.102.3 wants, by its go.mod."
PROGRAMS = ("ip", "nft", "nsenter", "setpriv", "unshare")
SERVER = Path(__file__).parent / "server"
"The sources of the coordination server."


class BuildError(Exception):
    """A program could not be built; the text says which and why, in one line."""


@cache
def missing() -> str | None:
    """Says in one line what a lab takes and this machine has not, if so."""
    if os.geteuid() != 0:
        return "a lab takes root, for its network namespaces"
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"a lab takes {program}; Debian has it in iproute2, nftables or util-linux"
    wanted = ".".join(map(str, LEAST_GO))
    if shutil.which("go") is None:
        return f"a lab takes Go {wanted} or newer, and there is no go on PATH"
    version = subprocess.run(
        ["go", "env", "GOVERSION"], capture_output=True, text=True, check=False, env=_environment()
    ).stdout.strip()
    found = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", version)
    if found is None or tuple(int(part or 0) for part in found.groups()) < LEAST_GO:
        return f"a lab takes Go {wanted} or newer, and this one is {version.removeprefix('go') or 'of no known version'}"
    return None


def tailscale(version: str) -> Path:
    """Returns the directory that has `tailscale` and `tailscaled` of a release, like `v1.102.3`; builds them where it has to.

    Raises:
        BuildError: they cannot be built.
    """
    commands = ("tailscale", "tailscaled")
    modules = [f"tailscale.com/cmd/{command}@{version}" for command in commands]
    return _built(
        version,
        f"tailscale and tailscaled {version}",
        Path("/"),
        ["go", "install", *modules],
        commands,
    )


def server() -> Path:
    """Returns the coordination server's program; builds it where it has to.

    Raises:
        BuildError: it cannot be built.
    """
    digest = hashlib.sha256(
        b"".join((SERVER / name).read_bytes() for name in ("main.go", "go.mod", "go.sum"))
    ).hexdigest()
    return (
        _built(
            f"server-{digest[:12]}",
            "the coordination server",
            SERVER,
            ["go", "install", "."],
            ("server",),
        )
        / "server"
    )


def _built(
    name: str, what: str, where: Path, command: list[str], programs: tuple[str, ...]
) -> Path:
    """Returns a directory of the cache that has these programs: all of them, or there is no such directory."""
    wanted = cache_directory() / name
    if not wanted.is_dir():
        with _lock(), tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
            if not wanted.is_dir():
                print(f"lab: building {what}, once: ", end="", file=sys.stderr, flush=True)
                began = time.monotonic()
                built = Path(scratch, "bin")
                done = subprocess.run(
                    command,
                    cwd=where,
                    env=_environment() | {"GOBIN": str(built)},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode != 0 or not all(
                    (built / program).exists() for program in programs
                ):
                    print("failed", file=sys.stderr)
                    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[
                        -1
                    ]
                    raise BuildError(f"building {what} with `{' '.join(command)}`: {last}")
                built.rename(wanted)
                print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return wanted


def _environment() -> dict[str, str]:
    """Returns what Go is run with: no C compiler, so that a program runs on every machine of this kind, and no other Go than the one that is here."""
    return os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath", "GOTOOLCHAIN": "local"}


def cache_directory() -> Path:
    """Returns where the programs are, and what is known of a lab that was left up."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tsfc-lab")
    place.mkdir(parents=True, exist_ok=True)
    return place


@contextmanager
def _lock() -> Generator[None]:
    """Lets one build at a time, of all processes: the others then find what it has built."""
    with (cache_directory() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
