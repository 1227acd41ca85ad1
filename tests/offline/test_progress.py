"""The progress bar: on a terminal only, and never in the middle of a line."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.captures import TIMELINE, hectic, text
from support.processes import run
from support.terminals import output_of

MAIN = "from tsfc.__main__ import entry; entry()"
ALWAYS = "from tsfc.offline import progress; progress.QUIET_SECONDS = 0"
"Draws the bar after each observation."
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def _on_terminal(
    *arguments: str, interrupt_at: bytes | None = None, before: str = ""
) -> tuple[int, str]:
    """Run tsfc on a terminal; return its status and all that was written there.

    Interrupt it when the output contains `interrupt_at`. `before` is a Python statement
    that the process executes first.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", f"{before}\n{MAIN}", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(theirs)

    pending = [] if interrupt_at is None else [interrupt_at]

    def interrupt_once(output: bytes) -> None:
        if pending and pending[0] in output:
            pending.clear()
            process.send_signal(signal.SIGINT)

    output = output_of(process, ours, interrupt_once)
    return process.returncode, output.decode()


def test_a_terminal_shows_the_bar_between_the_lines_and_no_bar_at_the_end(box: Path) -> None:
    captures = [str(box / f"{number}.ndjson") for number in range(3)]
    for number, capture in enumerate(captures):
        Path(capture).write_text(text(hectic(number, 30)))
    piped = run("replay", *captures)
    assert "captures" not in piped.stdout + piped.stderr
    _, output = _on_terminal("replay", *captures)
    lines = [line for line in CONTROL.sub("", output.replace("\r", "\n")).split("\n") if line]
    bars = [line for line in lines if line.startswith("captures ")]
    assert any(re.search(r" [123]/3 ", bar) for bar in bars)
    assert [line for line in lines if line not in bars] == [
        line for line in piped.stdout.split("\n") if line
    ]


def test_a_signal_hides_the_bar_and_shows_the_cursor(box: Path) -> None:
    """The captures never end: they are named pipes."""
    fifos = [box / f"f{number}" for number in range(2)]
    for fifo in fifos:
        os.mkfifo(fifo)
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    status, output = _on_terminal("replay", *map(str, fifos), interrupt_at=b"0/2")
    assert status == 130
    assert output.rindex(shown) > output.rindex(hidden)
    *_, rest = output.rpartition(shown)
    assert rest == "tsfc: ended by SIGINT before it was done\r\n"


@pytest.mark.parametrize(
    ("arguments", "bar"),
    [
        (("simulate", "restart-cures", "--days=1"), r"simulated hours .* 23/24 "),
        (("replay", str(TIMELINE)), r"observations .* 30/\? "),
    ],
    ids=["simulate", "replay"],
)
def test_a_single_run_shows_how_far_it_is(arguments: tuple[str, ...], bar: str) -> None:
    piped = run(*arguments)
    status, output = _on_terminal(*arguments, before=ALWAYS)
    lines = [line for line in CONTROL.sub("", output.replace("\r", "\n")).split("\n") if line]
    bars = [line for line in lines if line.startswith(bar.split(" .*", maxsplit=1)[0])]
    assert re.match(bar, bars[-1])
    assert [line for line in lines if line not in bars] == [
        line for line in piped.stdout.split("\n") if line
    ]
    assert (status, piped.status, piped.stderr) == (0, 0, "")
