"""systemd: its programs, and the restart of a unit by `systemctl` or by somebody who may."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Sequence

from returns.result import Failure, Result, Success

from tsfc.core.text import one_line
from tsfc.core.watchdog.remedy import Done, Failed, Outcome
from tsfc.shell import program
from tsfc.shell.unix_stream import connect, receive

TIMEOUT_SECONDS = 200.0
"A unit has, unless it says otherwise, 90 s to stop and 90 s to start (`DefaultTimeoutStopSec`, `DefaultTimeoutStartSec`)."
DONE = b"done\n"
"The answer to who asks for a restart, when it was done (`units.json`)."
_ANSWER_LIMIT = 2**16
"Bytes of such an answer."


def restart(unit: str) -> Outcome:
    """Restarts the unit and waits until it has started again."""
    tried = f"restarting with `systemctl restart {unit}`"
    if shutil.which("systemctl") is None:
        return Failed(f"{tried}: there is no systemctl on PATH; the watchdog needs systemd")
    done = perform(
        ("systemctl", "restart", unit),
        tried=tried,
        advice=f"see `systemctl status {unit}`, and --unit",
        timeout=TIMEOUT_SECONDS,
    )
    return Failed(done.failure()) if isinstance(done, Failure) else Done()


def perform(argv: Sequence[str], *, tried: str, advice: str, timeout: float) -> Result[None, str]:
    """Runs a program for what it does, `timeout` seconds at most; a failure is one line, from what was `tried` to the `advice`."""
    ran = program.run(argv, timeout=timeout)
    if isinstance(ran, Failure):
        problem: program.TimedOut | program.StartError = ran.failure()
        match problem:
            case program.TimedOut(seconds=seconds):
                return Failure(f"{tried}: not done within {seconds:g} s; {advice}")
            case program.StartError(detail=detail):
                return Failure(f"{tried}: {detail}; {advice}")
    completed = ran.unwrap()
    return (
        Success(None)
        if completed.status == 0
        else Failure(f"{tried}: {completed.complaint()}; {advice}")
    )


def ask_for_restart(unit: str, path: str) -> Outcome:
    """Has the unit restarted by whom it finds at the unix socket `path`, as `tailscale-watchdog-restart.socket` puts one there.

    To connect is to ask, and nothing is sent: so the other side does one thing, whoever asks. It says `done` when the unit
    has started again, or what went wrong.
    """
    tried = f"asking for a restart of {unit} over {path}"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    said = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connect(connection, path, deadline)
            while len(said) < _ANSWER_LIMIT and (piece := receive(connection, deadline)):
                said += piece
    except TimeoutError:
        return Failed(
            f"{tried}: not done within {TIMEOUT_SECONDS:g} s; see `systemctl status {unit}`"
        )
    except OSError as error:
        return Failed(
            f"{tried}: {error.strerror or error}; see `systemctl status tailscale-watchdog-restart.socket`, and --restart-socket"
        )
    if bytes(said) == DONE:
        return Done()
    return Failed(
        f"{tried}: {one_line(said.decode(errors='replace')) or 'the connection was closed without an answer'}; see `systemctl status {unit}`"
    )
