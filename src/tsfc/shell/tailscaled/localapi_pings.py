"""A round of pings over the LocalAPI: one thread for any number of peers.

All pings are sent at once. If connections are kept, and as many as are kept are in use,
a ping waits a moment for one of them: a new connection costs ten times as much as a
ping. A silent peer holds its connection for seconds, so the wait has an end.
"""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import time
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
from tsfc.shell.waiting import select_ready

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
    loop = _Loop(connections, count=count, timeout=timeout, kind=kind)
    try:
        await loop.run(pings)
    finally:
        loop.close()
    results = {ping.peer: loop.results[ping] for ping in pings}
    return Round(results, summary(loop.errors, len(pings)))


@lru_cache(maxsize=4096)
def _request(ip: str, kind: PingKind) -> bytes:
    """The request for a ping; the agent sends the same ones again and again."""
    return encode("POST", f"{PING}?{urlencode({'ip': ip, 'type': kind})}")


class _Exchange(Struct, eq=False):
    """A ping that was sent: its connection, and the response so far."""

    ping: Ping
    deadline: float
    connection: socket.socket
    is_kept: bool
    "The connection had been used before, so its server may have closed it."
    response: Response


class _Send(Struct):
    """A timer: send the ping, or give up if the deadline (monotonic) has passed."""

    ping: Ping
    deadline: float


class _Hurry(Struct):
    """A timer: the ping has waited long enough for a kept connection."""

    send: _Send


class _Expire(Struct):
    """A timer: end the exchange without a reply if it is still open."""

    exchange: _Exchange


_Timer = _Send | _Hurry | _Expire


class _Loop:
    """The event loop of one round.

    Each unfinished peer has a `_Send` timer, a place in the queue and a `_Hurry` timer,
    or an open exchange and an `_Expire` timer. Timers are a heap of (time, serial
    number, timer). Serial numbers are unique, so the timers themselves are never
    compared.
    """

    def __init__(
        self, connections: Connections, *, count: int, timeout: float, kind: PingKind
    ) -> None:
        self.results: dict[Ping, tuple[PingResult, ...]] = {}
        self.errors: list[str] = []
        self._connections = connections
        self._count = count
        self._timeout = timeout
        self._kind = kind
        self._selector = selectors.EpollSelector()
        self._unfinished: set[Ping] = set()
        self._exchanges: dict[Ping, _Exchange] = {}
        self._queue: dict[Ping, _Send] = {}
        "What waits for a kept connection, the longest first."
        self._timers: list[tuple[float, int, _Timer]] = []
        self._serial = itertools.count()

    async def run(self, pings: tuple[Ping, ...]) -> None:
        for ping in pings:
            self._set_results(ping, ())
        while True:
            self._run_timers()
            if not self._unfinished:
                return
            for key in await select_ready(self._selector, self._timers[0][0]):
                self._receive(key.data)

    def close(self) -> None:
        for exchange in self._exchanges.values():
            exchange.connection.close()
        self._selector.close()

    def _set_results(self, ping: Ping, results: tuple[PingResult, ...]) -> None:
        """Store the results of a peer so far, and schedule its next ping, if any."""
        self.results[ping] = results
        pause = next_ping(results, self._count)
        if pause is None:
            self._unfinished.discard(ping)
            return
        self._unfinished.add(ping)
        at = time.monotonic() + pause
        self._set_timer(at, _Send(ping, at + self._timeout))

    def _set_timer(self, at: float, timer: _Timer) -> None:
        heapq.heappush(self._timers, (at, next(self._serial), timer))

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            _, _, timer = heapq.heappop(self._timers)
            match timer:
                case _Send():
                    self._send_or_queue(timer)
                case _Hurry(send=send):
                    if self._queue.get(send.ping) is send:
                        del self._queue[send.ping]
                        self._send(send.ping, send.deadline)
                case _Expire(exchange=exchange):
                    if self._exchanges.get(exchange.ping) is exchange:
                        self._finish(exchange, NO_REPLY)

    def _send_or_queue(self, send: _Send) -> None:
        are_all_in_use = 0 < self._connections.limit <= len(self._exchanges)
        if not are_all_in_use:
            self._send(send.ping, send.deadline)
            return
        self._queue[send.ping] = send
        self._set_timer(time.monotonic() + PATIENCE_SECONDS, _Hurry(send))

    def _send(self, ping: Ping, deadline: float) -> None:
        kept = self._connections.take()
        try:
            connection = kept or socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            self._fail(ping, f"opening a socket: {error.strerror}; raise LimitNOFILE")
            return

        # Connect without waiting. While the socket's backlog is full, try again later.
        path = self._connections.path
        try:
            if kept is None:
                connection.setblocking(False)
                connection.connect(path)
            connection.send(_request(ping.ip, self._kind))
        except BlockingIOError:
            connection.close()
            if time.monotonic() >= deadline:
                self._set_results(ping, (*self.results[ping], NO_REPLY))
            else:
                self._set_timer(time.monotonic() + CONNECT_RETRY_SECONDS, _Send(ping, deadline))
            return
        except OSError as error:
            connection.close()
            if kept is not None:
                self._send(ping, deadline)
            else:
                self._fail(ping, f"connecting to {path}: {error.strerror}; is tailscaled running?")
            return

        # Wait for the response until the deadline.
        exchange = _Exchange(
            ping, deadline, connection, kept is not None, Response(_RESPONSE_LIMIT)
        )
        self._exchanges[ping] = exchange
        self._selector.register(connection, selectors.EVENT_READ, exchange)
        self._set_timer(deadline, _Expire(exchange))

    def _receive(self, exchange: _Exchange) -> None:
        """Read what has arrived."""
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
        if response.is_empty and exchange.is_kept:
            self._end(exchange)
            self._send(exchange.ping, exchange.deadline)
            return

        body = response.result(f"pinging {exchange.ping.ip}")
        result = body if isinstance(body, Failure) else parse_response(body.unwrap())
        if isinstance(result, Failure):
            self.errors.append(result.failure().detail)
            self._finish(exchange, ERROR)
        else:
            self._finish(exchange, result.unwrap())

    def _finish(self, exchange: _Exchange, result: PingResult) -> None:
        self._end(exchange)
        self._set_results(exchange.ping, (*self.results[exchange.ping], result))

    def _end(self, exchange: _Exchange) -> None:
        self._selector.unregister(exchange.connection)
        self._connections.give_back(exchange.connection, exchange.response)
        del self._exchanges[exchange.ping]
        if self._queue and self._connections.has_idle:
            ping = next(iter(self._queue))
            self._send(ping, self._queue.pop(ping).deadline)

    def _fail(self, ping: Ping, error: str) -> None:
        self.errors.append(error)
        self._set_results(ping, (*self.results[ping], ERROR))
