"""A small HTTP server: it answers GET, to few clients, from memory (RFC 9110, 9112).

httptools parses the requests. A client that is slow, sends too much or asks for
anything else is answered or cut off; it never holds up a job.
"""

from __future__ import annotations

import math
import os
import socket
import stat
import time
from collections.abc import Callable
from contextlib import closing, suppress

from httptools import HttpParserError, HttpRequestParser
from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.agent.loop import Loop
from tsfc.core import listen_address
from tsfc.core.text import one_line
from tsfc.shell.unix_stream import receive, send
from tsfc.shell.waiting import Wait, sleep, until

FROM_SYSTEMD = "systemd"
"Address of a socket that systemd has opened (`LISTEN_FDS`, sd_listen_fds(3))."
_FIRST_DESCRIPTOR = 3
"`SD_LISTEN_FDS_START`."
CONNECTION_LIMIT = 16
_BACKLOG = 128
"More clients than that at a time are refused by the kernel."
ACCEPT_RETRY_SECONDS = 0.1
REQUEST_SECONDS = 5.0
"Time in which a request has to arrive."
RESPONSE_SECONDS = 30.0
"Time in which a client has to take the response."
_REQUEST_LIMIT = 2**14
"Maximum size of a request in bytes."
_REASONS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


class Answer(Struct, frozen=True):
    """The response to a request."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[str, ...] = ()


TEXT = "text/plain; charset=utf-8"


def text(status: int, line: str) -> Answer:
    """Return an answer of one line or more."""
    return Answer(status, TEXT, f"{line}\n".encode())


Pages = Callable[[str], Answer]
"Answers a GET for a path."
Hosts = Callable[[], frozenset[str]]
"The names and addresses by which clients may call this server, now."


def listen(
    address: str, *, anywhere: bool, unit: str = "tailscale-agent.socket"
) -> Result[socket.socket, str]:
    """Listen on `HOST:PORT`, on the path of a Unix socket, or where systemd does.

    Unless `anywhere`, the host must be loopback or an address of Tailscale. A failure
    is a line. `unit` is the one that passes the socket of systemd.
    """
    action = f"listening on {one_line(address, 200)}"
    if address == FROM_SYSTEMD:
        return _from_systemd(action, unit)
    if address.startswith("/"):
        return _on_path(address, action)
    parsed = listen_address.parsed(address)
    if parsed is None:
        return Failure(f"{action}: give IP:PORT, the path of a socket, or {FROM_SYSTEMD}")
    ip, port = parsed
    if not anywhere and not listen_address.is_near(ip):
        return Failure(f"{action}: {listen_address.far_problem('--listen-anywhere')}")
    family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET  # noqa: PLR2004
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(ip), port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        return Failure(f"{action}: {error.strerror or error}; give another --listen")
    return Success(listener)


class Server:
    """The connections of clients, as coroutines of a loop."""

    def __init__(self, loop: Loop, listener: socket.socket, pages: Pages, hosts: Hosts) -> None:
        self._loop = loop
        self._listener = listener
        self._pages = pages
        self._hosts = hosts
        self._open = 0
        self._number = 0
        listener.setblocking(False)

    async def run(self) -> None:
        """Accept connections until the loop ends."""
        with closing(self._listener):
            while True:
                await until(Wait(self._listener.fileno(), math.inf))
                try:
                    connection, _ = self._listener.accept()
                except OSError:  # such as no descriptor left, until a job has ended
                    await sleep(ACCEPT_RETRY_SECONDS)
                else:
                    self._accept(connection)

    def _accept(self, connection: socket.socket) -> None:
        if self._open >= CONNECTION_LIMIT:
            connection.close()
            return
        connection.setblocking(False)
        self._open += 1
        self._number += 1
        self._loop.start(f"client {self._number}", self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        try:
            with closing(connection), suppress(OSError, TimeoutError):
                while await self._answer(connection):
                    pass
        finally:
            self._open -= 1

    async def _answer(self, connection: socket.socket) -> bool:
        """Answer one request; return whether the connection can take another."""
        request = _Request()
        deadline = time.monotonic() + REQUEST_SECONDS
        while not request.is_done:
            piece = await receive(connection, deadline, _REQUEST_LIMIT)
            if not piece:
                return False
            request.feed(piece)
        answer = self._to(request, is_local=connection.family == socket.AF_UNIX)
        is_kept = request.is_kept and answer.status != 400  # noqa: PLR2004
        await send(
            connection,
            _encoded(answer, is_head=request.method == "HEAD", is_kept=is_kept),
            time.monotonic() + RESPONSE_SECONDS,
        )
        return is_kept

    def _to(self, request: _Request, *, is_local: bool) -> Answer:
        if request.is_bad:
            return text(400, "this is no request that this server understands")
        if request.method not in {"GET", "HEAD"}:
            answer = text(405, "only GET is possible")
            return Answer(answer.status, answer.content_type, answer.body, ("Allow: GET, HEAD",))
        # A page of another site must not read this one by a name that leads here.
        if not is_local and request.host not in self._hosts():
            return text(403, "call this server by its IP address, its Tailscale name or localhost")
        return self._pages(request.path)


class _Request:
    """What has arrived of a request. The methods `on_…` are those of httptools."""

    def __init__(self) -> None:
        self.is_done = False
        self.is_bad = False
        self.is_kept = False
        self.method = ""
        self.path = ""
        self.host = ""
        self._size = 0
        self._url = b""
        self._parser = HttpRequestParser(self)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._size += len(piece)
        try:
            self._parser.feed_data(piece)
        except HttpParserError:
            self.is_bad = True
        self.is_bad = self.is_bad or self._size > _REQUEST_LIMIT
        self.is_done = self.is_done or self.is_bad

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; only the name of the host matters."""
        if name.lower() == b"host":
            host = value.decode("latin-1").strip().casefold()
            name_, colon, port = host.rpartition(":")
            self.host = name_ if colon and port.isdecimal() else host

    def on_message_complete(self) -> None:
        """Take the end of the request. A second one before the answer is not served."""
        self.is_bad = self.is_bad or self.is_done
        self.is_done = True
        self.method = self._parser.get_method().decode("latin-1")
        self.path = self._url.decode("latin-1").partition("?")[0]
        self.is_kept = self._parser.should_keep_alive()


def _encoded(answer: Answer, *, is_head: bool, is_kept: bool) -> bytes:
    lines = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        *answer.headers,
        *(() if is_kept else ("Connection: close",)),
    )
    head = "".join(f"{line}\r\n" for line in (*lines, "")).encode()
    return head if is_head else head + answer.body


def _from_systemd(action: str, unit: str) -> Result[socket.socket, str]:
    advice = f"see `systemctl status {unit}`, then restart the agent"
    is_ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    count = os.environ.get("LISTEN_FDS", "0") if is_ours else "0"
    if count != "1":
        return Failure(f"{action}: systemd passed {one_line(count, 20)} sockets, not 1; {advice}")
    try:
        listener = socket.socket(fileno=_FIRST_DESCRIPTOR)
    except OSError as error:
        return Failure(f"{action}: {error.strerror}; {advice}")
    listener.set_inheritable(False)
    return Success(listener)


def _on_path(path: str, action: str) -> Result[socket.socket, str]:
    """Listen on a Unix socket; replace one that an earlier agent left behind."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        return Failure(f"{action}: {error.strerror or error}; give a path in a writable directory")
    return Success(listener)
