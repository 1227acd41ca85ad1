"""tailscaled's LocalAPI: HTTP over a Unix socket.

Source: `ipn/localapi`, `safesocket` and `ipn/ipnserver` of Tailscale v1.102.3. `Host`
must be `local-tailscaled.sock`; `Origin` and `Referer` must be absent. Status,
usermetrics and pings need no privileges.

`http.client` encodes the request and parses the response, but this module reads the
socket: `http.client` has a timeout per read, none for the whole response. The response
is parsed while it arrives, so the deadline covers parsing, and a complete response
counts although the server keeps the connection open. Every request asks the server to
close it (RFC 9112, section 9.6).
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    IncompleteRead,
    RemoteDisconnected,
)
from typing import TYPE_CHECKING, cast

from returns.result import Failure, Result, Success

from tsfc.core.faults import Down, Fault, Unusable
from tsfc.core.text import one_line
from tsfc.shell.unix_stream import connect, receive

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HOST = "local-tailscaled.sock"
RESPONSE_LIMIT = 256 * 2**20
"Maximum size of a response in bytes. The status of 10,000 peers has 16 MB."
_PIECE = 2**16
"Bytes of the body per read. Parsing that much takes milliseconds, even in tiny chunks."


def call(path: str, method: str, target: str, *, timeout: float) -> Result[bytes, Fault]:
    """Send a request to the socket at `path`; return the body of the response.

    `timeout` in seconds covers everything, from connecting to parsing the last byte.
    """
    action = f"asking tailscaled for {target.rpartition('/')[2]} over {path}"
    deadline = time.monotonic() + timeout
    is_answered = False

    def read(size: int) -> bytes:
        nonlocal is_answered
        piece = receive(connection, deadline, size)
        is_answered = is_answered or bool(piece)
        return piece

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connect(connection, path, deadline)
            send(connection, method, target)
            return response_body(action, read)
    except TimeoutError:
        return Failure(
            Down(
                f"{action}: no complete response within {timeout:g} s; "
                "does tailscaled hang? see `journalctl -u tailscaled`, or raise --timeout"
            )
        )
    except OSError as error:
        return Failure(_connection_fault(action, error, is_answered=is_answered))


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


def send(connection: socket.socket, method: str, target: str) -> None:
    """Send a request without a body over a connected socket.

    It never blocks: the request is smaller than any socket's buffer.
    """
    http = HTTPConnection(HOST)
    http.sock = connection
    http.request(method, target, headers={"Connection": "close"})
    http.sock = None


def response_body(action: str, read: Callable[[int], bytes]) -> Result[bytes, Fault]:
    """Read an HTTP response, and return its body if its status is 200.

    `action` is the beginning of the error line: what the request was for. `read(size)`
    returns at most `size` of the next bytes, none at the end of the stream.

    Raises:
        OSError: From `read`.
    """
    # HTTPResponse needs a socket only to make a file of it.
    stream = _Stream(read)
    response = HTTPResponse(cast("socket.socket", stream))
    body = io.BytesIO()
    try:
        response.begin()
        if stream.has_ended:
            raise IncompleteRead(b"")  # http.client accepts a truncated head
        while piece := response.read(_PIECE):
            body.write(piece)
        if response.length:
            raise IncompleteRead(body.getvalue(), response.length)  # ... and body
    except RemoteDisconnected:
        return Failure(
            Down(
                f"{action}: the connection was closed without a response; is tailscaled restarting?"
            )
        )
    except _TooLargeError:
        return Failure(
            Unusable(
                f"{action}: the response is larger than {RESPONSE_LIMIT // 2**20} MiB; "
                "check that --socket is tailscaled's socket"
            )
        )
    except (HTTPException, ValueError) as error:
        return Failure(
            Unusable(
                f"{action}: not a valid HTTP response ({one_line(repr(error), 120)}); "
                "check that --socket is tailscaled's socket"
            )
        )

    # Quote the error that tailscaled sent.
    if response.status != HTTPStatus.OK:
        reason = one_line(response.reason, 60)
        text = one_line(body.getvalue()[:1000].decode(errors="replace"))
        return Failure(
            Unusable(f"{action}: {response.status} {reason}: {text}; {_advice(response.status)}")
        )
    return Success(body.getvalue())


class _TooLargeError(Exception):
    """The response has more than `RESPONSE_LIMIT` bytes."""


class _Stream(io.RawIOBase):
    """The bytes of a response in the role of the socket that HTTPResponse expects."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.has_ended = False
        self._read = read
        self._size = 0

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self, _PIECE)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        piece = self._read(len(view))
        view[: len(piece)] = piece
        self.has_ended = not piece
        self._size += len(piece)
        if self._size > RESPONSE_LIMIT:
            raise _TooLargeError
        return len(piece)


def _connection_fault(action: str, error: OSError, *, is_answered: bool) -> Fault:
    match error:
        case PermissionError():
            return Unusable(
                f"{action}: {error.strerror}; "
                "run as a user with access to the socket, or set --socket"
            )
        case ConnectionResetError() | BrokenPipeError() if is_answered:
            return Unusable(
                f"{action}: the response is truncated ({error.strerror}); "
                "try again, and see `journalctl -u tailscaled`"
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


def _advice(status: int) -> str:
    match status:
        case 403:
            return "run as root, or allow this user with `tailscale set --operator`"
        case 404:
            return "this tailscaled does not support the request; tsfc needs 1.78 or newer"
        case _:
            return "see `journalctl -u tailscaled`"
