"""A round of pings over the LocalAPI: one thread for any number of peers.

All pings are sent at once. If connections are kept, and as many as are kept are in use,
a ping waits a moment for one of them: a new connection costs ten times as much as a
ping. A silent peer holds its connection for seconds, so the wait has an end.
"""

from __future__ import annotations

import heapq
import itertools
import select
import socket
import time
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlencode

from msgspec import Struct
from returns.result import Failure

from tsfc.core.keepalive import next_ping
from tsfc.core.tailscale.ping import ERROR, NO_REPLY, Ping, PingKind, PingResult, parse_response
from tsfc.shell.tailscaled.localapi import Connections, encode
from tsfc.shell.tailscaled.pings import Round, allow_descriptors, summary
from tsfc.shell.tailscaled.response import Response
from tsfc.shell.unix_stream import CONNECT_RETRY_SECONDS
from tsfc.shell.waiting import Wait, until

PING = "/localapi/v0/ping"

PATIENCE_SECONDS = 1.0
"Time that a ping waits for a kept connection."
_PIECE = 2**14
"Bytes per read."
_RESPONSE_LIMIT = 2**16
"Maximum size of a response in bytes. That to a ping has 300."


async def ping_all(
    connections: Connections,
    pings: tuple[Ping, ...],
    *,
    count: int,
    timeout: float,
    kind: PingKind = PingKind.DISCO,
) -> Round:
    """Ping every peer until a pong comes directly, at most `count` times.

    Each ping has a timeout of `timeout` seconds.
    """
    allow_descriptors(len(pings))
    loop = _Loop(connections, pings, count=count, timeout=timeout, kind=kind)
    try:
        await loop.run()
    finally:
        loop.close()
    results = {peer.ping.peer: peer.results for peer in loop.peers}
    return Round(results, summary(loop.errors, len(pings)))


@lru_cache(maxsize=4096)
def _request(ip: str, kind: PingKind) -> bytes:
    """The request for a ping; the agent sends the same ones again and again."""
    return encode("POST", f"{PING}?{urlencode({'ip': ip, 'type': kind})}")


class _Exchange(Struct, eq=False):
    """A ping that was sent: its connection, and the response so far."""

    connection: socket.socket
    is_kept: bool
    "The connection had been used before, so its server may have closed it."
    response: Response


class _Peer(Struct, eq=False):
    """A peer of the round.

    Until it is done, it has one timer. It waits for that alone, or for a place in the
    queue, or for the response to an exchange.
    """

    ping: Ping
    results: tuple[PingResult, ...] = ()
    "Of its pings so far."
    timer: int = 0
    "Serial number of its timer; 0 for none. Its earlier ones mean nothing any more."
    deadline: float = 0.0
    "Monotonic seconds at which the ping under way is given up."
    exchange: _Exchange | None = None


_Action = Callable[[_Peer], None]


