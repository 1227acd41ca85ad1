"""systemd: restarting a unit, by `systemctl` or by a privileged helper."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Sequence

from returns.result import Failure, Result, Success

from tsfc.core.text import one_line
from tsfc.core.watchdog.remedy import Declined, Done, Failed, Outcome
from tsfc.shell import program
from tsfc.shell.unix_stream import connect, receive

TIMEOUT_SECONDS = 200.0
"""Timeout of a restart.

By default, a unit has 90 s to stop and 90 s to start (`DefaultTimeoutStopSec`,
`DefaultTimeoutStartSec`).
"""
_QUERY_SECONDS = 10.0
"Timeout of a call of `systemctl` that only reads or resets the state of a unit."
DONE = b"done\n"
"Response of the helper unit `tailscale-watchdog-restart@.service` after a restart."
STOPPED = "is stopped; a unit that was stopped on purpose is not restarted"
"What the helper says of such a unit, after its name."
_SEE_HELPER = "see `journalctl -u 'tailscale-watchdog-restart*'`"
"The helper is gone after each request, so only the journal has its status."
_RESPONSE_LIMIT = 2**16
"Maximum size of the helper's response in bytes."


def restart(unit: str) -> Outcome:
    """Restart the unit with `systemctl` and wait until it has started.

    A failed unit is started, even at its start limit. A stopped one is left alone,
    because an admin has stopped it.
    """
    action = f"restarting with `systemctl restart {unit}`"
    if shutil.which("systemctl") is None:
        return Failed(f"{action}: there is no systemctl on PATH; the watchdog needs systemd")
    match _state(unit):
        case "inactive" | "deactivating":
            return Declined(f"{action}: {unit} {STOPPED}; start it with `systemctl start {unit}`")
        case "failed":
            # If this fails, the restart fails too, with a better message.
            program.run(("systemctl", "reset-failed", unit), timeout=_QUERY_SECONDS)
        case _:
            pass
    result = run(
        ("systemctl", "restart", unit),
        action=action,
        advice=f"see `systemctl status {unit}`, and check --unit",
        timeout=TIMEOUT_SECONDS,
    )
    return Failed(result.failure()) if isinstance(result, Failure) else Done()


def _state(unit: str) -> str | None:
    """Return the `ActiveState` of a unit; None if it is not loaded, or unknown."""
    query = ("systemctl", "show", "--property=LoadState,ActiveState", unit)
    result = program.run(query, timeout=_QUERY_SECONDS)
    if isinstance(result, Failure):
        return None
    lines = result.unwrap().stdout.decode(errors="replace").splitlines()
    state = dict(line.split("=", 1) for line in lines if "=" in line)
    return state.get("ActiveState") if state.get("LoadState") == "loaded" else None


def run(argv: Sequence[str], *, action: str, advice: str, timeout: float) -> Result[None, str]:
    """Run a program for its effect, for at most `timeout` seconds.

    A failure is one line that begins with `action` and ends with `advice`.
    """
    result = program.run(argv, timeout=timeout)
    if isinstance(result, Failure):
        problem: program.TimedOut | program.StartError = result.failure()
        match problem:
            case program.TimedOut(seconds=seconds):
                return Failure(f"{action}: timed out after {seconds:g} s; {advice}")
            case program.StartError(detail=detail):
                return Failure(f"{action}: {detail}; {advice}")
    completed = result.unwrap()
    return (
        Success(None)
        if completed.status == 0
        else Failure(f"{action}: {completed.summary()}; {advice}")
    )


def ask_for_restart(unit: str, path: str) -> Outcome:
    """Ask the helper that listens on the Unix socket `path` to restart the unit.

    `tailscale-watchdog-restart.socket` starts the helper. Connecting is the request,
    and nothing is sent, so a client can cause nothing but this restart. The helper
    responds `done` after the unit has started, else with an error.
    """
    action = f"asking for a restart of {unit} over {path}"
    deadline = time.monotonic() + TIMEOUT_SECONDS
    response = bytearray()

    # Connect, and wait for the response.
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connect(connection, path, deadline)
            while piece := receive(connection, deadline, _RESPONSE_LIMIT - len(response)):
                response += piece
    except TimeoutError:
        return Failed(
            f"{action}: timed out after {TIMEOUT_SECONDS:g} s; see `systemctl status {unit}`"
        )
    except OSError as error:
        return Failed(
            f"{action}: {error.strerror or error}; "
            "see `systemctl status tailscale-watchdog-restart.socket`, and check --restart-socket"
        )

    # Any response but `done` is the helper's error.
    if bytes(response) == DONE:
        return Done()
    detail = one_line(response.decode(errors="replace"))
    if not detail:
        return Failed(f"{action}: the connection was closed without a response; {_SEE_HELPER}")
    if detail == f"{unit} {STOPPED}":
        return Declined(f"{action}: {detail}; start it with `systemctl start {unit}`")
    return Failed(f"{action}: {detail}; see `systemctl status {unit}`")
