"""A small LocalAPI server on a Unix socket that plays a capture or a scenario.

It is for tests, demonstrations, and for writing alert rules without a relayed peer. The
responses come from pure functions; the server reads requests and writes responses.
"""

from __future__ import annotations

import os
import select
import signal
import socketserver
import stat
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from threading import RLock

from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.text import PATH_LIMIT, printable
from tsfc.offline.capture.read import in_order
from tsfc.offline.fake_tailscaled.frames import frame_at, frames
from tsfc.offline.fake_tailscaled.responses import (
    Disconnect,
    NoResponse,
    Reaction,
    Response,
    respond,
    respond_in_world,
)
from tsfc.offline.simulation import scenario
from tsfc.offline.simulation.scenario import Scenario, Traffic
from tsfc.offline.simulation.spans import default, period_range, span_range
from tsfc.offline.simulation.world import World
from tsfc.shell import clocks, signals
from tsfc.shell.console import STDOUT, print_error, say
from tsfc.shell.signals import LONGEST_WAIT_SECONDS
from tsfc.shell.tailscaled.localapi import is_reachable

TOOL = "stand-in"
SOCKET_MODE = 0o666
"Every user may connect, as with tailscaled on Linux (`safesocket/unixsocket.go`)."
_BACKLOG = 4096
_TRAFFIC = Traffic(every=period_range(1, 30), lasts=span_range(10, 300))
"Traffic to each peer that has none in its scenario. Its pauses leave the peer active."

Responder = Callable[[str, str, str], Reaction]
"Function of a request's method, target and host."
Clock = Callable[[], float]
"Seconds from any origin that do not go back."


def play_capture(capture_path: str, socket_path: str, *, speed: float, loop: bool) -> int:
    """Play a capture until a signal, and return the exit status."""
    observations = in_order(capture_path, lambda warning: print_error(TOOL, warning))
    if isinstance(observations, Failure):
        print_error(TOOL, observations.failure())
        return 1
    played = frames(observations.unwrap())
    started = time.monotonic()

    def respond_now(method: str, target: str, host: str) -> Reaction:
        seconds = (time.monotonic() - started) * speed
        return respond(frame_at(played, seconds, loop=loop), method, target, host)

    return _serve(
        socket_path,
        respond_now,
        f"{capture_path} on {socket_path}: {len(played)} observations, {played[-1].at:g} s,"
        f" {speed:g} times as fast",
    )


def play_scenario(name: str, socket_path: str, *, speed: float) -> int:
    """Play a scenario until a signal, and return the exit status.

    SIGHUP restarts the simulated tailscaled.
    """
    found = scenario.find(name)
    if isinstance(found, Failure):
        print_error(TOOL, found.failure())
        return 1
    player = ScenarioPlayer(replace(found.unwrap(), start=int(clocks.unix_time(None))), speed=speed)

    def restart(*_: object) -> None:
        player.restart()

    signal.signal(signal.SIGHUP, restart)
    return _serve(
        socket_path,
        player.respond,
        f"{name} on {socket_path}, {speed:g} times as fast; SIGHUP restarts its tailscaled",
    )


class ScenarioPlayer:
    """A simulated tailscaled in the time of a clock.

    Pings have their effect on the simulated paths. There is no keepalive except for the
    pings of clients, but there is traffic.
    """

    def __init__(self, played: Scenario, *, speed: float, clock: Clock = time.monotonic) -> None:
        self._world = World(_with_traffic(played), seed=0, speed=speed)
        self._speed = speed
        self._clock = clock
        self._started = clock()
        self._lock = RLock()

    def respond(self, method: str, target: str, host: str) -> Reaction:
        """Return the reaction to a request."""
        with self._lock:
            self._advance()
            return respond_in_world(self._world, method, target, host)

    def restart(self) -> None:
        """Restart the simulated tailscaled."""
        with self._lock:
            self._advance()
            self._world.restart()

    def _advance(self) -> None:
        self._world.advance((self._clock() - self._started) * self._speed)


def _with_traffic(played: Scenario) -> Scenario:
    """Return a scenario in which traffic keeps the peers active instead of keepalive.

    If it has no keepalive, idle peers are its subject, and they stay idle.
    """
    if not played.node.keepalive:
        return played
    peers = tuple(
        peer if peer.traffic else replace(peer, traffic=_TRAFFIC) for peer in played.peers
    )
    return replace(played, node=replace(played.node, keepalive=default(0)), peers=peers)


def _serve(socket_path: str, responder: Responder, title: str) -> int:
    listening = listen(socket_path, responder)
    if isinstance(listening, Failure):
        print_error(TOOL, listening.failure())
        return 1
    with signals.cleaning_up(lambda: os.unlink(socket_path)):
        say(STDOUT, printable(f"playing {title}", 3 * PATH_LIMIT))
        listening.unwrap().serve_forever(poll_interval=LONGEST_WAIT_SECONDS)
    return 0


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _BACKLOG

    def __init__(self, path: str, responder: Responder) -> None:
        self.responder = responder
        super().__init__(path, _Handler)
        os.chmod(path, SOCKET_MODE)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a client that disconnects is not an error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - no other server uses it

    def do_GET(self) -> None:
        self._respond()

    do_POST = do_GET  # noqa: N815 - http.server's name

    def _respond(self) -> None:
        match self.server.responder(self.command, self.path, self.headers.get("Host", "")):
            case Response(code=code, body=body, content_type=content_type):
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            case NoResponse():
                disconnect = select.poll()
                disconnect.register(self.connection, select.POLLIN)
                disconnect.poll()
                self.close_connection = True
            case Disconnect():
                self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Print nothing: there are many requests a minute."""


def listen(path: str, responder: Responder) -> Result[socketserver.BaseServer, str]:
    """Listen on a socket. Replace only a socket that no process listens on."""
    tried = f"listening on {path}"
    if is_reachable(path):
        return Failure(f"{tried}: another process listens there; give another --socket")
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except OSError:
        pass  # there is no such file, or bind fails and reports why
    try:
        return Success(_Server(path, responder))
    except OSError as error:
        return Failure(
            f"{tried}: {error.strerror or error}; give another --socket, in a directory that you "
            "may write to"
        )
