"""Unix stream sockets: connect and receive with one deadline for both."""

from __future__ import annotations

import socket
import time

from tsfc.shell.waiting import Wait, sleep, until

CONNECT_RETRY_SECONDS = 0.02
"""Time until the next attempt to connect while the socket's backlog is full.

The kernel does not notify a client when there is room again.
"""


async def connect(connection: socket.socket, path: str, deadline: float) -> None:
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
            await sleep(CONNECT_RETRY_SECONDS)
        else:
            return


async def receive(connection: socket.socket, deadline: float, size: int) -> bytes:
    """Return at most `size` of the next bytes; none at the end of the stream.

    Raises:
        TimeoutError: At the deadline (monotonic).
        OSError: The connection failed.
    """
    while time.monotonic() < deadline:
        try:
            return connection.recv(size)
        except BlockingIOError:
            await until(Wait(connection.fileno(), deadline))
    raise TimeoutError
