"""tailscaled's LocalAPI: HTTP over a unix socket.

Source: `ipn/localapi`, `safesocket` and `ipn/ipnserver` of Tailscale v1.102.3. `Host` must be `local-tailscaled.sock`,
and there must be no `Origin` or `Referer`. Status, usermetrics and pings need no rights.

The standard library writes the request and reads the answer; the bytes between are moved here, because it knows no
bound for a whole answer, only for each piece of one. Each request asks the server to close the connection behind its
answer (RFC 9112, section 9.6), so an answer ends where the stream ends.
"""

from __future__ import annotations

import io
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
ANSWER_LIMIT = 256 * 2**20
"Bytes of an answer, past which it is not read on. 10,000 peers are 16 MB."
_END_OF_HEAD = b"\r\n\r\n"


def call(path: str, method: str, target: str, *, timeout: float) -> Result[bytes, Fault]:
    """Returns the body of the LocalAPI's answer, `timeout` seconds bounding all of it, from connect to the last byte."""
    tried = f"asking tailscaled for {target.rpartition('/')[2]} over {path}"
    deadline = time.monotonic() + timeout
    received = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connect(connection, path, deadline)
            send(connection, method, target)
            while piece := receive(connection, deadline):
                received += piece
                if len(received) > ANSWER_LIMIT:
                    return Failure(
                        Unusable(
                            f"{tried}: the answer is larger than {ANSWER_LIMIT // 2**20} MiB; is it tailscaled that listens there?"
                        )
                    )
    except TimeoutError:
        return Failure(
            Down(
                f"{tried}: no whole answer within {timeout:g} s; does tailscaled hang? see `journalctl -u tailscaled`, or give --timeout"
            )
        )
    except OSError as error:
        return Failure(_unreachable(tried, error, received=bool(received)))
    return answer(tried, bytes(received))


def is_reachable(path: str) -> bool:
    """Reports whether somebody listens on the socket."""
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
    """Sends a request without a body over a connected socket. It is smaller than any socket's buffer, so this never waits."""
    http = HTTPConnection(HOST)
    http.sock = connection
    http.request(method, target, headers={"Connection": "close"})
    http.sock = None


def answer(tried: str, received: bytes) -> Result[bytes, Fault]:
    """Returns the body of the answer that all these bytes are. `tried` says in an error line what was asked."""
    try:
        # HTTPResponse wants a socket for nothing but to make a file of it.
        response = HTTPResponse(cast("socket.socket", _Received(received)))
        response.begin()
        body = response.read()
        if _END_OF_HEAD not in received:
            raise IncompleteRead(received)  # which the library takes for a head without a body
    except RemoteDisconnected:
        return Failure(
            Down(
                f"{tried}: the connection was closed without an answer; is tailscaled just restarting?"
            )
        )
    except (HTTPException, ValueError, OverflowError) as error:
        return Failure(
            Unusable(
                f"{tried}: no valid HTTP answer ({one_line(repr(error), 120)}); is it tailscaled that listens there?"
            )
        )
    if response.status != HTTPStatus.OK:
        said = f"{response.status} {one_line(response.reason, 60)}: {one_line(body[:1000].decode(errors='replace'))}"
        return Failure(Unusable(f"{tried}: {said}; {_advice(response.status)}"))
    return Success(body)


class _Received(io.BytesIO):
    """Bytes that were received, where the standard library expects a socket."""

    def __init__(self, received: bytes) -> None:
        super().__init__(received)

    def makefile(self, _: str) -> io.BytesIO:
        return self


def _unreachable(tried: str, error: OSError, *, received: bool) -> Fault:
    match error:
        case PermissionError():
            return Unusable(
                f"{tried}: {error.strerror}; run as a user who may use the socket, or give --socket"
            )
        case ConnectionResetError() | BrokenPipeError() if received:
            return Unusable(
                f"{tried}: the answer was cut off ({error.strerror}); try again, and see `journalctl -u tailscaled`"
            )
        case FileNotFoundError() | ConnectionError():
            return Down(
                f"{tried}: {error.strerror}; is tailscaled running? see `systemctl status tailscaled`, or give --socket"
            )
        case _:
            return Unusable(
                f"{tried}: {error.strerror or error}; give --socket the path of tailscaled's socket"
            )


def _advice(status: int) -> str:
    match status:
        case 403:
            return "run as root, or let this user in with `tailscale set --operator`"
        case 404:
            return "this tailscaled does not know that; tsfc needs 1.78 or newer"
        case _:
            return "see `journalctl -u tailscaled`"
