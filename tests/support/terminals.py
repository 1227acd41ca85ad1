"""Programs on a terminal."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable

from support.processes import DEADLINE_SECONDS


def _do_nothing(_: bytes) -> None:
    """Ignore the output so far."""


def output_of(
    process: subprocess.Popen[bytes], ours: int, on_output: Callable[[bytes], object] = _do_nothing
) -> bytes:
    """Read the output of a program until it closes its terminal; then reap it.

    `ours` is our side of the terminal, the other one must be closed. `on_output` is
    called with all output so far, each time that there is more. The program is killed
    after `DEADLINE_SECONDS`, and the test fails.
    """
    output = b""
    deadline = time.monotonic() + DEADLINE_SECONDS
    poll = select.poll()
    poll.register(ours, select.POLLIN)
    try:
        while True:
            left = deadline - time.monotonic()
            assert left > 0, f"the program has not ended: {output[-200:]!r}"
            if not poll.poll(left * 1000):
                continue
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: Linux's end of file of a terminal
                return output
            if not piece:
                return output
            output += piece
            on_output(output)
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait(DEADLINE_SECONDS)
        os.close(ours)
