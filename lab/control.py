"""The coordination server of a lab, seen from a test: what it knows of the nodes, and what it says of them to the others."""

from __future__ import annotations

import json
import socket
import urllib.parse
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

TIMEOUT_SECONDS = 30.0
HOST = "local-tailscaled.sock"
"The one that a LocalAPI wants; the coordination server takes any."


class UnixConnection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, host: str, timeout: float) -> None:
        super().__init__(host, timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connects to it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


class AnswerError(Exception):
    """A server on a unix socket answered otherwise than with 200."""


def ask(path: Path, method: str, url: str, *, timeout: float = TIMEOUT_SECONDS) -> bytes:
    """Returns the answer to one request.

    Raises:
        AnswerError: the server refused.
        OSError: nobody listens there, or answers in time.
    """
    connection = UnixConnection(path, HOST, timeout)
    try:
        connection.request(method, url)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:  # noqa: PLR2004
        raise AnswerError(
            f"{method} {url}: {answer.status} {body.decode(errors='replace').strip()}"
        )
    return body


def watch_engine(path: Path, *, timeout: float = TIMEOUT_SECONDS) -> None:
    """Looks at a node's notifications for a moment, as a desktop client does for long.

    Now and then a tailscaled 1.78.3 that starts goes by a state of its engine that is no longer so, until somebody asks for the state anew: it stays
    `Starting` although it is connected, or takes back its endpoints, so that it is on relay for all (`getStatus` in wgengine/userspace.go reads the
    clock after the endpoints). The state is asked for two seconds after somebody has begun to look (`pollRequestEngineStatus`, ipn/ipnlocal/local.go).
    """
    connection = UnixConnection(path, HOST, timeout)
    try:
        connection.request("GET", "/localapi/v0/watch-ipn-bus?mask=1")
        connection.getresponse().readline()
    finally:
        connection.close()


def read(answer: bytes) -> dict[str, Any]:
    """Returns the JSON object that an answer is."""
    found: dict[str, Any] = json.loads(answer)
    return found


def nodes(admin: Path, *, timeout: float = TIMEOUT_SECONDS) -> dict[str, Any]:
    """Returns what the server knows of each node, by its host name."""
    return read(ask(admin, "GET", "/nodes", timeout=timeout))


def change(admin: Path, name: str, **values: str) -> None:
    """Lets the server say something else of a node; `server/main.go` has the values."""
    ask(admin, "POST", f"/nodes/{name}?{urllib.parse.urlencode(values)}")
