"""Where tailscaled's answers come from: its LocalAPI, or the `tailscale` program."""

from __future__ import annotations

import shutil

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.faults import Down, Fault, Unusable
from tsfc.shell import defaults
from tsfc.shell.tailscaled import localapi

STATUS = "/localapi/v0/status"
USERMETRICS = "/localapi/v0/usermetrics"
DAEMON_DOWN = b"failed to connect to local tailscale"
"""What the program says then, in the words of its subcommands.

`status`: `failed to connect to local tailscaled; it doesn't appear to be running`. `metrics print`: `Failed to connect to local Tailscale
daemon for /localapi/v0/usermetrics; not running?`. Seen with v1.102.3.
"""


class LocalAPI(Struct, frozen=True, tag=True):
    """Ask over the unix socket."""

    socket: str


class Cli(Struct, frozen=True, tag=True):
    """Run the `tailscale` program."""

    argv: tuple[str, ...]
    "The program and the flags that come before its subcommand."


Source = LocalAPI | Cli


def choose(kind: str, *, socket: str | None, tailscale: str | None) -> Source:
    """Returns the source that `--source` names; for `auto` the socket where somebody listens there, else the program, where there is one.

    A socket that was given holds for the program, too: on a machine with two tailscaleds both ask the same one.
    """
    over_socket = LocalAPI(socket or defaults.SOCKET)
    if kind == "localapi" or (kind == "auto" and localapi.is_reachable(over_socket.socket)):
        return over_socket
    found = tailscale or shutil.which("tailscale")
    if kind == "auto" and found is None:
        return over_socket
    return Cli((found or "tailscale", *(() if socket is None else (f"--socket={socket}",))))


def status(source: Source, *, timeout: float) -> Result[bytes, Fault]:
    """Returns tailscaled's status, as JSON; `timeout` in seconds bounds the whole call."""
    match source:
        case LocalAPI(socket=socket):
            return localapi.call(socket, "GET", STATUS, timeout=timeout)
        case Cli(argv=argv):
            return _output((*argv, "status", "--json"), timeout=timeout)


def usermetrics(source: Source, *, timeout: float) -> Result[bytes, Fault]:
    """Returns tailscaled's own metrics, as text; `timeout` in seconds bounds the whole call."""
    match source:
        case LocalAPI(socket=socket):
            return localapi.call(socket, "GET", USERMETRICS, timeout=timeout)
        case Cli(argv=argv):
            return _output((*argv, "metrics", "print"), timeout=timeout)


def _output(argv: tuple[str, ...], *, timeout: float) -> Result[bytes, Fault]:
    """Returns what the program printed on standard output. What it said on standard error goes into the fault, or nowhere."""
    from tsfc.shell import program  # noqa: PLC0415 - most runs start none

    tried = f"running `{' '.join(argv)}`"
    ran = program.run(argv, timeout=timeout)
    if isinstance(ran, Failure):
        problem: program.TimedOut | program.StartError = ran.failure()
        match problem:
            case program.TimedOut(seconds=seconds):
                return Failure(
                    Down(
                        f"{tried}: not done within {seconds:g} s; does tailscaled hang? see `journalctl -u tailscaled`, or give --timeout"
                    )
                )
            case program.StartError(detail=detail):
                return Failure(
                    Unusable(
                        f"{tried}: {detail}; install Tailscale, or give --tailscale the path of the program"
                    )
                )
    completed = ran.unwrap()
    if completed.status == 0:
        return Success(completed.stdout)
    said = f"{tried}: {completed.complaint()}"
    if DAEMON_DOWN in completed.stderr.lower():
        return Failure(Down(f"{said}; is tailscaled running? see `systemctl status tailscaled`"))
    return Failure(Unusable(f"{said}; run the command by hand to see more"))
