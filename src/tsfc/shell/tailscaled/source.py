"""Sources of tailscaled's status and metrics: the LocalAPI or the `tailscale` CLI."""

from __future__ import annotations

import shutil
from urllib.parse import quote

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.faults import Down, Fault, Unusable
from tsfc.shell import defaults
from tsfc.shell.tailscaled import localapi
from tsfc.shell.tailscaled.localapi import Connections

STATUS = "/localapi/v0/status"
USERMETRICS = "/localapi/v0/usermetrics"
WHOIS = "/localapi/v0/whois"
DAEMON_DOWN = b"failed to connect to local tailscale"
"""Error of the CLI, in lower case, when tailscaled is down. Observed with v1.102.3.

`status`: `failed to connect to local tailscaled; it doesn't appear to be running`.
`metrics print`: `Failed to connect to local Tailscale daemon for
/localapi/v0/usermetrics; not running?`.
"""

ACCESS_DENIED = (b"permission denied", b"operation not permitted", b"access denied")
"""Errors of the CLI, in lower case, if the user may not use tailscaled's socket.

The first two come from the kernel, the third from tailscaled (`AccessDeniedError` in
`client/local`, HTTP status 403). The CLI prints each after "failed to connect to local
tailscaled", although tailscaled is running.
"""


class LocalAPI(Struct, frozen=True, tag=True):
    """Requests over tailscaled's socket."""

    connections: Connections


class Cli(Struct, frozen=True, tag=True):
    """Requests with the `tailscale` CLI."""

    argv: tuple[str, ...]
    "The program and the flags before its subcommand."


Source = LocalAPI | Cli


def from_options(kind: str, *, socket: str | None, tailscale: str | None) -> Source:
    """Return the source that `--source`, `--socket` and `--tailscale` select.

    `auto` selects the socket if a process listens on it, else the CLI if it is
    installed, else the socket. An explicit socket is passed on to the CLI: on a machine
    with two tailscaleds, both sources reach the same one.
    """
    path = socket or defaults.SOCKET
    over_socket = LocalAPI(Connections(path))
    if kind == "localapi" or (kind == "auto" and localapi.is_reachable(path)):
        return over_socket
    program = tailscale or shutil.which("tailscale")
    if kind == "auto" and program is None:
        return over_socket
    return Cli((program or "tailscale", *(() if socket is None else (f"--socket={socket}",))))


async def status(source: Source, *, timeout: float) -> Result[bytes, Fault]:
    """Return tailscaled's status as JSON. `timeout` (seconds) covers the whole call."""
    match source:
        case LocalAPI(connections=connections):
            return await localapi.call(connections, "GET", STATUS, timeout=timeout)
        case Cli(argv=argv):
            return await _output((*argv, "status", "--json"), timeout=timeout)


async def usermetrics(source: Source, *, timeout: float) -> Result[bytes, Fault]:
    """Return tailscaled's own metrics. `timeout` (seconds) covers the whole call."""
    match source:
        case LocalAPI(connections=connections):
            return await localapi.call(connections, "GET", USERMETRICS, timeout=timeout)
        case Cli(argv=argv):
            return await _output((*argv, "metrics", "print"), timeout=timeout)


async def whois(source: Source, ip: str, *, timeout: float) -> Result[bytes, Fault]:
    """Return what tailscaled knows of a node as JSON. `timeout` as for `status`."""
    match source:
        case LocalAPI(connections=connections):
            path = f"{WHOIS}?addr={quote(f'{ip}:1', safe='')}"
            return await localapi.call(connections, "GET", path, timeout=timeout)
        case Cli(argv=argv):
            return await _output((*argv, "whois", "--json", ip), timeout=timeout)


async def _output(argv: tuple[str, ...], *, timeout: float) -> Result[bytes, Fault]:
    """Run the CLI and return its standard output.

    Standard error becomes part of the fault if the CLI fails, else it is discarded.
    """
    from tsfc.shell import program  # noqa: PLC0415 - most runs start no program

    # Run the CLI; tailscaled is down if it hangs.
    action = f"running `{' '.join(argv)}`"
    result = await program.run(argv, timeout=timeout)
    if isinstance(result, Failure):
        problem: program.TimedOut | program.StartError = result.failure()
        match problem:
            case program.TimedOut(seconds=seconds):
                return Failure(
                    Down(
                        f"{action}: timed out after {seconds:g} s; does tailscaled hang? "
                        "see `journalctl -u tailscaled`, or raise --timeout"
                    )
                )
            case program.StartError(detail=detail):
                return Failure(
                    Unusable(
                        f"{action}: {detail}; "
                        "install Tailscale, or set --tailscale to the path of the program"
                    )
                )

    # The exit status alone does not tell why the CLI failed, but its message does.
    completed = result.unwrap()
    if completed.status == 0:
        return Success(completed.stdout)
    error = f"{action}: {completed.summary()}"
    stderr = completed.stderr.lower()
    if any(problem in stderr for problem in ACCESS_DENIED):
        return Failure(
            Unusable(f"{error}; run as a user with access to tailscaled's socket, or set --socket")
        )
    if DAEMON_DOWN in stderr:
        return Failure(Down(f"{error}; is tailscaled running? see `systemctl status tailscaled`"))
    return Failure(Unusable(f"{error}; run the command by hand for details"))
