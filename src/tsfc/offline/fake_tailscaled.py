"""A stand-in for tailscaled: a small LocalAPI server on a unix socket that plays a capture, or an imagined tailnet.

For tests, demonstrations, and people who write alert rules and have no relayed peer at hand. It answers `status`,
`usermetrics` and `ping` as a tailscaled with that status would, and refuses `debug` as one does to a user without
rights. What it answers is decided by pure functions; the server around them moves bytes.
"""

from __future__ import annotations

import os
import select
import signal
import socketserver
import stat
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from itertools import accumulate
from threading import RLock
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.evaluation.observation import Observation
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.families import Family, Kind, Sample, gauge
from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.status import PeerStatus, Status, decode, is_running
from tsfc.offline.capture.read import in_order
from tsfc.offline.simulation import scenario
from tsfc.offline.simulation.spans import default
from tsfc.offline.simulation.world import World
from tsfc.shell.console import STDERR, STDOUT, say
from tsfc.shell.signals import LONGEST_WAIT_SECONDS, Terminated
from tsfc.shell.tailscaled.localapi import HOST, is_reachable

DIRECT_SECONDS, PEER_RELAY_SECONDS, DERP_SECONDS = 0.012, 0.025, 0.048
"Latency of a ping by its path: of the size seen on the internet."
PATH_LABELS = {Path.DIRECT: "direct_ipv4", Path.PEER_RELAY: "peer_relay_ipv4", Path.DERP: "derp"}
"tailscaled's words for a path (`wgengine/magicsock/magicsock.go`)."
SOCKET_MODE = 0o666
"Everybody may ask, as with tailscaled on Linux (`safesocket/unixsocket.go`)."
_BACKLOG = 4096
PREFIX = "/localapi/v0/"


class Frame(Struct, frozen=True):
    """One observation, ready to be played."""

    at: float
    "Seconds since the beginning of the capture."
    document: bytes
    "The status as it was; empty where there was a fault, which is played as a daemon that is not there."
    status: Status | None
    peers: Mapping[str, PeerStatus]
    "By each of their Tailscale IPs."
    received: Counter[str]
    "Bytes received since the beginning, by path: what usermetrics counts."
    sent: Counter[str]


class Reply(Struct, frozen=True):
    """An HTTP answer."""

    code: int
    body: bytes
    content_type: str = "application/json"


class Silence(Struct, frozen=True):
    """No answer, as long as the client cares to wait: a ping that nobody answers."""


class Hangup(Struct, frozen=True):
    """The connection is closed without an answer."""


Answer = Reply | Silence | Hangup
Answers = Callable[[str, str, str], Answer]
"What answers a request: its method, its target and its host."


def play_capture(capture_path: str, socket_path: str, *, speed: float, loop: bool) -> int:
    """Plays a capture until a signal ends it, which is how it is meant to end."""
    observations = in_order(capture_path, lambda warning: say(STDERR, f"tsfc stand-in: {warning}"))
    if isinstance(observations, Failure):
        say(STDERR, f"tsfc stand-in: {observations.failure()}")
        return 1
    played = frames(observations.unwrap())
    started = time.monotonic()

    def answers(method: str, target: str, host: str) -> Answer:
        return answer(
            frame_at(played, (time.monotonic() - started) * speed, loop=loop), method, target, host
        )

    return _serve(
        socket_path,
        answers,
        f"{capture_path} on {socket_path}: {len(played)} observations, {played[-1].at:g} s, {speed:g} times as fast",
    )


def play_scenario(name: str, socket_path: str, *, speed: float) -> int:
    """Plays an imagined tailnet until a signal ends it: pings have the effect that they have there, and SIGHUP is a restart of tailscaled.

    Nobody keeps its paths alive but who asks.
    """
    found = scenario.find(name)
    if isinstance(found, Failure):
        say(STDERR, f"tsfc stand-in: {found.failure()}")
        return 1
    wanted = found.unwrap()
    world = World(replace(wanted, node=replace(wanted.node, keepalive=default(0))), seed=0)
    turn = RLock()
    started = time.monotonic()

    def answers(method: str, target: str, host: str) -> Answer:
        with turn:
            world.advance((time.monotonic() - started) * speed)
            return answer_of_world(world, method, target, host)

    def restart(*_: object) -> None:
        with turn:
            world.advance((time.monotonic() - started) * speed)
            world.restart()

    signal.signal(signal.SIGHUP, restart)
    return _serve(
        socket_path,
        answers,
        f"{name} on {socket_path}, {speed:g} times as fast; SIGHUP restarts its tailscaled",
    )


