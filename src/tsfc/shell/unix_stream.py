"""Unix stream sockets: connecting and receiving, with one deadline for all of it."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from tsfc.shell.signals import LONGEST_WAIT_SECONDS

CONNECT_RETRY_SECONDS = 0.02
"Until the next try to connect, when more connections wait at the socket than its backlog holds; nothing tells when there is room."
_PIECE = 2**18


def connect(connection: socket.socket, path: str, deadline: float) -> None:
    """Connects; raises `TimeoutError` at the deadline (monotonic), another `OSError` where it cannot be."""
    connection.setblocking(False)
    while True:
        try:
            connection.connect(path)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(CONNECT_RETRY_SECONDS)
        else:
            return


def receive(connection: socket.socket, deadline: float) -> bytes:
    """Returns what has come, nothing at the end of the stream; raises `TimeoutError` at the deadline (monotonic)."""
    while (remaining := deadline - time.monotonic()) > 0:
        connection.settimeout(min(remaining, LONGEST_WAIT_SECONDS))
        with suppress(TimeoutError):
            return connection.recv(_PIECE)
    raise TimeoutError
