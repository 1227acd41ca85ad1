"""LocalAPI servers on a real Unix socket, with the behavior that a test needs."""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

DRIBBLE_SECONDS = 0.05
"Time between the pieces of a slow response."


class Request(NamedTuple):
    """A request of a client."""

    at: float
    "Monotonic time of its arrival."
    method: str
    target: str
    headers: tuple[str, ...]
    connection: socket.socket

    @property
    def ip(self) -> str:
        """The IP to ping."""
        return parse_qs(urlsplit(self.target).query)["ip"][0]


Response = bytes | Iterator[bytes] | None
"""Bytes to send before the connection is closed, at once or piece by piece.

If None, nothing is sent and the connection stays open.
"""
Respond = Callable[[Request], Response]


class Server:
    """A server with one thread for any number of connections. Use `serving`."""

    def __init__(self, path: Path, respond: Respond) -> None:
        self.requests: list[Request] = []
        self.most_open = 0
        self._accept_pause = 0.0
        self._respond = respond
        self._open: set[socket.socket] = set()
        self._dribbling: dict[socket.socket, Iterator[bytes]] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4096)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close all connections."""
        self._wake.send(b"x")
        self._thread.join()
        for connection in (*self._open, self._listener, self._wake, self._woken):
            connection.close()
        self._selector.close()

    def narrow(self) -> None:
        """Shrink the backlog to one connection, and accept slowly from now on."""
        self._listener.listen(0)
        self._accept_pause = DRIBBLE_SECONDS / 5

    def pings(self) -> list[Request]:
        """Return the requests for pings, in order."""
        return [request for request in self.requests if "/ping?" in request.target]

    def _serve(self) -> None:
        received: dict[socket.socket, bytes] = {}
        while True:
            ready = [
                key.fileobj
                for key, _ in self._selector.select(DRIBBLE_SECONDS if self._dribbling else None)
            ]
            if self._woken in ready:
                return
            for connection in ready:
                assert isinstance(connection, socket.socket)
                if connection is self._listener:
                    time.sleep(self._accept_pause)
                    accepted, _ = connection.accept()
                    self._open.add(accepted)
                    self.most_open = max(self.most_open, len(self._open))
                    self._selector.register(accepted, selectors.EVENT_READ)
                else:
                    self._receive(connection, received)
            for connection, pieces in list(self._dribbling.items()):
                self._dribble(connection, pieces)

    def _receive(self, connection: socket.socket, received: dict[socket.socket, bytes]) -> None:
        try:
            piece = connection.recv(2**16)
        except ConnectionError:
            piece = b""
        if not piece:
            self._close(connection)
            return
        received[connection] = received.get(connection, b"") + piece
        if not received[connection].endswith(b"\r\n\r\n"):
            return
        first, *headers = received.pop(connection).decode().rstrip().split("\r\n")
        request = Request(
            time.monotonic(), first.split()[0], first.split()[1], tuple(headers), connection
        )
        self.requests.append(request)
        response = self._respond(request)
        if isinstance(response, bytes):
            with suppress(ConnectionError):
                connection.sendall(response)
            self._close(connection)
        elif response is not None:
            self._dribbling[connection] = response

    def _dribble(self, connection: socket.socket, pieces: Iterator[bytes]) -> None:
        try:
            connection.sendall(next(pieces))
        except (ConnectionError, StopIteration):
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        self._dribbling.pop(connection, None)
        if connection in self._open:
            self._open.discard(connection)
            self._selector.unregister(connection)
            connection.close()


@contextmanager
def serving(path: Path, respond: Respond) -> Generator[Server]:
    """Serve on a Unix socket until the block ends."""
    server = Server(path, respond)
    try:
        yield server
    finally:
        server.stop()


def http(body: bytes, code: str = "200 OK") -> bytes:
    """Return a complete HTTP response."""
    return (
        f"HTTP/1.1 {code}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        + body
    )


def pong(**fields: Any) -> bytes:
    """Return the HTTP response to a ping, as tailscaled sends it."""
    defaults: dict[str, Any] = {
        "IP": "",
        "NodeIP": "",
        "NodeName": "",
        "Err": "",
        "LatencySeconds": 0,
        "Endpoint": "",
        "PeerRelay": "",
        "DERPRegionID": 0,
        "DERPRegionCode": "",
    }
    return http(json.dumps(defaults | fields).encode())


DIRECT_PONG = pong(Endpoint="192.0.2.7:41641", LatencySeconds=0.012)
DERP_PONG = pong(DERPRegionID=1, DERPRegionCode="fra", LatencySeconds=0.048)
PEER_RELAY_PONG = pong(PeerRelay="192.0.2.9:7777:vni:1", LatencySeconds=0.025)


def tailscaled(status: bytes, ping: Respond, usermetrics: bytes = b"") -> Respond:
    """Return the behavior of a tailscaled with this status, these metrics and pings."""

    def respond(request: Request) -> Response:
        if request.target.endswith("/status"):
            return http(status)
        return http(usermetrics) if request.target.endswith("/usermetrics") else ping(request)

    return respond
