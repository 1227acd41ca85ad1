"""What a process sees of a directory that is replaced, in a mount namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.required import require
from tsfc.agent import sight

SANDBOXED = """
set -e
mkdir -p "$1/run/tailscale" "$1/sandbox"
mount -t tmpfs tmpfs "$1/sandbox"
mkdir "$1/sandbox/tailscale"
mount --bind "$1/run/tailscale" "$1/sandbox/tailscale"
mount -o remount,ro "$1/sandbox"
say() { "$2" -c "import sys
from tsfc.agent import sight
print(*[f(d) for d in sys.argv[1:] for f in (sight.is_deleted, sight.cannot_appear)])" \\
  "$1/sandbox/tailscale" "$1/sandbox/other/a" "$1/run/other/a"; }
say "$1" "$2"
rmdir "$1/run/tailscale"
mkdir "$1/run/tailscale"
say "$1" "$2"
"""


def test_a_replaced_directory_and_one_that_cannot_appear_are_told_from_others(box: Path) -> None:
    unshare = ("unshare", "--mount", "--propagation=private")
    works = subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0
    require(None if works else "unshare --mount is not permitted")
    ran = subprocess.run(
        [*unshare, "sh", "-c", SANDBOXED, "sh", str(box), sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stderr, ran.stdout.splitlines()) == (
        "",
        ["False False False True False False", "True False False True False False"],
    )


def test_without_a_sandbox_no_directory_is_lost(box: Path) -> None:
    for directory in (str(box), f"{box}/missing", f"{box}/missing/below"):
        assert not sight.is_deleted(directory)
        assert not sight.cannot_appear(directory)
