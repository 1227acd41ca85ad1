"""Stream sockets: connect, receive and send with a deadline."""

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


async def send(connection: socket.socket, data: bytes, deadline: float) -> None:
    """Send all of `data`.

    Raises:
        TimeoutError: At the deadline (monotonic).
        OSError: The connection failed.
    """
    left = memoryview(data)
    while left:
        if time.monotonic() >= deadline:
            raise TimeoutError
        try:
            left = left[connection.send(left) :]
        except BlockingIOError:
            await until(Wait(connection.fileno(), deadline, is_writing=True))
