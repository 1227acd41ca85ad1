"""A progress bar is there on a terminal, between what is printed, and nowhere else."""

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
    """Runs tsfc on a terminal of its own; returns all that was written there."""
    ours, theirs = pty.openpty()
    written = b""
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
                written += piece
        except OSError:  # Linux's word for the end
            pass
    os.close(ours)
    return written.decode()


def test_the_bar_is_between_the_lines_and_gone_in_the_end(box: Path) -> None:
    captures = [str(box / f"{number}.ndjson") for number in range(3)]
    for number, capture in enumerate(captures):
        Path(capture).write_text(text(hectic(number, 30)))
    piped = run("replay", *captures)
    assert "captures" not in piped.stdout + piped.stderr
    shown = _on_terminal("replay", *captures)
    lines = [line for line in CONTROL.sub("", shown.replace("\r", "\n")).split("\n") if line]
    bars = [line for line in lines if line.startswith("captures ")]
    assert any(re.search(r" [123]/3 ", bar) for bar in bars)
    assert [line for line in lines if line not in bars] == [
        line for line in piped.stdout.split("\n") if line
    ]
