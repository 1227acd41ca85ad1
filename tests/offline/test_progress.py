"""The progress bar: on a terminal only, and never in the middle of a line."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from support.captures import hectic, text
from support.processes import run

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _on_terminal(*arguments: str) -> str:
    """Run tsfc on a terminal; return everything that was written there."""
    ours, theirs = pty.openpty()
    output = b""
    with subprocess.Popen(
        [sys.executable, "-m", "tsfc", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    ):
        os.close(theirs)
        try:
            while piece := os.read(ours, 65536):
                output += piece
        except OSError:  # the end of a terminal on Linux
            pass
    os.close(ours)
    return output.decode()


def test_a_terminal_shows_the_bar_between_the_lines_and_no_bar_at_the_end(box: Path) -> None:
    captures = [str(box / f"{number}.ndjson") for number in range(3)]
    for number, capture in enumerate(captures):
        Path(capture).write_text(text(hectic(number, 30)))
    piped = run("replay", *captures)
    assert "captures" not in piped.stdout + piped.stderr
    output = _on_terminal("replay", *captures)
    lines = [line for line in CONTROL.sub("", output.replace("\r", "\n")).split("\n") if line]
    bars = [line for line in lines if line.startswith("captures ")]
    assert any(re.search(r" [123]/3 ", bar) for bar in bars)
    assert [line for line in lines if line not in bars] == [
        line for line in piped.stdout.split("\n") if line
    ]
