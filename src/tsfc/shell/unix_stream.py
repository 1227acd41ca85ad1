"""Unix stream sockets: connect and receive with one deadline for both."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from tsfc.shell.signals import LONGEST_WAIT_SECONDS

CONNECT_RETRY_SECONDS = 0.02
"""Time until the next attempt to connect while the socket's backlog is full.

The kernel does not notify a client when there is room again.
"""


def connect(connection: socket.socket, path: str, deadline: float) -> None:
    """Connect to the socket at `path`.

    Raises:
        TimeoutError: At the deadline (monotonic), if the backlog is still full.
        OSError: The connection failed.
    """
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


def receive(connection: socket.socket, deadline: float, size: int) -> bytes:
    """Return at most `size` of the next bytes; none at the end of the stream.

    Raises:
        TimeoutError: At the deadline (monotonic).
    """
    while (remaining := deadline - time.monotonic()) > 0:
        connection.settimeout(min(remaining, LONGEST_WAIT_SECONDS))
        with suppress(TimeoutError):
            return connection.recv(size)
    raise TimeoutError
