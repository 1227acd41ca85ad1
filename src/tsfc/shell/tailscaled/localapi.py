"""tailscaled's LocalAPI: HTTP over a Unix socket.

Source: `ipn/localapi`, `safesocket` and `ipn/ipnserver` of Tailscale v1.102.3. `Host`
must be `local-tailscaled.sock`; `Origin` and `Referer` must be absent. Status,
usermetrics and pings need no privileges. Its server keeps connections without a limit
of time (`http.Server` without timeouts; measured with v1.78.3 and v1.102.3).
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from returns.result import Failure, Result

from tsfc.core.faults import Down, Fault, Unusable
from tsfc.shell.tailscaled.response import RESPONSE_LIMIT, Response
from tsfc.shell.unix_stream import connect, receive

HOST = "local-tailscaled.sock"
_PIECE = 2**16
"Bytes per read."


class Connections:
    """Connections to the socket at `path`.

    At most `limit` of them are kept from request to request. Who keeps any closes them.
    """

    def __init__(self, path: str, limit: int = 0) -> None:
        self.path = path
        self.limit = limit
        self._idle: list[socket.socket] = []

    @property
    def has_idle(self) -> bool:
        """Whether a connection is kept."""
        return bool(self._idle)

    def take(self) -> socket.socket | None:
        """Return an idle connection, which its server may have closed."""
        return self._idle.pop() if self._idle else None

    def give_back(self, connection: socket.socket, response: Response) -> None:
        """Keep a connection after a response, if that leaves no doubt about it."""
        if response.is_reusable and len(self._idle) < self.limit:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()


async def call(
    connections: Connections, method: str, target: str, *, timeout: float
) -> Result[bytes, Fault]:
    """Send a request; return the body of the response.

    `timeout` in seconds covers everything, from connecting to parsing the last byte.
    """
    path = connections.path
    action = f"asking tailscaled for {target.rpartition('/')[2]} over {path}"
    deadline = time.monotonic() + timeout
    request = encode(method, target)
    response: Response | None = None
    try:
        kept = connections.take()
        if kept is not None:
            with suppress(ConnectionError):
                response = await _exchange(connections, kept, request, deadline)
        if response is None or response.is_empty:
            response = await _exchange(connections, None, request, deadline)
    except TimeoutError:
        return Failure(
            Down(
                f"{action}: no complete response within {timeout:g} s; "
                "does tailscaled hang? see `journalctl -u tailscaled`, or raise --timeout"
            )
        )
    except OSError as error:
        return Failure(_connection_fault(action, error))
    return response.result(action)


def is_reachable(path: str) -> bool:
    """Whether a process listens on the socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            connection.connect(path)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def encode(method: str, target: str) -> bytes:
    """Return a request without a body."""
    length = "Content-Length: 0\r\n" if method == "POST" else ""
    return f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n".encode()


async def _exchange(
    connections: Connections, kept: socket.socket | None, request: bytes, deadline: float
) -> Response:
    """Send a request over a kept connection or a new one, and receive the response."""
    connection = kept or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    response = Response(RESPONSE_LIMIT)
    try:
        if kept is None:
            await connect(connection, connections.path, deadline)
        connection.send(request)  # never blocks: it is smaller than any buffer
        while not response.is_done:
            response.feed(await receive(connection, deadline, _PIECE))
    except ConnectionError:
        if response.is_empty:
            raise
        response.feed(b"")
    finally:
        connections.give_back(connection, response)
    return response


def _connection_fault(action: str, error: OSError) -> Fault:
    match error:
        case PermissionError():
            return Unusable(
                f"{action}: {error.strerror}; "
                "run as a user with access to the socket, or set --socket"
            )
        case FileNotFoundError() | ConnectionError():
            return Down(
                f"{action}: {error.strerror}; is tailscaled running? "
                "see `systemctl status tailscaled`, or set --socket"
            )
        case _:
            return Unusable(
                f"{action}: {error.strerror or error}; "
                "set --socket to the path of tailscaled's socket"
            )
