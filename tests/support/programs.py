"""Stand-ins for `tailscale` and `systemctl`: small scripts that note how they were called."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def program(directory: Path, name: str, body: str = "exit 0") -> Path:
    """Writes a shell script that notes its arguments and then does `body`; it finds its tools where the tests do, whatever its PATH."""
    path = directory / name
    path.write_text(f"""#!/bin/sh
PATH={shlex.quote(os.environ["PATH"])}
printf '%s\\n' "$*" >> {shlex.quote(str(_log(directory, name)))}
{body}
""")
    path.chmod(0o755)
    return path


def calls(directory: Path, name: str) -> list[str]:
    """Returns the arguments of each call of a program, in the order of the calls."""
    log = _log(directory, name)
    return log.read_text().splitlines() if log.exists() else []


def _log(directory: Path, name: str) -> Path:
    return directory / f"{name}.calls"
