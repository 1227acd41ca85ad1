"""tailscaled's LocalAPI: HTTP over a Unix socket.

Source: `ipn/localapi`, `safesocket` and `ipn/ipnserver` of Tailscale v1.102.3. `Host`
must be `local-tailscaled.sock`; `Origin` and `Referer` must be absent. Status,
usermetrics and pings need no privileges.

`http.client` encodes the request and parses the response, but this module does the
socket I/O: `http.client` has a timeout per read, none for the whole response. Every
request asks the server to close the connection after its response (RFC 9112, section
9.6), so a response ends where the stream ends. A server that keeps the connection open
all the same has sent a complete response if its length says so.
"""

from __future__ import annotations

import io
import re
import socket
import time
from http import HTTPStatus
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    IncompleteRead,
    RemoteDisconnected,
)
from typing import cast

from returns.result import Failure, Result, Success

from tsfc.core.faults import Down, Fault, Unusable
from tsfc.core.text import one_line
from tsfc.shell.unix_stream import connect, receive

HOST = "local-tailscaled.sock"
RESPONSE_LIMIT = 256 * 2**20
"Maximum size of a response in bytes. The status of 10,000 peers has 16 MB."
_END_OF_LINE, _END_OF_HEAD, _END_OF_CHUNKS = b"\r\n", b"\r\n\r\n", b"\r\n0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,15})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_LINES_LIMIT = 2**19
"""Maximum number of CRLF in a response.

They end lines of the head and chunks. Go's server sends chunks of 2 KiB or more;
`http.client` needs seconds, and 100 bytes of memory for each, for millions of them.
"""


def call(path: str, method: str, target: str, *, timeout: float) -> Result[bytes, Fault]:
    """Send a request to the socket at `path`; return the body of the response.

    `timeout` in seconds covers everything, from connecting to the last byte.
    """
    action = f"asking tailscaled for {target.rpartition('/')[2]} over {path}"
    deadline = time.monotonic() + timeout
    received = bytearray()

    # Exchange the bytes; a response ends with the stream.
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connect(connection, path, deadline)
            send(connection, method, target)
            while piece := receive(connection, deadline):
                received += piece
                if _is_complete(received):
                    break
                if len(received) > RESPONSE_LIMIT:
                    return Failure(
                        Unusable(
                            f"{action}: the response is larger than {RESPONSE_LIMIT // 2**20} MiB; "
                            "check that --socket is tailscaled's socket"
                        )
                    )
    except TimeoutError:
        return Failure(
            Down(
                f"{action}: no complete response within {timeout:g} s; "
                "does tailscaled hang? see `journalctl -u tailscaled`, or raise --timeout"
            )
        )
    except OSError as error:
        return Failure(_connection_fault(action, error, received=bool(received)))

    return response_body(action, bytes(received))


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


def response_body(action: str, received: bytes) -> Result[bytes, Fault]:
    """Return the body of the HTTP response `received`, if its status is 200.

    `action` is the beginning of the error line: what the request was for.
    """
    if received.count(_END_OF_LINE) > _LINES_LIMIT:
        return Failure(
            Unusable(
                f"{action}: the response has more than {_LINES_LIMIT} lines and chunks; "
                "check that --socket is tailscaled's socket"
            )
        )

    # Parse the response. HTTPResponse needs a socket only to make a file of it.
    try:
        response = HTTPResponse(cast("socket.socket", _Received(received)))
        response.begin()
        body = response.read()
        if _END_OF_HEAD not in received:
            raise IncompleteRead(received)  # http.client accepts a truncated head
    except RemoteDisconnected:
        return Failure(
            Down(
                f"{action}: the connection was closed without a response; is tailscaled restarting?"
            )
        )
    except (HTTPException, ValueError, OverflowError) as error:
        return Failure(
            Unusable(
                f"{action}: not a valid HTTP response ({one_line(repr(error), 120)}); "
                "check that --socket is tailscaled's socket"
            )
        )

    # Quote the error that tailscaled sent.
    if response.status != HTTPStatus.OK:
        reason = one_line(response.reason, 60)
        text = one_line(body[:1000].decode(errors="replace"))
        return Failure(
            Unusable(f"{action}: {response.status} {reason}: {text}; {_advice(response.status)}")
        )
    return Success(body)


def _is_complete(received: bytearray) -> bool:
    """Whether the response has all the bytes that it announced."""
    end = received.find(_END_OF_HEAD)
    if end < 0:
        return False
    head = bytes(received[: end + len(_END_OF_LINE)])
    if _CHUNKED.search(head):
        return received.endswith(_END_OF_CHUNKS)
    length = _LENGTH.search(head)
    return length is not None and len(received) >= end + len(_END_OF_HEAD) + int(length[1])


class _Received(io.BytesIO):
    """Received bytes in the role of the socket that HTTPResponse expects."""

    def __init__(self, received: bytes) -> None:
        super().__init__(received)

    def makefile(self, _: str) -> io.BytesIO:
        return self


def _connection_fault(action: str, error: OSError, *, received: bool) -> Fault:
    match error:
        case PermissionError():
            return Unusable(
                f"{action}: {error.strerror}; "
                "run as a user with access to the socket, or set --socket"
            )
        case ConnectionResetError() | BrokenPipeError() if received:
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
