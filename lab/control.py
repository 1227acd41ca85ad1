"""HTTP on Unix sockets: the admin socket of the lab's servers, and the LocalAPI."""

from __future__ import annotations

import json
import socket
import urllib.parse
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 30.0
HOST = "local-tailscaled.sock"
"Host header that the LocalAPI requires; the coordination server accepts any."


class UnixConnection(HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path, host: str, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class ResponseError(Exception):
    """A server responded with a status other than 200."""


def request(path: Path, method: str, url: str, *, timeout: float = TIMEOUT_SECONDS) -> bytes:
    """Send a request to the server on a socket and return the body of the response.

    Raises:
        ResponseError: the status is not 200.
        OSError: the server is unavailable, or did not respond in time.
    """
    connection = UnixConnection(path, HOST, timeout)
    try:
        connection.request(method, url)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:  # noqa: PLR2004
        raise ResponseError(
            f"{method} {url}: {response.status} {body.decode(errors='replace').strip()}"
        )
    return body


def request_json(
    path: Path, method: str, url: str, *, timeout: float = TIMEOUT_SECONDS
) -> dict[str, Any]:
    """Like `request`; return the JSON object in the response."""
    document: dict[str, Any] = json.loads(request(path, method, url, timeout=timeout))
    return document


def refresh_engine_status(path: Path, *, timeout: float = TIMEOUT_SECONDS) -> None:
    """Make tailscaled read the status of its engine, by a short subscription.

    A starting tailscaled 1.78.3 sometimes acts on an outdated engine status until the
    next one: it stays `Starting` although it is connected, or withdraws its endpoints
    and is on relay to every peer (`getStatus` in wgengine/userspace.go reads the clock
    after the endpoints). A subscription, such as a desktop client's, makes it read the
    status every two seconds (`pollRequestEngineStatus` in ipn/ipnlocal/local.go).
    """
    connection = UnixConnection(path, HOST, timeout)
    try:
        connection.request("GET", "/localapi/v0/watch-ipn-bus?mask=1")
        connection.getresponse().readline()
    finally:
        connection.close()


def nodes(admin: Path, *, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
    """Return the coordination server's record of each node, by host name."""
    return request_json(admin, "GET", "/nodes", timeout=timeout)


def update(admin: Path, name: str, **values: str) -> None:
    """Change the record of a node; `server/main.go` lists the values."""
    request(admin, "POST", f"/nodes/{name}?{urllib.parse.urlencode(values)}")
