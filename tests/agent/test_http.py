"""The HTTP server of the agent, and its pages."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from returns.result import Failure

from support.processes import DEADLINE_SECONDS, ended, run, series, started, wait_until
from support.servers import DIRECT_PONG, Request, Response, serving, tailscaled
from support.servers import http as http_response
from support.statuses import encoded, peer
from tsfc.agent import live
from tsfc.agent.http import ACCEPT_RETRY_SECONDS, CONNECTION_LIMIT, Server, listen, text
from tsfc.agent.loop import Loop
from tsfc.core.agent import history
from tsfc.shell.clocks import unix_time
from tsfc.shell.tailscaled.localapi import is_reachable

STATUS = encoded(peer("nas"), peer("pi", "derp"))
USERMETRICS = b"# TYPE tailscaled_approved_routes gauge\ntailscaled_approved_routes 1\n"
PROMETHEUS_ACCEPTS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
"As Prometheus 2.42 sends it (scrape/scrape.go)."
RESPOND = tailscaled(STATUS, lambda _: DIRECT_PONG, USERMETRICS)


class Client(http.client.HTTPConnection):
    """A client of the Unix socket at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE_SECONDS)
        self.sock.connect(str(self._path))

    def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, content type and body of a response."""
        self.request(method, path)
        response = self.getresponse()
        body = response.read().decode()
        return response.status, response.headers["Content-Type"], body


@contextmanager
def _agent(box: Path, *arguments: str) -> Generator[Client]:
    (box / "metrics").mkdir()
    options = (
        f"--socket={box}/s",
        f"--metrics-dir={box}/metrics",
        f"--state-dir={box}/state",
        f"--listen={box}/http",
        "--watchdog-args=--unit=tailscaled.service",
        *arguments,
    )
    with started("agent", *options) as process:
        wait_until(lambda: is_reachable(f"{box}/http"), "it listens")
        client = Client(box / "http")
        yield client
        client.close()
        process.send_signal(signal.SIGTERM)
        assert ended(process).status == 0


def test_metrics_are_those_of_all_jobs(box: Path) -> None:
    with serving(box / "s", RESPOND), _agent(box) as client:
        wait_until(lambda: "tailscale_keepalive_peers" in client.get("/metrics")[2], "it has run")
        wait_until(lambda: "tailscale_watchdog_peers" in client.get("/metrics")[2], "it has run")
        # Prometheus prefers OpenMetrics, but accepts its own format, too.
        client.request("GET", "/metrics?x=y", headers={"Accept": PROMETHEUS_ACCEPTS})
        response = client.getresponse()
        status, content_type = response.status, response.headers["Content-Type"]
        body = response.read().decode()
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = series(body)
    assert found["tailscale_up"] == 1
    assert found["tailscaled_approved_routes"] == 1
    assert found['tailscale_keepalive_peers{result="direct"}'] == 2
    assert 'tailscale_agent_runs_total{command="keepalive"}' in found


def test_health_is_that_of_the_last_runs(box: Path) -> None:
    with (
        serving(box / "s", lambda _: None),
        _agent(box, "--jobs=exporter,watchdog", "--timeout=60") as client,
    ):
        status, _, body = client.get("/healthz")
        assert (status, body) == (
            503,
            "exporter: no run has ended yet\nwatchdog: no run has ended yet\n",
        )


def test_health_is_ok_when_each_job_has_run(box: Path) -> None:
    with serving(box / "s", RESPOND), _agent(box) as client:
        wait_until(lambda: client.get("/healthz")[::2] == (200, "ok\n"), "all jobs have run")


def test_the_peers_are_those_of_tsfc_peers(box: Path) -> None:
    with serving(box / "s", RESPOND), _agent(box) as client:
        wait_until((box / "metrics/tailscale-watchdog.json").exists, "the watchdog has run")
        status, content_type, body = client.get("/api/peers")
        watchdog = f"--watchdog-metrics={box}/metrics/tailscale-watchdog.prom"
        printed = run("peers", "--format=json", f"--socket={box}/s", watchdog).stdout
    assert (status, content_type) == (200, "application/json")
    assert _timeless(body) == _timeless(printed)
    assert [row["verdict"] for row in json.loads(body)["peers"]] == ["waiting", "direct"]


def _timeless(text: str) -> object:
    """A document without its numbers and durations, many of which change each second."""
    return json.loads(re.sub(r"[0-9]+([dhms] [0-9]+[dhms]|[dhms])?", "0", text))


def test_without_tailscaled_the_peers_are_unknown(box: Path) -> None:
    with _agent(box) as client:
        wait_until(lambda: "No such file" in client.get("/api/peers")[2], "it has looked")
        assert client.get("/api/peers")[0] == 503


def _history(client: Client) -> dict[str, Any]:
    status, content_type, body = client.get("/api/history")
    assert (status, content_type) == (200, "application/json")
    found: dict[str, Any] = json.loads(body)
    return found


def _last(history: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    """The last path and reason of each peer."""
    return {
        lane["name"]: (
            history["paths"][lane["values"][-1] // history["shift"]],
            history["reasons"][lane["values"][-1] % history["shift"]],
        )
        for lane in history["peers"]
    }


def test_the_history_has_paths_and_verdicts(box: Path) -> None:
    with serving(box / "s", RESPOND), _agent(box) as client:
        wait_until((box / "metrics/tailscale-watchdog.json").exists, "the watchdog has run")
        history = _history(client)
    assert _last(history) == {"pi": ("derp", "detected"), "nas": ("direct", "direct")}
    assert [lane["name"] for lane in history["peers"]] == ["pi", "nas"]
    assert history["counters"] == [[history["to"], 0, 0, 0, 0]]


def test_the_history_knows_that_tailscaled_is_gone(box: Path) -> None:
    with _agent(box) as client:
        wait_until(lambda: len(_history(client)["texts"]) > 1, "it has looked")
        history = _history(client)
    assert "No such file" in history["texts"][1]
    assert history["peers"] == []


def _quiet_seconds(client: Client) -> int:
    client.request("GET", "/api/history")
    response = client.getresponse()
    response.read()
    return int(response.headers["Retry-After"])


def test_the_history_says_for_how_long_it_stays_the_same(box: Path) -> None:
    """Until the next job starts. While one runs, its result may come at any moment."""
    with (
        serving(box / "s", RESPOND),
        _agent(box, "--jobs=exporter", "--exporter-interval=20s") as client,
    ):
        wait_until(lambda: _quiet_seconds(client) > 0, "it has run")
        assert 10 < _quiet_seconds(client) <= 20


def test_nothing_is_quiet_while_a_job_runs(box: Path) -> None:
    with (
        serving(box / "s", lambda _: None) as requests,
        _agent(box, "--jobs=exporter", "--timeout=60") as client,
    ):
        wait_until(lambda: requests, "it asks")
        assert _quiet_seconds(client) == 0


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        pytest.param((), 90, id="default"),
        pytest.param(
            ("--jobs=exporter,watchdog", "--exporter-interval=5min", "--watchdog-interval=9min"),
            900,
            id="shortest-interval-of-a-job-that-looks",
        ),
    ],
)
def test_a_look_holds_for_three_intervals(
    box: Path, options: tuple[str, ...], seconds: int
) -> None:
    with serving(box / "s", RESPOND), _agent(box, *options) as client:
        wait_until(lambda: client.get("/api/table")[0] == 200, "it has looked")
        assert json.loads(client.get("/api/table")[2])["look_seconds"] == seconds


def test_a_path_that_is_not_text_is_shown(box: Path) -> None:
    """And systemd gets a line about it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"{box}/notify")
        receiver.settimeout(DEADLINE_SECONDS)
        odd = os.fsdecode(b"/nonexistent/\xff\n\x1b")
        (box / "metrics").mkdir()
        with started(
            *("agent", "--jobs=exporter", f"--socket={odd}", f"--metrics-dir={box}/metrics"),
            f"--listen={box}/http",
            around=f'NOTIFY_SOCKET={box}/notify exec "$@"',
        ) as process:
            assert receiver.recv(1000) == b"READY=1"
            told = receiver.recv(1000).decode()
            client = Client(box / "http")
            status, _, body = client.get("/api/peers")
            assert len(_history(client)["texts"]) == 2
            assert client.get("/")[0] == 200
            client.close()
            process.send_signal(signal.SIGTERM)
            assert ended(process).status == 0
    assert status == 503
    for line in (told, body.rstrip("\n")):
        assert "/nonexistent/" in line
        assert line.isprintable()


