"""HTTP responses as they arrive, and the connections that they leave."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from returns.result import Result, Success

from support.servers import http, serving
from support.statuses import encoded, peer
from tsfc.core.faults import Down, Fault
from tsfc.core.tailscale.ping import Ping
from tsfc.shell import waiting
from tsfc.shell.tailscaled.localapi import Connections, call
from tsfc.shell.tailscaled.localapi_pings import ping_all
from tsfc.shell.tailscaled.response import Response

BODY = b'{"a": 1}'
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + BODY
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n"
STATUS = encoded(peer("a"))
PONG = b'{"LatencySeconds": 0.002, "Endpoint": "192.0.2.1:41641"}'


def _fed(*pieces: bytes) -> Response:
    response = Response()
    for piece in pieces:
        response.feed(piece)
    return response


@pytest.mark.parametrize("data", [LENGTH, CHUNKED, b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH])
def test_a_response_may_arrive_in_any_pieces(data: bytes) -> None:
    for size in (1, 2, 7, len(data)):
        response = _fed(*(data[n : n + size] for n in range(0, len(data), size)))
        assert response.is_done
        assert response.is_reusable
        assert response.result("asking") == Success(BODY)


def test_a_response_is_not_done_before_its_last_byte() -> None:
    for size in range(1, len(CHUNKED)):
        assert not _fed(CHUNKED[:size]).is_done


def test_without_a_length_the_end_of_the_connection_ends_the_response() -> None:
    response = _fed(b"HTTP/1.1 200 OK\r\n\r\n" + BODY)
    assert not response.is_done
    response.feed(b"")
    assert response.result("asking") == Success(BODY)
    assert not response.is_reusable


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param((LENGTH + LENGTH,), id="a second response"),
        pytest.param((LENGTH + b"x",), id="garbage after it"),
        pytest.param((LENGTH.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),), id="close"),
        pytest.param((LENGTH.replace(b"1.1", b"1.0"),), id="HTTP/1.0"),
    ],
)
def test_a_connection_in_doubt_is_not_reusable(pieces: tuple[bytes, ...]) -> None:
    response = _fed(*pieces)
    assert response.result("asking") == Success(BODY)
    assert not response.is_reusable


def _kept_open(body: bytes) -> Iterator[bytes]:
    """Return a response of a server that keeps the connection open."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return itertools.chain([head + body], itertools.repeat(b""))


def _ask(connections: Connections) -> Result[bytes, Fault]:
    return waiting.run(call(connections, "GET", "/localapi/v0/status", timeout=60))


@pytest.mark.parametrize(("limit", "expected"), [(0, 3), (1, 1)])
def test_a_connection_is_kept_within_the_limit(box: Path, limit: int, expected: int) -> None:
    connections = Connections(str(box / "s"), limit)
    with serving(box / "s", lambda _: _kept_open(STATUS)) as server, closing(connections):
        for _ in range(3):
            assert _ask(connections) == Success(STATUS)
    assert len({id(request.connection) for request in server.requests}) == expected


@contextmanager
def _stale(path: Path) -> Generator[Connections]:
    """Yield connections of which one is kept, and closed by its server."""
    connections = Connections(str(path), 1)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.close()
    connections.give_back(ours, _fed(LENGTH))
    with closing(connections):
        yield connections


def test_a_request_over_a_stale_connection_is_sent_again(box: Path) -> None:
    with serving(box / "s", lambda _: http(STATUS)), _stale(box / "s") as connections:
        assert _ask(connections) == Success(STATUS)


def test_a_stale_connection_does_not_hide_that_tailscaled_is_down(box: Path) -> None:
    with _stale(box / "s") as connections:
        assert isinstance(_ask(connections).failure(), Down)


def test_pings_use_kept_connections(box: Path) -> None:
    pings = tuple(Ping(f"peer{number}", f"100.64.0.{number}") for number in range(3))
    connections = Connections(str(box / "s"), 3)
    with serving(box / "s", lambda _: _kept_open(PONG)) as server, closing(connections):
        for _ in range(2):
            round_ = waiting.run(ping_all(connections, pings, count=1, timeout=60))
            assert [result.outcome for (result,) in round_.results.values()] == ["direct"] * 3
    assert len(server.requests) == 6
    assert len({id(request.connection) for request in server.requests}) == 3


def test_a_ping_over_a_stale_connection_is_sent_again(box: Path) -> None:
    pings = (Ping("a", "100.64.0.1"),)
    with serving(box / "s", lambda _: http(PONG)), _stale(box / "s") as connections:
        round_ = waiting.run(ping_all(connections, pings, count=1, timeout=60))
    assert [result.outcome for result in round_.results["a"]] == ["direct"]
