"""A round of pings over the LocalAPI: one thread for any number of peers."""

from __future__ import annotations

import heapq
import io
import itertools
import selectors
import socket
import time
from urllib.parse import urlencode

from msgspec import Struct
from returns.result import Failure

from tsfc.core.keepalive import next_ping
from tsfc.core.tailscale.ping import ERROR, NO_REPLY, Ping, PingKind, PingResult, parse_response
from tsfc.shell.signals import LONGEST_WAIT_SECONDS
from tsfc.shell.tailscaled import localapi
from tsfc.shell.tailscaled.pings import Round, allow_descriptors, summary
from tsfc.shell.tailscaled.source import LocalAPI
from tsfc.shell.unix_stream import CONNECT_RETRY_SECONDS

PING = "/localapi/v0/ping"

_PIECE = 2**14
"Bytes per read."
_RESPONSE_LIMIT = 2**16
"Maximum size of a response in bytes; a usual one has 300."


def ping_all(
    source: LocalAPI,
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
    loop = _Loop(source.socket, count=count, timeout=timeout, kind=kind)
    try:
        loop.run(pings)
    finally:
        loop.close()
    results = {ping.peer: loop.results[ping] for ping in pings}
    return Round(results, summary(loop.errors, len(pings)))


class _Exchange(Struct, eq=False):
    """A ping that was sent: its connection, and the response so far."""

    ping: Ping
    connection: socket.socket
    received: bytearray


class _Send(Struct):
    """A timer: send the ping, or give up if the deadline (monotonic) has passed."""

    ping: Ping
    deadline: float


class _Expire(Struct):
    """A timer: end the exchange without a reply if it is still open."""

    exchange: _Exchange


_Timer = _Send | _Expire


class _Loop:
    """The event loop of one round.

    Each unfinished peer has either a `_Send` timer, or an open exchange and an
    `_Expire` timer. Timers are a heap of (time, serial number, timer). Serial numbers
    are unique, so the timers themselves are never compared.
    """

    def __init__(self, path: str, *, count: int, timeout: float, kind: PingKind) -> None:
        self.results: dict[Ping, tuple[PingResult, ...]] = {}
        self.errors: list[str] = []
        self._path = path
        self._count = count
        self._timeout = timeout
        self._kind = kind
        self._selector = selectors.DefaultSelector()
        self._unfinished: set[Ping] = set()
        self._exchanges: dict[Ping, _Exchange] = {}
        self._timers: list[tuple[float, int, _Timer]] = []
        self._serial = itertools.count()

    def run(self, pings: tuple[Ping, ...]) -> None:
        for ping in pings:
            self._set_results(ping, ())
        while self._unfinished:
            self._run_timers()
            for key, _ in self._selector.select(self._seconds_to_next_timer()):
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

    def _seconds_to_next_timer(self) -> float:
        if not self._unfinished:
            return 0.0
        return min(LONGEST_WAIT_SECONDS, max(0.0, self._timers[0][0] - time.monotonic()))

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            _, _, timer = heapq.heappop(self._timers)
            match timer:
                case _Send(ping=ping, deadline=deadline):
                    self._send(ping, deadline)
                case _Expire(exchange=exchange):
                    if self._exchanges.get(exchange.ping) is exchange:
                        self._finish(exchange, NO_REPLY)

    def _send(self, ping: Ping, deadline: float) -> None:
        # Connect without waiting. While the socket's backlog is full, try again later.
        target = f"{PING}?{urlencode({'ip': ping.ip, 'type': self._kind})}"
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            self._fail(ping, f"opening a socket: {error.strerror}; raise LimitNOFILE")
            return
        try:
            connection.setblocking(False)
            connection.connect(self._path)
            localapi.send(connection, "POST", target)
        except BlockingIOError:
            connection.close()
            if time.monotonic() >= deadline:
                self._set_results(ping, (*self.results[ping], NO_REPLY))
            else:
                self._set_timer(time.monotonic() + CONNECT_RETRY_SECONDS, _Send(ping, deadline))
            return
        except OSError as error:
            connection.close()
            self._fail(
                ping, f"connecting to {self._path}: {error.strerror}; is tailscaled running?"
            )
            return

        # Wait for the response until the deadline.
        exchange = _Exchange(ping, connection, bytearray())
        self._exchanges[ping] = exchange
        self._selector.register(connection, selectors.EVENT_READ, exchange)
        self._set_timer(deadline, _Expire(exchange))

    def _receive(self, exchange: _Exchange) -> None:
        """Read what has arrived; the response is complete at the end of the stream."""
        try:
            piece = exchange.connection.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""  # a truncated response is reported below
        exchange.received += piece
        if piece and len(exchange.received) <= _RESPONSE_LIMIT:
            return

        action = f"pinging {exchange.ping.ip}"
        body = localapi.response_body(action, io.BytesIO(exchange.received).read)
        result = body if isinstance(body, Failure) else parse_response(body.unwrap())
        if isinstance(result, Failure):
            self.errors.append(result.failure().detail)
            self._finish(exchange, ERROR)
        else:
            self._finish(exchange, result.unwrap())

    def _finish(self, exchange: _Exchange, result: PingResult) -> None:
        self._selector.unregister(exchange.connection)
        exchange.connection.close()
        del self._exchanges[exchange.ping]
        self._set_results(exchange.ping, (*self.results[exchange.ping], result))

    def _fail(self, ping: Ping, error: str) -> None:
        self.errors.append(error)
        self._set_results(ping, (*self.results[ping], ERROR))