def test_without_clients_there_is_no_history() -> None:
    """It would cost memory and imports."""
    costly = {live.__name__, history.__name__}
    code = (
        "import sys; from tsfc.agent.agent import Agent; from tsfc.shell.system import System;"
        "from tsfc.shell.tailscaled.observe import RunOptions;"
        "agent = Agent([], System('agent', RunOptions()));"
        f"print(agent.live, *{costly}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_other_paths_and_methods_do_not_exist(box: Path) -> None:
    with serving(box / "s", RESPOND), _agent(box) as client:
        assert client.get("/etc/passwd")[0] == 404
        assert client.get("/../../etc/passwd")[0] == 404
        assert client.get("/metrics", "POST")[0] == 405
        assert client.get("/metrics", "HEAD")[::2] == (200, "")
        assert client.get("/healthz")[0] in {200, 503}


def _raw(box: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE_SECONDS)
        connection.connect(f"{box}/http")
        connection.sendall(data)
        received = b""
        while piece := connection.recv(2**16):
            received += piece
        return received


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4000 + b"\r\n",
        b"GET /" + b"x" * 20_000,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(box: Path, data: bytes) -> None:
    with serving(box / "s", RESPOND), _agent(box) as client:
        assert _raw(box, data).startswith(b"HTTP/1.1 400 ")
        assert client.get("/healthz")[0] in {200, 503}


def test_only_so_many_clients_are_served_at_a_time(box: Path) -> None:
    with serving(box / "s", RESPOND), _agent(box) as client, ExitStack() as stack:
        for _ in range(CONNECTION_LIMIT):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.connect(f"{box}/http")
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            client.get("/healthz")
        client.close()
        # Silent ones are cut off after five seconds.
        wait_until(lambda: _is_served(box), "there is room again")


def _is_served(box: Path) -> bool:
    client = Client(box / "http")
    try:
        return client.get("/healthz")[0] in {200, 503}
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_page_of_another_site_is_refused(box: Path) -> None:
    """Its name can lead here (DNS rebinding), but it stays in the header Host."""
    port = _free_port()
    status = encoded(
        peer("nas"), Self={"DNSName": "me.tail.ts.net.", "TailscaleIPs": ["100.64.0.9", "fd7a::9"]}
    )
    with (
        serving(box / "s", lambda _: http_response(status)),
        started(
            "agent",
            "--jobs=exporter",
            f"--socket={box}/s",
            f"--metrics-dir={box}",
            f"--listen=127.0.0.1:{port}",
        ),
    ):
        wait_until((box / "tailscale-peers.prom").exists, "it has looked")

        def status_for(host: str) -> int:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_SECONDS)
            client.request("GET", "/metrics", headers={"Host": host})
            found = client.getresponse().status
            client.close()
            return found

        for host in ("localhost", f"127.0.0.1:{port}", "[::1]", "100.64.0.9", "[fd7a::9]:9199"):
            assert status_for(host) == 200, host
        for host in ("me", "me.tail.ts.net", "ME.tail.ts.net:80"):
            assert status_for(host) == 200, host
        for host in (
            "evil.example",
            "localhost.evil.example",
            "",
            "100.64.0.8",
            "me.tail.ts.net.x",
        ):
            assert status_for(host) == 403, host


