"""Try what a job must not be able to do, and print the outcome of each attempt as JSON.

It needs only Python, and runs in units and outside of them. Its arguments are the name
of the job, and the port and the name of the abstract socket of a listener.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from functools import partial

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_TRACEME, CLONE_NEWUSER, MS_BIND, ADDR_NO_RANDOMIZE = 0, 0x10000000, 4096, 0x40000
ELSEWHERE = ("/etc", "/home", "/opt", "/root", "/run", "/tmp", "/usr", "/var/lib", "/var/tmp")  # noqa: S108


def call(name: str, *arguments: object) -> None:
    """Call a function of libc and raise its error."""
    if getattr(LIBC, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def write(path: str, mode: str = "w") -> None:
    """Write to a file."""
    with open(path, mode) as file:
        file.write("0\n")


def read(path: str) -> None:
    """Read a file."""
    with open(path, "rb") as file:
        file.read()


def connect(family: int, address: str | tuple[str, int]) -> None:
    """Connect to a listener."""
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.connect(address)


def forked(action: Callable[[], None]) -> None:
    """Perform an action in a child, because it changes the process permanently."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        raise OSError(
            os.waitstatus_to_exitcode(status), os.strerror(os.waitstatus_to_exitcode(status))
        )


def attempts(job: str, port: int, abstract: str) -> dict[str, Callable[[], None]]:
    """Return the actions to try, by description."""
    return {
        **{
            f"write in {directory}": partial(write, f"{directory}/probe.{job}")
            for directory in ELSEWHERE
        },
        "write in /proc": lambda: write("/proc/self/oom_score_adj", "r+"),
        "read a password": lambda: read("/etc/shadow"),
        "read root's files": lambda: read("/root/secret"),
        "read tailscaled's keys": lambda: read("/var/lib/tailscale/tailscaled.state"),
        "use the network": lambda: connect(socket.AF_INET, ("127.0.0.1", port)),
        "make a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close(),
        "make a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "ask systemd": lambda: connect(socket.AF_UNIX, "/run/systemd/private"),
        "ask D-Bus": lambda: connect(socket.AF_UNIX, "/run/dbus/system_bus_socket"),
        "ask for a restart": lambda: connect(
            socket.AF_UNIX, "/run/tailscale-watchdog/restart.sock"
        ),
        "use an abstract socket": lambda: connect(socket.AF_UNIX, f"\0{abstract}"),
        "trace": lambda: forked(lambda: call("ptrace", PTRACE_TRACEME, 0, 0, 0)),
        "signal a process of root's": lambda: os.kill(1, 0),
        "mount": lambda: forked(lambda: call("mount", b"/usr", b"/usr", None, MS_BIND, None)),
        "make a name space": lambda: forked(lambda: call("unshare", CLONE_NEWUSER)),
        "run in real time": lambda: forked(
            lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        ),
        "change its personality": lambda: forked(lambda: call("personality", ADDR_NO_RANDOMIZE)),
        "become root": lambda: os.setuid(0),
        "make a device": lambda: os.mknod(f"/dev/probe.{job}", 0o600 | 0o020000, os.makedev(1, 3)),
        "have writable code": lambda: mmap.mmap(
            -1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        ).close(),
    }


def outcome(action: Callable[[], None]) -> str:
    """Perform an action and return `done`, or why it was refused."""
    try:
        action()
    except OSError as error:
        return f"refused: {error.strerror or error}"
    return "done"


if __name__ == "__main__":
    outcomes = {
        name: outcome(action)
        for name, action in attempts(sys.argv[1], int(sys.argv[2]), sys.argv[3]).items()
    }
    sys.stdout.write(f"{json.dumps(outcomes)}\n")
