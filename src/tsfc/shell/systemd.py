"""systemd: restarting a unit, by `systemctl` or by a privileged helper.

A restart on another port gives tailscaled the port 0, which means any free one
(`magicsock.Conn.bindSocket`), for one start. The unit must use the variable PORT, as
those of Tailscale and of nixpkgs do, and read it from `port.env`, as the drop-in of
`tsfc units` and of the NixOS module says. The file only exists during the restart, so
the next start uses the configured port again, whoever causes it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Sequence
from contextlib import suppress

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
_USES_PORT = re.compile(r"\$(PORT\b|\{PORT\})")
"A command line with the variable PORT, as systemd shows it."
_PORT_FILE = re.compile(r"(/run/tailscale-watchdog-restart(-\w+)?/port\.env) \(ignore_errors=yes\)")
"The environment file of the drop-in, as systemd shows it; an instance has its own."
_SEE_HELPER = "see `journalctl -u 'tailscale-watchdog-restart*'`"
"The helper is gone after each request, so only the journal has its status."
_RESPONSE_LIMIT = 2**16
"Maximum size of the helper's response in bytes."


async def restart(unit: str) -> Outcome:
    """Restart the unit with `systemctl` and wait until it has started.

    A failed unit is started, even at its start limit. A stopped one is left alone,
    because an admin has stopped it.
    """
    action = f"restarting with `systemctl restart {unit}`"
    if shutil.which("systemctl") is None:
        return Failed(f"{action}: there is no systemctl on PATH; the watchdog needs systemd")
    match await _state(unit):
        case "inactive" | "deactivating":
            return Declined(f"{action}: {unit} {STOPPED}; start it with `systemctl start {unit}`")
        case "failed":
            # If this fails, the restart fails too, with a better message.
            await program.run(("systemctl", "reset-failed", unit), timeout=_QUERY_SECONDS)
        case _:
            pass
    result = await run(
        ("systemctl", "restart", unit),
        action=action,
        advice=f"see `systemctl status {unit}`, and check --unit",
        timeout=TIMEOUT_SECONDS,
    )
    return Failed(result.failure()) if isinstance(result, Failure) else Done()


async def restart_on_other_port(unit: str) -> Outcome:
    """Restart the unit as `restart` does, but this start uses another port."""
    action = f"restarting {unit} on another port"
    found = await _port_file(unit)
    if isinstance(found, Failure):
        return Failed(f"{action}: {found.failure()}")
    path = found.unwrap()
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write("PORT=0\n")
        return await restart(unit)
    except OSError as error:
        return Failed(f"{action}: writing {path}: {error.strerror}; run as root")
    finally:
        with suppress(OSError):
            os.unlink(path)


async def _port_file(unit: str) -> Result[str, str]:
    """Return the file from which the unit reads the variable PORT last.

    A failure is a clause that says why there is none, and what to do.
    """
    properties = await _properties(unit, "ExecStart", "EnvironmentFiles")
    if not any(_USES_PORT.search(command) for command in properties.get("ExecStart", ())):
        return Failure("it does not use the variable PORT in ExecStart=; use --remedies restart")
    files = properties.get("EnvironmentFiles", [""])
    found = _PORT_FILE.fullmatch(files[-1])
    if found is None:
        return Failure(
            "its last EnvironmentFile= is not port.env of the watchdog; install the units with "
            "--watchdog-remedies restart,other-port"
        )
    return Success(found[1])


async def _state(unit: str) -> str | None:
    """Return the `ActiveState` of a unit; None if it is not loaded, or unknown."""
    properties = await _properties(unit, "LoadState", "ActiveState")
    is_loaded = properties.get("LoadState") == ["loaded"]
    return properties.get("ActiveState", [None])[-1] if is_loaded else None


async def _properties(unit: str, *names: str) -> dict[str, list[str]]:
    """Return the values of each property of a unit; none if they are unknown."""
    query = ("systemctl", "show", f"--property={','.join(names)}", unit)
    result = await program.run(query, timeout=_QUERY_SECONDS)
    found: dict[str, list[str]] = {}
    if isinstance(result, Failure):
        return found
    for line in result.unwrap().stdout.decode(errors="replace").splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found.setdefault(name, []).append(value)
    return found


async def run(
    argv: Sequence[str], *, action: str, advice: str, timeout: float
) -> Result[None, str]:
    """Run a program for its effect, for at most `timeout` seconds.

    A failure is one line that begins with `action` and ends with `advice`.
    """
    result = await program.run(argv, timeout=timeout)
    if isinstance(result, Failure):
        return Failure(f"{action}: {program.problem_of(result.failure())}; {advice}")
    completed = result.unwrap()
    return (
        Success(None)
        if completed.status == 0
        else Failure(f"{action}: {completed.summary()}; {advice}")
    )


async def ask_for_restart(unit: str, path: str) -> Outcome:
    """Ask the helper that listens on the Unix socket `path` to restart the unit.

    Nothing is sent: a connection alone is a request for a restart, as in tsfc 0.1.
    """
    return await _ask(unit, path, b"", f"asking for a restart of {unit} over {path}")


async def ask_for_other_port(unit: str, path: str) -> Outcome:
    """Ask the helper to restart the unit, which uses another port for this start."""
    return await _ask(
        unit, path, b"other-port\n", f"asking for a restart of {unit} on another port over {path}"
    )


async def _ask(unit: str, path: str, request: bytes, action: str) -> Outcome:
    """Send a request to the helper, and return the outcome.

    `tailscale-watchdog-restart.socket` starts the helper. It responds `done` after the
    unit has started, else with an error.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    response = bytearray()

    # Connect, ask, and wait for the response.
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            await connect(connection, path, deadline)
            # A helper that has refused the connection has closed it.
            with suppress(ConnectionError):
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            while piece := await receive(connection, deadline, _RESPONSE_LIMIT - len(response)):
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