def test_after_a_restart_the_peers_are_back_as_soon_as_tailscaled_answers(box: Path) -> None:
    """The next run of a job is a minute away."""
    asked = 0

    def respond(request: Request) -> Response:
        nonlocal asked
        asked += request.target.endswith("/status")
        # Before and after the restart, and not at once after it.
        return b"" if asked == 3 else RESPOND(request)

    watchdog = ("--unit=x.service", "--max-relay-seconds=0", f"--restart-socket={box}/restart")
    with (
        serving(box / "s", respond),
        socket.socket(socket.AF_UNIX) as helper,
    ):
        detected = run(
            *("watchdog", f"--socket={box}/s", f"--state-dir={box}/state", *watchdog),
            *(f"--now={int(unix_time(None)) - 60}", f"--metrics-path={box}/w.prom"),
        )
        assert detected.status == 0
        helper.bind(f"{box}/restart")
        helper.listen()
        helper.settimeout(DEADLINE_SECONDS)
        with _agent(box, "--jobs=watchdog", f"--watchdog-args={shlex.join(watchdog)}") as client:
            connection, _ = helper.accept()
            # While it is restarted, the last look is shown.
            assert client.get("/api/peers")[0] == 200
            with connection:
                connection.sendall(b"done\n")
            wait_until(lambda: client.get("/api/peers")[0] == 503, "the first look fails")
            wait_until(lambda: client.get("/api/peers")[0] == 200, "the next look succeeds")
            assert asked == 4


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("0.0.0.0:9199", "add --listen-anywhere"),
        ("192.168.1.5:9199", "add --listen-anywhere"),
        ("[::]:9199", "add --listen-anywhere"),
        ("localhost:9199", "give IP:PORT"),
        ("127.0.0.1", "give IP:PORT"),
        ("127.0.0.1:0", "give IP:PORT"),
        ("127.0.0.1:65536", "give IP:PORT"),
        ("127.0.0.1:x", "give IP:PORT"),
        ("/nonexistent/directory/s", "No such file or directory"),
        ("", "give IP:PORT"),
        (f"/{'x' * 200}", "AF_UNIX path too long; give a path"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_one_line(address: str, problem: str) -> None:
    found = listen(address, anywhere=False)
    assert isinstance(found, Failure)
    assert problem in found.failure()
    done = run("agent", f"--listen={address}")
    assert (done.status, done.stdout) == (1, "")
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("instance", "unit"),
    [([], "tailscale-agent.socket"), (["--instance=work"], "tailscale-agent-work.socket")],
)
def test_without_a_socket_of_systemd_the_jobs_run_without_http(
    box: Path, instance: list[str], unit: str
) -> None:
    options = ["--jobs=exporter", f"--socket={box}/s", f"--metrics-dir={box}", *instance]
    with (
        serving(box / "s", RESPOND),
        started("agent", *options, "--listen=systemd") as process,
    ):
        wait_until((box / "tailscale-peers.prom").exists, "the exporter has run")
        process.send_signal(signal.SIGTERM)
        done = ended(process)
    assert (done.status, done.stderr) == (
        0,
        (
            "tsfc agent: listening on systemd: systemd passed 0 sockets, not 1; see "
            f"`systemctl status {unit}`, then restart the agent. The jobs run without HTTP\n"
        ),
    )


