"""The responses of a fake tailscaled.

It responds to `status`, `usermetrics` and `ping` as a tailscaled with that status does,
and refuses `debug` as tailscaled does for an unprivileged user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import msgspec
from msgspec import Raw, Struct

from tsfc.core.evaluation.observation import Observation
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.families import Family, Kind, Sample, gauge
from tsfc.core.tailscale.ping import PingKind, PingOutcome
from tsfc.core.tailscale.status import PeerStatus, Status, is_running
from tsfc.offline.fake_tailscaled.frames import PATH_LABELS, Frame, frames
from tsfc.offline.simulation.world import LATENCY_SECONDS, World

HOST = "local-tailscaled.sock"
"The only `Host` of a request that tailscaled accepts, except for an empty one."
PREFIX = "/localapi/v0/"


class Response(Struct, frozen=True):
    """An HTTP response."""

    code: int
    body: bytes
    content_type: str = "application/json"


class NoResponse(Struct, frozen=True):
    """No response until the client gives up, as to a ping without a pong."""


class Disconnect(Struct, frozen=True):
    """The connection is closed without a response."""


Reaction = Response | NoResponse | Disconnect
"What the server does with a request."


def respond(frame: Frame, method: str, target: str, host: str) -> Reaction:
    """Return the reaction of a tailscaled with the status of a frame."""
    if frame.status is None:
        return Disconnect()
    if host not in {HOST, ""}:
        return _error(403, "invalid localapi request")
    url = urlsplit(target)
    query = _query(url.query)
    match method, url.path.removeprefix(PREFIX):
        case "GET", "status":
            return Response(200, frame.document)
        case "GET", "usermetrics":
            text = usermetrics(frame, frame.status)
            return Response(200, text.encode(), "text/plain;version=0.0.4;charset=utf-8")
        case "POST", "ping":
            return _ping(frame, frame.status, query.get("ip", ""), query.get("type", ""))
        case _, "ping":
            return _error(400, "want POST")
        case _, "debug":
            return _error(403, "debug access denied")
        case _:
            return _error(404, "404 page not found")


def respond_in_world(world: World, method: str, target: str, host: str) -> Reaction:
    """Return the reaction of the simulated tailscaled. A ping has its effect there."""
    url = urlsplit(target)
    if (method, url.path) != ("POST", PREFIX + "ping"):
        return respond(_frame_of(world), method, target, host)
    query = _query(url.query)
    ip, is_tsmp = query.get("ip", ""), query.get("type") == PingKind.TSMP
    result = world.ping(ip, PingKind.TSMP if is_tsmp else PingKind.DISCO)
    frame = _frame_of(world)
    if result.latency_seconds is None and ip in frame.peers:
        return NoResponse()
    return respond(frame, method, target, host)


def _query(text: str) -> dict[str, str]:
    """Return the first value of each parameter."""
    return {name: values[0] for name, values in parse_qs(text).items()}


def _frame_of(world: World) -> Frame:
    status = world.observe()
    observation = (
        Observation(world.now, fault=status)
        if isinstance(status, str)
        else Observation(world.now, status=Raw(status))
    )
    (frame,) = frames((observation,))
    return frame


def usermetrics(frame: Frame, status: Status) -> str:
    """Return the metrics of tailscaled that agree with a frame.

    They are health messages, and bytes by path since the beginning of the capture.
    """

    def by_path(name: str, text: str, counted: Counter[str]) -> Family:
        samples = tuple(Sample({"path": path}, counted[path]) for path in PATH_LABELS.values())
        return Family(name, Kind.COUNTER, text, samples)

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


def _ping(frame: Frame, status: Status, ip: str, kind: str) -> Reaction:
    peer = frame.peers.get(ip, PeerStatus())
    is_local = ip in (status.self_.tailscale_ips or ())
    table: tuple[tuple[bool, Callable[[], Reaction]], ...] = (
        (not ip, lambda: _error(400, "missing 'ip' parameter")),
        (not kind, lambda: _error(400, "missing 'type' parameter")),
        (not is_running(status), lambda: _ping_error(ip, "local tailscaled stopped")),
        (is_local, lambda: _ping_error(ip, f"{ip} is local Tailscale IP", IsLocalIP=True)),
        (ip not in frame.peers, lambda: _ping_error(ip, "no matching peer")),
        (peer.expired, lambda: _ping_error(ip, "peer's node key has expired")),
        (not peer.online, NoResponse),
        (bool(peer.cur_addr), lambda: _pong(ip, peer, PingOutcome.DIRECT, Endpoint=peer.cur_addr)),
        (
            bool(peer.peer_relay),
            lambda: _pong(ip, peer, PingOutcome.PEER_RELAY, PeerRelay=peer.peer_relay),
        ),
        (
            bool(peer.relay),
            lambda: _pong(ip, peer, PingOutcome.DERP, DERPRegionID=1, DERPRegionCode=peer.relay),
        ),
    )
    return next((reaction() for applies, reaction in table if applies), NoResponse())


def _pong(ip: str, peer: PeerStatus, outcome: PingOutcome, **path: object) -> Response:
    name = peer.dns_name.partition(".")[0] or peer.host_name
    return _ping_result(ip, {"NodeName": name, "LatencySeconds": LATENCY_SECONDS[outcome]} | path)


def _ping_error(ip: str, text: str, **fields: object) -> Response:
    return _ping_result(ip, {"Err": text} | fields)


def _ping_result(ip: str, fields: dict[str, object]) -> Response:
    """Return an `ipnstate.PingResult`. Errors are one, too, with status 200."""
    empty = {
        "NodeName": "",
        "Err": "",
        "LatencySeconds": 0,
        "Endpoint": "",
        "PeerRelay": "",
        "DERPRegionID": 0,
        "DERPRegionCode": "",
    }
    return Response(200, msgspec.json.encode({"IP": ip, "NodeIP": ip} | empty | fields))


def _error(code: int, text: str) -> Response:
    return Response(code, text.encode() + b"\n", "text/plain; charset=utf-8")
