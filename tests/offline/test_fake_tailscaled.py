"""The responses of the fake tailscaled, and its server as the jobs use it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from returns.result import Failure

from support.processes import ended, error_lines, interrupt, run, series, started, wait_until
from support.statuses import encoded, peer, status
from tsfc.core import native_metrics as native
from tsfc.core.evaluation.observation import Observation
from tsfc.core.faults import Down
from tsfc.core.tailscale.ping import PingOutcome, parse_response
from tsfc.offline.capture.read import in_order
from tsfc.offline.fake_tailscaled.frames import Frame, frame_at, frames
from tsfc.offline.fake_tailscaled.responses import (
    Disconnect,
    NoResponse,
    Response,
    respond,
    respond_in_world,
    usermetrics,
)
from tsfc.offline.simulation import scenario
from tsfc.offline.simulation.world import World
from tsfc.shell import waiting
from tsfc.shell.tailscaled import localapi

FIXTURES = Path(__file__).parent.parent / "fixtures"
HOST = "local-tailscaled.sock"
PREFIX = "/localapi/v0/"


def _observation(at: float, *peers: dict[str, Any], **fields: Any) -> Observation:
    return Observation(captured_at=at, status=Raw(encoded(*peers, **fields)))


def _fault(at: float) -> Observation:
    return Observation(captured_at=at, fault="connection refused")


def _frame(*peers: dict[str, Any], **fields: Any) -> Frame:
    return frames((_observation(0, *peers, **fields),))[0]


def _response(frame: Frame, method: str, target: str) -> Response:
    response = respond(frame, method, PREFIX + target, HOST)
    assert isinstance(response, Response)
    return response


# Frames


def test_frames_count_from_the_first_observation_and_hold_its_very_bytes() -> None:
    observations = (_observation(1000.5, peer("a")), _fault(1010.5), _observation(1020))
    played = frames(observations)
    assert [frame.at for frame in played] == [0, 10, 19.5]
    assert [frame.document for frame in played] == [
        bytes(observations[0].status),
        b"",
        bytes(observations[2].status),
    ]
    assert [frame.status is None for frame in played] == [False, True, False]


@pytest.mark.parametrize(
    ("seconds", "loop", "at"),
    [
        (0, False, 0),
        (9.9, False, 0),
        (10, False, 10),
        (29.9, False, 20),
        (30, False, 30),
        (1e9, False, 30),
        (29.9, True, 20),
        (30, True, 0),
        (41, True, 10),
        (300, True, 0),
    ],
)
def test_the_last_frame_stays_or_the_capture_starts_again(
    seconds: float,
    loop: bool,  # noqa: FBT001 - a column of the table
    at: float,
) -> None:
    played = frames([_observation(5 + n * 10) for n in range(4)])
    assert frame_at(played, seconds, loop=loop).at == at


@pytest.mark.parametrize("loop", [False, True])
def test_a_single_frame_is_always_played(loop: bool) -> None:  # noqa: FBT001 - a column of the table
    played = frames([_observation(5)])
    assert frame_at(played, 1e6, loop=loop) is played[0]


# Responses


def test_the_status_has_the_bytes_of_the_capture() -> None:
    assert _response(_frame(peer("a")), "GET", "status") == Response(200, encoded(peer("a")))


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        ("POST", "debug?action=rebind", 403),
        ("POST", "debug?action=restun", 403),
        ("GET", "debug", 403),
        ("GET", "nothing", 404),
        ("POST", "status", 404),
        ("GET", "", 404),
        ("GET", "ping?ip=100.64.0.9&type=disco", 400),
        ("POST", "ping", 400),
        ("POST", "ping?ip=100.64.0.9", 400),
        ("POST", "ping?type=disco", 400),
    ],
)
def test_unknown_requests_get_the_errors_of_tailscaled(method: str, target: str, code: int) -> None:
    assert _response(_frame(peer("a")), method, target).code == code


@pytest.mark.parametrize(
    ("host", "code"), [(HOST, 200), ("", 200), ("localhost", 403), ("example.com", 403)]
)
def test_requests_with_the_host_of_a_web_page_are_refused(host: str, code: int) -> None:
    response = respond(_frame(), "GET", f"{PREFIX}status", host)
    assert isinstance(response, Response)
    assert response.code == code


def test_a_fault_disconnects_every_client() -> None:
    (frame,) = frames([_fault(0)])
    for method, target in (
        ("GET", "status"),
        ("GET", "usermetrics"),
        ("POST", "ping?ip=1.2.3.4&type=disco"),
        ("GET", "nothing"),
    ):
        assert respond(frame, method, PREFIX + target, HOST) == Disconnect()


@pytest.mark.parametrize(
    ("path", "outcome", "latency"),
    [
        ("direct", PingOutcome.DIRECT, 0.012),
        ("peer_relay", PingOutcome.PEER_RELAY, 0.025),
        ("derp", PingOutcome.DERP, 0.048),
        ("idle", PingOutcome.DERP, 0.048),
    ],
)
def test_a_pong_takes_the_path_of_the_status(
    path: str, outcome: PingOutcome, latency: float
) -> None:
    response = _response(
        _frame(peer("a", path, TailscaleIPs=["100.64.0.9"])),
        "POST",
        "ping?ip=100.64.0.9&type=disco",
    )
    assert response.code == 200
    result = parse_response(response.body).unwrap()
    assert (result.outcome, result.latency_seconds) == (outcome, latency)
    assert json.loads(response.body)["NodeName"] == "a"


@pytest.mark.parametrize(
    "one", [peer("a", "offline"), peer("a", "derp", Relay="")], ids=["offline", "without a home"]
)
def test_an_unreachable_peer_sends_no_pong(one: dict[str, Any]) -> None:
    one |= {"TailscaleIPs": ["100.64.0.9"]}
    assert (
        respond(_frame(one), "POST", f"{PREFIX}ping?ip=100.64.0.9&type=disco", HOST) == NoResponse()
    )


def test_on_a_simulated_dead_data_plane_only_disco_pings_are_answered() -> None:
    peers = '[[peers]]\nname = "nas"\nnat = "public"\n'
    events = '[[events]]\nkind = "dead-data"\nat = 10\n'
    text = f'summary = "x"\nlasts = "1d"\n{peers}{events}'
    world = World(scenario.read(text.encode(), "test").unwrap(), seed=0)

    def reactions(at: float) -> list[type]:
        world.advance(at)
        pings = [f"{PREFIX}ping?ip=100.64.0.2&type={kind}" for kind in ("disco", "TSMP")]
        return [type(respond_in_world(world, "POST", target, HOST)) for target in pings]

    assert reactions(5) == [Response, Response]
    assert reactions(15) == [Response, NoResponse]


@pytest.mark.parametrize(
    ("ip", "fields", "says"),
    [
        ("100.64.0.1", {}, "100.64.0.1 is local Tailscale IP"),
        ("100.64.7.7", {}, "no matching peer"),
        ("100.64.0.9", {"BackendState": "Stopped"}, "local tailscaled stopped"),
        ("100.64.0.8", {}, "peer's node key has expired"),
    ],
)
def test_a_ping_that_cannot_be_sent_is_an_error_with_status_200(
    ip: str, fields: dict[str, Any], says: str
) -> None:
    frame = _frame(
        peer("a", TailscaleIPs=["100.64.0.9"]),
        peer("b", TailscaleIPs=["100.64.0.8"], Expired=True),
        **fields,
    )
    response = _response(frame, "POST", f"ping?ip={ip}&type=disco")
    assert (response.code, json.loads(response.body)["Err"]) == (200, says)
    assert isinstance(parse_response(response.body), Failure)


# Metrics


def _bytes(frame: Frame) -> dict[str, float]:
    assert frame.status
    return {
        name: value
        for name, value in series(usermetrics(frame, frame.status)).items()
        if "bytes_total" in name
    }


def test_usermetrics_are_a_valid_exposition_that_agrees_with_the_status() -> None:
    frame = _frame(
        peer("a", RxBytes=5, TxBytes=7), peer("b", "derp", RxBytes=11), Health=["x", "y"]
    )
    text = _response(frame, "GET", "usermetrics").body.decode()
    assert native.validated(text.encode()).unwrap() == text
    values = series(text)
    assert values['tailscaled_health_messages{type="warning"}'] == 2
    assert values['tailscaled_inbound_bytes_total{path="direct_ipv4"}'] == 5
    assert values['tailscaled_outbound_bytes_total{path="direct_ipv4"}'] == 7
    assert values['tailscaled_inbound_bytes_total{path="derp"}'] == 11


def test_usermetrics_never_go_down() -> None:
    """Counters do not go down if a peer resets, vanishes or changes its path."""
    observations = [
        _observation(0, peer("a", RxBytes=100), peer("b", "derp", RxBytes=50)),
        _observation(10, peer("a", "derp", RxBytes=130), peer("b", "derp", RxBytes=3)),
        _fault(20),
        _observation(30),
        _observation(40, peer("a", RxBytes=131)),
    ]
    played = [frame for frame in frames(observations) if frame.status is not None]
    inbound = [
        [
            values[f'tailscaled_inbound_bytes_total{{path="{path}"}}']
            for path in ("direct_ipv4", "derp")
        ]
        for values in map(_bytes, played)
    ]
    assert inbound[0] == [100, 50]
    assert inbound[1] == [100, 83]
    for earlier, later in pairwise(map(_bytes, played)):
        assert all(later[name] >= value for name, value in earlier.items())


def test_usermetrics_of_the_recorded_capture_never_go_down() -> None:
    played = frames(in_order(str(FIXTURES / "timeline.ndjson"), print).unwrap())
    for earlier, later in pairwise(map(_bytes, played)):
        assert all(later[name] >= value for name, value in earlier.items())


# The server


@contextmanager
def _playing(
    path: Path, *lines: dict[str, Any], options: tuple[str, ...] = ()
) -> Generator[subprocess.Popen[bytes]]:
    """Play observations on a socket while the block runs."""
    file = path.with_name("capture.ndjson")
    file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    with started("stand-in", "--capture", str(file), "--socket", str(path), *options) as process:
        wait_until(lambda: localapi.is_reachable(str(path)), "the server listens")
        yield process


def _observed(at: float, *peers: dict[str, Any]) -> dict[str, Any]:
    return {"captured_at": at, "status": status(*peers)}


def _names(path: Path) -> set[str]:
    raw = waiting.run(
        localapi.call(localapi.Connections(str(path)), "GET", f"{PREFIX}status", timeout=10)
    ).unwrap()
    return {peer["HostName"] for peer in json.loads(raw)["Peer"].values()}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_prints_what_it_plays_and_stops_cleanly_on_a_signal(
    box: Path, number: signal.Signals
) -> None:
    path = box / "s"
    with _playing(
        path, _observed(100, peer("a")), _observed(160), options=("--speed", "2.5")
    ) as process:
        assert stat.S_ISSOCK(path.stat().st_mode)
        interrupt(process, number)
        said = f"playing {box}/capture.ndjson on {path}: 2 observations, 60 s, 2.5 times as fast\n"
        assert ended(process) == (0, said, "")
    assert not path.exists()


@pytest.mark.parametrize("content", ["--capture", "--scenario"])
def test_what_the_server_prints_is_one_printable_line(box: Path, content: str) -> None:
    """An escape sequence in a name must not reach the terminal."""
    path, file = box / "s\x1b[2J", box / "a\nb\x1b[31m"
    file.write_text(
        json.dumps(_observed(0))
        if content == "--capture"
        else 'summary = "x"\nlasts = "1d"\n[[peers]]\nname = "a"\n'
    )
    with started("stand-in", content, str(file), "--socket", str(path)) as process:
        wait_until(lambda: localapi.is_reachable(str(path)), "the server listens")
        interrupt(process, signal.SIGTERM)
        _, said, _ = ended(process)
    assert said.startswith(f"playing {box}/a\ufffdb\ufffd[31m on {box}/s\ufffd[2J")
    assert said.removesuffix("\n").isprintable()


def test_speed_scales_time_and_the_last_observation_stays(box: Path) -> None:
    with _playing(
        box / "s",
        _observed(0, peer("first")),
        _observed(1000, peer("last")),
        options=("--speed", "10000"),
    ):
        wait_until(lambda: _names(box / "s") == {"last"}, "the last observation is played")
    with _playing(
        box / "s",
        _observed(0, peer("first")),
        _observed(1000, peer("last")),
        options=("--speed", "0.001"),
    ):
        assert _names(box / "s") == {"first"}


def test_a_loop_starts_again_after_the_last_observation(box: Path) -> None:
    lines = [_observed(0, peer("first")), _observed(1, peer("second")), _observed(2)]
    with _playing(box / "s", *lines, options=("--loop", "--speed", "5")):
        for _ in range(2):
            wait_until(lambda: _names(box / "s") == {"second"}, "the second observation is played")
            wait_until(lambda: _names(box / "s") == {"first"}, "the first one is played again")


def test_every_job_reports_a_fault_as_a_stopped_daemon(box: Path) -> None:
    with _playing(box / "s", {"captured_at": 0, "fault": "it was restarting"}):
        for job, options in {
            "exporter": [],
            "native-metrics": [],
            "keepalive": [],
            "watchdog": ["--state-dir", str(box / "state"), "--unit=tailscaled.service"],
        }.items():
            ran = run(
                job,
                "--socket",
                str(box / "s"),
                "--source",
                "localapi",
                "--metrics-path",
                str(box / f"{job}.prom"),
                *options,
            )
            (complaint,) = error_lines(job, ran)
            assert "the connection was closed without a response" in complaint
            assert ran.status == 0


def test_the_client_reports_the_text_of_an_error(box: Path) -> None:
    with _playing(box / "s", _observed(0, peer("a"))):
        for method, target, says in (
            ("POST", "debug?action=rebind", "403 Forbidden: debug access denied"),
            ("GET", "x", "404 Not Found: 404 page not found"),
        ):
            assert (
                says
                in waiting.run(
                    localapi.call(
                        localapi.Connections(str(box / "s")), method, PREFIX + target, timeout=10
                    )
                )
                .failure()
                .detail
            )


def test_a_ping_without_a_pong_waits_until_the_client_gives_up(box: Path) -> None:
    with _playing(box / "s", _observed(0, peer("a", "offline", TailscaleIPs=["100.64.0.9"]))):
        for _ in range(3):
            fault = waiting.run(
                localapi.call(
                    localapi.Connections(str(box / "s")),
                    "POST",
                    f"{PREFIX}ping?ip=100.64.0.9&type=disco",
                    timeout=0.1,
                )
            ).failure()
            assert isinstance(fault, Down)
            assert "no complete response within 0.1 s" in fault.detail
        assert _names(box / "s") == {"a"}


def test_malformed_requests_do_not_affect_other_clients(box: Path) -> None:
    """The server prints nothing for them, and responds to the next client."""
    with _playing(box / "s", _observed(0, peer("a"))) as process:
        for data in (
            b"",
            b"\x00\xff\r\n\r\n",
            b"GET\r\n\r\n",
            b"BREW /pot HTTP/1.1\r\n\r\n",
            b"GET /localapi/v0/status HTTP/1.1\r\nHost: evil\r\n\r\n",
        ):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(box / "s"))
                client.sendall(data)
        assert _names(box / "s") == {"a"}
        interrupt(process, signal.SIGTERM)
        assert ended(process).stderr == ""


@pytest.mark.parametrize(
    "content", [b"", b"[]\n", b'{"captured_at": 1, "status": {}}\n', b"\xff\n"]
)
def test_an_unreadable_capture_is_an_error_of_one_line(box: Path, content: bytes) -> None:
    (box / "c").write_bytes(content)
    ran = run("stand-in", "--capture", str(box / "c"), "--socket", str(box / "s"))
    (complaint,) = error_lines("stand-in", ran)
    assert complaint.startswith(f"reading {box}/c: ")
    assert (ran.status, ran.stdout, (box / "s").exists()) == (1, "", False)


def test_a_socket_in_use_is_not_replaced(box: Path) -> None:
    with _playing(box / "s", _observed(0, peer("mine"))):
        ran = run("stand-in", "--capture", str(box / "capture.ndjson"), "--socket", str(box / "s"))
        assert error_lines("stand-in", ran) == [
            f"listening on {box}/s: another process listens there; give another --socket"
        ]
        assert ran.status == 1
        assert _names(box / "s") == {"mine"}


def test_a_stale_socket_is_replaced(box: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(box / "s"))
    with _playing(box / "s", _observed(0, peer("a"))):
        assert _names(box / "s") == {"a"}


@pytest.mark.parametrize(
    "kind",
    [
        "a file",
        "a directory",
        "a pipe",
        "a link to a file",
        "a directory that is not there",
        "a path too long",
    ],
)
def test_other_files_are_not_replaced_by_the_socket(box: Path, kind: str) -> None:
    path = box / "s"
    match kind:
        case "a file":
            path.write_text("mine")
        case "a directory":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a link to a file":
            (box / "target").write_text("mine")
            path.symlink_to("target")
        case "a directory that is not there":
            path = box / "nowhere" / "s"
        case _:
            path = box / ("x" * 150)
    before = [(entry.name, entry.lstat().st_mode) for entry in sorted(box.iterdir())]
    ran = run("stand-in", "--capture", str(FIXTURES / "timeline.ndjson"), "--socket", str(path))
    (complaint,) = error_lines("stand-in", ran)
    assert complaint.startswith(f"listening on {path}: ")
    assert complaint.endswith("; give another --socket, in a directory that you may write to")
    assert ran.status == 1
    assert [(entry.name, entry.lstat().st_mode) for entry in sorted(box.iterdir())] == before