def test_any_address_is_possible_with_the_option() -> None:
    listen(f"0.0.0.0:{_free_port()}", anywhere=True).unwrap().close()


def test_a_port_in_use_is_one_line() -> None:
    with listen(f"127.0.0.1:{_free_port()}", anywhere=False).unwrap() as first:
        port = first.getsockname()[1]
        assert "Address already in use" in listen(f"127.0.0.1:{port}", anywhere=False).failure()


def test_the_socket_of_an_earlier_agent_is_replaced_but_no_file(box: Path) -> None:
    for _ in range(2):
        listen(f"{box}/http", anywhere=False).unwrap().close()
    (box / "file").write_text("content")
    assert "Address already in use" in listen(f"{box}/file", anywhere=False).failure()
    assert (box / "file").read_text() == "content"


PASSED = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "tsfc", *sys.argv[2:]])
"""


def test_the_socket_of_systemd_is_used(box: Path) -> None:
    options = ["agent", "--jobs=exporter", f"--socket={box}/s", f"--metrics-dir={box}"]
    with (
        serving(box / "s", RESPOND),
        subprocess.Popen(
            [sys.executable, "-c", PASSED, f"{box}/http", *options, "--listen=systemd"],
            env={**os.environ, "PATH": "/nonexistent"},
        ) as process,
    ):
        wait_until(lambda: (box / "http").exists() and _is_served(box), "it answers")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 0


class _Exhausted(socket.socket):
    """A listener in a process without descriptors for another connection."""

    tries = 0

    def accept(self) -> tuple[socket.socket, object]:
        """Fail as the kernel does."""
        self.tries += 1
        raise OSError(errno.EMFILE, "Too many open files")


def test_a_lack_of_descriptors_does_not_keep_the_processor_busy(box: Path) -> None:
    def defect(name: str, error: Exception) -> None:
        raise AssertionError(name) from error

    listener = _Exhausted(socket.AF_UNIX)
    listener.bind(f"{box}/http")
    listener.listen()
    loop = Loop(defect)
    server = Server(loop, listener, lambda _: text(200, "ok"), frozenset)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{box}/http")
        loop.start("server", server.run())
        deadline = time.monotonic() + 2.5 * ACCEPT_RETRY_SECONDS
        while time.monotonic() < deadline:
            loop.turn(deadline)
    loop.close()
    assert 1 <= listener.tries <= 3
