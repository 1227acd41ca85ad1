"""Fake `tailscale` and `systemctl`: shell scripts that log their calls."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def program(directory: Path, name: str, body: str = "exit 0") -> Path:
    """Write a shell script that logs its arguments and then runs `body`.

    It has the PATH of the tests, whatever PATH its caller has. `systemctl show` changes
    nothing, so it is not logged and only prints `NAME.shown`, if that file exists.
    """
    path = directory / name
    path.write_text(f"""#!/bin/sh
PATH={shlex.quote(os.environ["PATH"])}
case $1 in show) cat {shlex.quote(str(path))}.shown 2>/dev/null; exit 0; esac
printf '%s\\n' "$*" >> {shlex.quote(str(_log(directory, name)))}
{body}
""")
    path.chmod(0o755)
    return path


def calls(directory: Path, name: str) -> list[str]:
    """Return the arguments of each call of a program, in order."""
    log = _log(directory, name)
    return log.read_text().splitlines() if log.exists() else []


def _log(directory: Path, name: str) -> Path:
    return directory / f"{name}.calls"