def answer_of_world(world: World, method: str, target: str, host: str) -> Answer:
    """Returns what tailscaled would answer now; a ping is one, with all that it has as consequences."""
    url = urlsplit(target)
    pinged = (
        parse_qs(url.query).get("ip", [""])[0]
        if (method, url.path) == ("POST", PREFIX + "ping")
        else ""
    )
    answered = world.ping(pinged) if pinged else None
    frame = _frame_of(world)
    if answered is None and pinged in frame.peers:
        return Silence()
    return answer(frame, method, target, host)


def _frame_of(world: World) -> Frame:
    shown = world.observe()
    if isinstance(shown, str):
        return Frame(world.now, b"", None, {}, Counter(), Counter())
    status = decode(shown).unwrap()
    (only,) = frames((Observation(world.instant().unix, status=Raw(shown)),))
    return Frame(world.now, shown, status, only.peers, only.received, only.sent)


def _serve(socket_path: str, answers: Answers, what: str) -> int:
    server = _listen(socket_path, answers)
    if isinstance(server, Failure):
        say(STDERR, f"tsfc stand-in: {server.failure()}")
        return 1
    playing = server.unwrap()
    try:
        say(STDOUT, f"playing {what}")
        playing.serve_forever(poll_interval=LONGEST_WAIT_SECONDS)
    except Terminated:
        pass
    finally:
        playing.server_close()
        with suppress(FileNotFoundError):
            os.unlink(socket_path)
    return 0


def frames(observations: Sequence[Observation]) -> tuple[Frame, ...]:
    """Returns what is played, from observations in the order of their times."""
    statuses = [
        decode(bytes(seen.status)).unwrap() if seen.fault is None else None for seen in observations
    ]
    traffic = list(
        accumulate(
            _traffic(before, after)
            for before, after in zip([None, *statuses], statuses, strict=False)
        )
    )
    return tuple(
        Frame(
            at=seen.captured_at - observations[0].captured_at,
            document=bytes(seen.status),
            status=status,
            peers={
                ip: peer
                for peer in ((status.peer if status else None) or {}).values()
                for ip in peer.tailscale_ips or ()
            },
            received=Counter(
                {path: size for (direction, path), size in counted.items() if direction == "rx"}
            ),
            sent=Counter(
                {path: size for (direction, path), size in counted.items() if direction == "tx"}
            ),
        )
        for seen, status, counted in zip(observations, statuses, traffic, strict=True)
    )


def frame_at(played: Sequence[Frame], seconds: float, *, loop: bool) -> Frame:
    """Returns the frame that is on at `seconds` of the capture's time; after the last, it stays, or all begins again."""
    if loop and played[-1].at > 0:
        seconds %= played[-1].at
    return max(
        (frame for frame in played if frame.at <= seconds),
        key=lambda frame: frame.at,
        default=played[0],
    )


def answer(frame: Frame, method: str, target: str, host: str) -> Answer:
    """Returns what tailscaled would answer to a request while the frame is on."""
    if frame.status is None:
        return Hangup()
    if host not in {HOST, ""}:
        return _refused(403, "invalid localapi request")
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    match method, url.path.removeprefix(PREFIX):
        case "GET", "status":
            return Reply(200, frame.document)
        case "GET", "usermetrics":
            return Reply(
                200,
                usermetrics(frame, frame.status).encode(),
                "text/plain;version=0.0.4;charset=utf-8",
            )
        case "POST", "ping":
            return _ping(frame, frame.status, query.get("ip", ""), query.get("type", ""))
        case _, "ping":
            return _refused(400, "want POST")
        case _, "debug":
            return _refused(403, "debug access denied")
        case _:
            return _refused(404, "404 page not found")


def usermetrics(frame: Frame, status: Status) -> str:
    """Returns metrics of tailscaled's own that agree with the frame: health messages, and bytes by path, counted from the capture's beginning."""

    def by_path(name: str, text: str, counted: Counter[str]) -> Family:
        return Family(
            name,
            Kind.COUNTER,
            text,
            tuple(Sample({"path": path}, counted[path]) for path in PATH_LABELS.values()),
        )

    warnings = Sample({"type": "warning"}, len(status.health or ()))
    return render(
        (
            gauge(
                "tailscaled_advertised_routes",
                "Number of advertised network routes (e.g. by a subnet router)",
                0,
            ),
            Family(
                "tailscaled_health_messages",
                Kind.GAUGE,
                "Number of health messages broken down by type.",
                (warnings,),
            ),
            by_path(
                "tailscaled_inbound_bytes_total",
                "Counts the number of bytes received from other peers",
                frame.received,
            ),
            by_path(
                "tailscaled_outbound_bytes_total",
                "Counts the number of bytes sent to other peers",
                frame.sent,
            ),
        )
    )


