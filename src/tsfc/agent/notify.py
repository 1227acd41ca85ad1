"""Notifications to systemd (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send lines such as `READY=1` to systemd, if it has asked for them."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection,
    ):
        connection.sendto(state.encode(), address)


def watchdog_seconds() -> float | None:
    """Return the time in which systemd wants a sign of life; None if it wants none."""
    try:
        pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
        microseconds = int(os.environ["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return microseconds / 1e6 if pid == os.getpid() and microseconds > 0 else None
