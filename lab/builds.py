"""Build the programs of the lab, once, into a cache outside the checkout."""

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
"The newest Tailscale release."
OLDEST = "v1.78.3"
"The oldest supported release: 1.78 is the first with `tailscale metrics print`."
LEAST_GO = (1, 26, 6)
"The Go version in go.mod of Tailscale v1.102.3."
PROGRAMS = ("ip", "nft", "nsenter", "setpriv", "unshare")
SERVER = Path(__file__).parent / "server"
"Source directory of the coordination server."


class BuildError(Exception):
    """A build failed. The message is one line: which program, and why."""


@cache
def missing() -> str | None:
    """Return the first requirement of the lab that this machine lacks, in one line."""
    if os.geteuid() != 0:
        return "the lab needs root to create network namespaces"
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"the lab needs {program}; install iproute2, nftables and util-linux"
    least = ".".join(map(str, LEAST_GO))
    if shutil.which("go") is None:
        return f"the lab needs Go {least} or newer; there is no go on PATH"
    output = subprocess.run(
        ["go", "env", "GOVERSION"], capture_output=True, text=True, check=False, env=_environment()
    ).stdout.strip()
    version = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", output)
    if version is None:
        return f"the lab needs Go {least} or newer; `go env GOVERSION` printed {output!r}"
    if tuple(int(part or 0) for part in version.groups()) < LEAST_GO:
        return f"the lab needs Go {least} or newer; this is Go {output.removeprefix('go')}"
    return None


def tailscale(version: str) -> Path:
    """Return the directory of `tailscale` and `tailscaled`; build them if needed.

    Args:
        version: the release, such as `v1.102.3`.

    Raises:
        BuildError: the build failed.
    """
    programs = ("tailscale", "tailscaled")
    modules = [f"tailscale.com/cmd/{program}@{version}" for program in programs]
    return _installed(
        version,
        title=f"tailscale and tailscaled {version}",
        source=Path("/"),
        command=["go", "install", *modules],
        programs=programs,
    )


def server() -> Path:
    """Return the path of the coordination server; build it if needed.

    Raises:
        BuildError: the build failed.
    """
    digest = hashlib.sha256(
        b"".join((SERVER / name).read_bytes() for name in ("main.go", "go.mod", "go.sum"))
    ).hexdigest()
    directory = _installed(
        f"server-{digest[:12]}",
        title="the coordination server",
        source=SERVER,
        command=["go", "install", "."],
        programs=("server",),
    )
    return directory / "server"


def _installed(
    name: str, *, title: str, source: Path, command: list[str], programs: tuple[str, ...]
) -> Path:
    """Return a directory of the cache; run the command if it does not exist.

    The directory is renamed into place, so it has either all programs or does not
    exist.
    """
    directory = cache_directory() / name
    if directory.is_dir():
        return directory
    with _lock(), tempfile.TemporaryDirectory(dir=cache_directory()) as scratch:
        # Another process may have built it while this one waited for the lock.
        if not directory.is_dir():
            print(f"lab: building {title}, once: ", end="", file=sys.stderr, flush=True)
            start = time.monotonic()
            _build(title, source, command, programs, binaries=Path(scratch, "bin"))
            Path(scratch, "bin").rename(directory)
            print(f"{time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return directory


def _build(
    title: str, source: Path, command: list[str], programs: tuple[str, ...], *, binaries: Path
) -> None:
    build = subprocess.run(
        command,
        cwd=source,
        env=_environment() | {"GOBIN": str(binaries)},
        capture_output=True,
        text=True,
        check=False,
    )
    if build.returncode != 0 or not all((binaries / program).exists() for program in programs):
        print("failed", file=sys.stderr)
        lines = build.stderr.strip().splitlines() or [f"exit status {build.returncode}"]
        raise BuildError(f"building {title} with `{' '.join(command)}`: {lines[-1]}")


def _environment() -> dict[str, str]:
    """Environment of Go: the installed toolchain, and no cgo, for static programs."""
    return os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath", "GOTOOLCHAIN": "local"}


def cache_directory() -> Path:
    """Return the directory of the built programs and of the PID file of `make lab`."""
    directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "tsfc-lab")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@contextmanager
def _lock() -> Generator[None]:
    """Hold the lock of the cache, so that one process builds at a time."""
    with (cache_directory() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