def _traffic(before: Status | None, after: Status | None) -> Counter[tuple[str, str]]:
    """Returns the bytes that came and went between two statuses by direction and path; what began again at 0 counts from there."""
    counted: Counter[tuple[str, str]] = Counter()
    earlier = (before.peer if before else None) or {}
    for key, peer in ((after.peer if after else None) or {}).items():
        label = PATH_LABELS.get(classify(peer), PATH_LABELS[Path.DERP])
        then = earlier.get(key, PeerStatus())
        counted["rx", label] += peer.rx_bytes - (
            then.rx_bytes if then.rx_bytes <= peer.rx_bytes else 0
        )
        counted["tx", label] += peer.tx_bytes - (
            then.tx_bytes if then.tx_bytes <= peer.tx_bytes else 0
        )
    return counted


def _ping(frame: Frame, status: Status, ip: str, kind: str) -> Answer:
    if not ip or not kind:
        return _refused(400, f"missing '{'type' if ip else 'ip'}' parameter")
    if not is_running(status):
        return _pong(ip, Err="local tailscaled stopped")
    if ip in (status.self_.tailscale_ips or ()):
        return _pong(ip, Err=f"{ip} is local Tailscale IP", IsLocalIP=True)
    peer = frame.peers.get(ip)
    if peer is None:
        return _pong(ip, Err="no matching peer")
    if peer.expired:
        return _pong(ip, Err="peer's node key has expired")
    name = peer.dns_name.partition(".")[0] or peer.host_name
    if not peer.online:
        return Silence()
    if peer.cur_addr:
        return _pong(ip, NodeName=name, LatencySeconds=DIRECT_SECONDS, Endpoint=peer.cur_addr)
    if peer.peer_relay:
        return _pong(
            ip, NodeName=name, LatencySeconds=PEER_RELAY_SECONDS, PeerRelay=peer.peer_relay
        )
    if peer.relay:
        return _pong(
            ip,
            NodeName=name,
            LatencySeconds=DERP_SECONDS,
            DERPRegionID=1,
            DERPRegionCode=peer.relay,
        )
    return Silence()


def _pong(ip: str, **said: object) -> Reply:
    """Returns an `ipnstate.PingResult`: an error is one too, with the status 200."""
    nothing = {
        "NodeName": "",
        "Err": "",
        "LatencySeconds": 0,
        "Endpoint": "",
        "PeerRelay": "",
        "DERPRegionID": 0,
        "DERPRegionCode": "",
    }
    return Reply(200, msgspec.json.encode({"IP": ip, "NodeIP": ip} | nothing | said))


def _refused(code: int, text: str) -> Reply:
    return Reply(code, text.encode() + b"\n", "text/plain; charset=utf-8")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _BACKLOG

    def __init__(self, path: str, answers: Answers) -> None:
        self.answers = answers
        super().__init__(path, _Handler)
        os.chmod(path, SOCKET_MODE)

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing: a client that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - it is nobody else's handler

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_GET  # noqa: N815 - http.server's name

    def _answer(self) -> None:
        match self.server.answers(self.command, self.path, self.headers.get("Host", "")):
            case Reply(code=code, body=body, content_type=content_type):
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            case Silence():
                client_is_gone = select.poll()
                client_is_gone.register(self.connection, select.POLLIN)
                client_is_gone.poll()
                self.close_connection = True
            case Hangup():
                self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Says nothing: it is asked many times a minute."""


def _listen(path: str, answers: Answers) -> Result[_Server, str]:
    """Returns a server that listens; it takes the place of a socket that nobody listens on any more, and of nothing else."""
    tried = f"listening on {path}"
    if is_reachable(path):
        return Failure(f"{tried}: somebody listens there already; give another --socket")
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except OSError:
        pass  # there is nothing, or bind says what is wrong
    try:
        return Success(_Server(path, answers))
    except OSError as error:
        return Failure(f"{tried}: {error.strerror or error}; give a --socket that can be made")