class _Loop:
    """The event loop of one round.

    Timers are a heap of (time, serial number, peer, action). Serial numbers are unique,
    so peers and actions are never compared.
    """

    def __init__(
        self,
        connections: Connections,
        pings: tuple[Ping, ...],
        *,
        count: int,
        timeout: float,
        kind: PingKind,
    ) -> None:
        self.peers = [_Peer(ping) for ping in pings]
        self.errors: list[str] = []
        self._connections = connections
        self._count = count
        self._timeout = timeout
        self._kind = kind
        self._epoll = select.epoll()
        self._unfinished = len(pings)
        "Number of peers that are not done."
        self._open: dict[int, _Peer] = {}
        "The peers with an exchange, by the descriptor of its connection."
        self._queue: dict[int, _Peer] = {}
        "The peers that wait for a kept connection, by their timers, the longest first."
        self._timers: list[tuple[float, int, _Peer, _Action]] = []
        self._serial = itertools.count(1)

    async def run(self) -> None:
        for peer in self.peers:
            self._plan(peer)
        while True:
            self._run_timers()
            if not self._unfinished:
                return
            for descriptor, _ in await self._ready():
                self._receive(self._open[descriptor])

    def close(self) -> None:
        for peer in self._open.values():
            if peer.exchange is not None:
                peer.exchange.connection.close()
        self._epoll.close()

    async def _ready(self) -> list[tuple[int, int]]:
        """Wait for a response or a timer; return the descriptors that can be read."""
        ready = self._epoll.poll(0)
        if not ready and await until(Wait(self._epoll.fileno(), self._timers[0][0])):
            ready = self._epoll.poll(0)
        return ready

    def _plan(self, peer: _Peer) -> None:
        """Schedule the next ping to a peer, if there is one."""
        pause = next_ping(peer.results, self._count)
        if pause is None:
            peer.timer = 0
            self._unfinished -= 1
            return
        at = time.monotonic() + pause
        peer.deadline = at + self._timeout
        self._set_timer(at, peer, self._send_or_queue)

    def _set_timer(self, at: float, peer: _Peer, action: _Action) -> None:
        peer.timer = next(self._serial)
        heapq.heappush(self._timers, (at, peer.timer, peer, action))

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            _, serial, peer, action = heapq.heappop(self._timers)
            if peer.timer == serial:
                action(peer)

    def _send_or_queue(self, peer: _Peer) -> None:
        if not 0 < self._connections.limit <= len(self._open):
            self._send(peer)
            return
        self._set_timer(time.monotonic() + PATIENCE_SECONDS, peer, self._hurry)
        self._queue[peer.timer] = peer

    def _hurry(self, peer: _Peer) -> None:
        """Send a ping that has waited long enough for a kept connection."""
        del self._queue[peer.timer]
        self._send(peer)

    def _send(self, peer: _Peer) -> None:
        kept = self._connections.take()
        try:
            connection = kept or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            self._fail(peer, f"opening a socket: {error.strerror}; raise LimitNOFILE")
            return

        # Connect without waiting. While the socket's backlog is full, try again later.
        path = self._connections.path
        try:
            if kept is None:
                connection.setblocking(False)
                connection.connect(path)
            connection.send(_request(peer.ping.ip, self._kind))
        except BlockingIOError:
            connection.close()
            if time.monotonic() >= peer.deadline:
                self._add(peer, NO_REPLY)
            else:
                self._set_timer(time.monotonic() + CONNECT_RETRY_SECONDS, peer, self._send)
            return
        except OSError as error:
            connection.close()
            if kept is not None:
                self._send(peer)
            else:
                reason = error.strerror or error
                self._fail(peer, f"connecting to {path}: {reason}; is tailscaled running?")
            return
        self._epoll.register(connection, select.EPOLLIN)
        self._open_exchange(peer, connection, is_kept=kept is not None)

    def _send_over(self, connection: socket.socket, peer: _Peer) -> None:
        """Send a ping over the connection of an exchange that has just ended."""
        try:
            connection.send(_request(peer.ping.ip, self._kind))
        except OSError:
            connection.close()
            self._send(peer)
        else:
            self._open_exchange(peer, connection, is_kept=True)

    def _open_exchange(self, peer: _Peer, connection: socket.socket, *, is_kept: bool) -> None:
        """Wait for the response until the deadline."""
        peer.exchange = _Exchange(connection, is_kept, Response(_RESPONSE_LIMIT))
        self._open[connection.fileno()] = peer
        self._set_timer(peer.deadline, peer, self._expire)

    def _expire(self, peer: _Peer) -> None:
        """End an exchange without a response."""
        self._close_exchange(peer)
        self._add(peer, NO_REPLY)

    def _receive(self, peer: _Peer) -> None:
        """Read what has arrived."""
        exchange = peer.exchange
        if exchange is None:
            return
        try:
            piece = exchange.connection.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""  # a truncated response is reported below
        response = exchange.response
        response.feed(piece)
        if not response.is_done:
            return
        self._close_exchange(peer)
        if response.is_empty and exchange.is_kept:
            self._send(peer)
            return

        body = response.result(f"pinging {peer.ping.ip}")
        result = body if isinstance(body, Failure) else parse_response(body.unwrap())
        if isinstance(result, Failure):
            self._fail(peer, result.failure().detail)
        else:
            self._add(peer, result.unwrap())

    def _close_exchange(self, peer: _Peer) -> None:
        """End an exchange. The next ping in the queue gets its connection."""
        exchange = peer.exchange
        if exchange is None:
            return
        peer.exchange = None
        connection, response = exchange.connection, exchange.response
        del self._open[connection.fileno()]
        if response.is_reusable and self._queue:
            self._send_over(connection, self._queue.pop(next(iter(self._queue))))
            return
        self._epoll.unregister(connection)
        self._connections.give_back(connection, response)
        if self._queue:
            self._send(self._queue.pop(next(iter(self._queue))))

    def _fail(self, peer: _Peer, error: str) -> None:
        self.errors.append(error)
        self._add(peer, ERROR)

    def _add(self, peer: _Peer, result: PingResult) -> None:
        peer.results = (*peer.results, result)
        self._plan(peer)
