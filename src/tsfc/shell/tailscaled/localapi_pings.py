"""A round of pings over the LocalAPI: one process, one thread, whatever the number of peers."""

from __future__ import annotations

import heapq
import itertools
import selectors
import socket
import time
from urllib.parse import urlencode

from msgspec import Struct
from returns.result import Failure

from tsfc.core.keepalive import next_ping
from tsfc.core.tailscale.ping import ERROR, NO_REPLY, Ping, PingResult, parse_response
from tsfc.shell.signals import LONGEST_WAIT_SECONDS
from tsfc.shell.tailscaled import localapi
from tsfc.shell.tailscaled.pings import Round, allow_descriptors, summary
from tsfc.shell.tailscaled.source import LocalAPI
from tsfc.shell.unix_stream import CONNECT_RETRY_SECONDS

PING = "/localapi/v0/ping"

_PIECE = 2**14
_ANSWER_LIMIT = 2**16
"Bytes; an answer to a ping has 300."


def ping_all(source: LocalAPI, pings: tuple[Ping, ...], *, count: int, timeout: float) -> Round:
    """Pings every peer at most `count` times, `timeout` seconds each, until it answered directly."""
    allow_descriptors(len(pings))
    round_ = _Loop(source.socket, count=count, timeout=timeout)
    try:
        round_.run(pings)
    finally:
        round_.close()
    return Round(
        {ping.peer: round_.answers[ping] for ping in pings}, summary(round_.complaints, len(pings))
    )


class _Exchange(Struct, eq=False):
    """One ping that was sent: the connection, and what has come back over it."""

    ping: Ping
    connection: socket.socket
    received: bytearray


class _Loop:
    """The loop of one round: for each peer a ping is to be sent, or waits for its answer, or that was the last."""

    def __init__(self, path: str, *, count: int, timeout: float) -> None:
        self.answers: dict[Ping, tuple[PingResult, ...]] = {}
        self.complaints: list[str] = []
        self._path = path
        self._count = count
        self._timeout = timeout
        self._selector = selectors.DefaultSelector()
        self._open: set[Ping] = set()
        "Whose pings are not over."
        self._sent: dict[Ping, _Exchange] = {}
        self._timers: list[tuple[float, int, Ping, float | _Exchange]] = []
        "When; a serial number, so that nothing behind it is compared; for whom; and what: send with this deadline, or give this up."
        self._serial = itertools.count()

    def run(self, pings: tuple[Ping, ...]) -> None:
        for ping in pings:
            self._note(ping, ())
        while self._open:
            self._run_timers()
            for key, _ in self._selector.select(self._seconds_to_next_timer()):
                self._receive(key.data)

    def close(self) -> None:
        for exchange in self._sent.values():
            exchange.connection.close()
        self._selector.close()

    def _note(self, ping: Ping, answers: tuple[PingResult, ...]) -> None:
        """Notes a peer's answers so far, and plans its next ping, if there is to be one."""
        self.answers[ping] = answers
        pause = next_ping(answers, self._count)
        if pause is None:
            self._open.discard(ping)
            return
        self._open.add(ping)
        at = time.monotonic() + pause
        self._set_timer(at, ping, at + self._timeout)

    def _set_timer(self, at: float, ping: Ping, what: float | _Exchange) -> None:
        heapq.heappush(self._timers, (at, next(self._serial), ping, what))

    def _seconds_to_next_timer(self) -> float:
        return (
            min(LONGEST_WAIT_SECONDS, max(0.0, self._timers[0][0] - time.monotonic()))
            if self._open
            else 0.0
        )

    def _run_timers(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            _, _, ping, what = heapq.heappop(self._timers)
            if not isinstance(what, _Exchange):
                self._send(ping, what)
            elif self._sent.get(ping) is what:
                self._finish(what, NO_REPLY)

    def _send(self, ping: Ping, deadline: float) -> None:
        target = f"{PING}?{urlencode({'ip': ping.ip, 'type': 'disco'})}"
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
                self._note(ping, (*self.answers[ping], NO_REPLY))
            else:
                self._set_timer(time.monotonic() + CONNECT_RETRY_SECONDS, ping, deadline)
            return
        except OSError as error:
            connection.close()
            self._fail(
                ping, f"connecting to {self._path}: {error.strerror}; is tailscaled running?"
            )
            return
        exchange = _Exchange(ping, connection, bytearray())
        self._sent[ping] = exchange
        self._selector.register(connection, selectors.EVENT_READ, exchange)
        self._set_timer(deadline, ping, exchange)

    def _receive(self, exchange: _Exchange) -> None:
        """Takes what has come; the answer is whole where the stream ends."""
        try:
            piece = exchange.connection.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""  # cut off: what has come so far will say so
        exchange.received += piece
        if piece and len(exchange.received) <= _ANSWER_LIMIT:
            return
        body = localapi.answer(f"pinging {exchange.ping.ip}", bytes(exchange.received))
        read = body if isinstance(body, Failure) else parse_response(body.unwrap())
        if isinstance(read, Failure):
            self.complaints.append(read.failure().detail)
            self._finish(exchange, ERROR)
        else:
            self._finish(exchange, read.unwrap())

    def _finish(self, exchange: _Exchange, answer: PingResult) -> None:
        self._selector.unregister(exchange.connection)
        exchange.connection.close()
        del self._sent[exchange.ping]
        self._note(exchange.ping, (*self.answers[exchange.ping], answer))

    def _fail(self, ping: Ping, complaint: str) -> None:
        self.complaints.append(complaint)
        self._note(ping, (*self.answers[ping], ERROR))
