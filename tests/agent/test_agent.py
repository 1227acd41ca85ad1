"""The agent as a process: what its jobs do, and that none holds up another."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from support.processes import (
    DEADLINE_SECONDS,
    ended,
    error_lines,
    run,
    series,
    started,
    wait_until,
)
from support.servers import (
    DERP_PONG,
    DIRECT_PONG,
    Request,
    Response,
    Server,
    http,
    serving,
    tailscaled,
)
from support.statuses import decoded, encoded, peer
from tsfc.agent import sight
from tsfc.agent.agent import SIGHT_SECONDS, Agent
from tsfc.cli import values
from tsfc.core.keepalive import pings
from tsfc.shell.system import System
from tsfc.shell.tailscaled.observe import RunOptions
from tsfc.units import values as units_values

STATUS = encoded(peer("nas"), peer("pi", "derp"))
USERMETRICS = b"# TYPE tailscaled_approved_routes gauge\ntailscaled_approved_routes 1\n"
QUICK = ("--exporter-interval=1s", "--native-metrics-interval=1s", "--keepalive-interval=1s")
FILES = {
    "exporter": "tailscale-peers.prom",
    "native-metrics": "tailscale-native.prom",
    "watchdog": "tailscale-watchdog.prom",
}


def _tailscaled(request: Request) -> Response:
    return tailscaled(STATUS, lambda _: DIRECT_PONG, USERMETRICS)(request)


@contextmanager
def _agent(
    box: Path, *arguments: str, watchdog: str = "--unit=tailscaled.service"
) -> Generator[subprocess.Popen[bytes]]:
    for name in ("metrics", "state"):
        (box / name).mkdir(exist_ok=True)
    with started(
        "agent",
        f"--socket={box}/s",
        f"--metrics-dir={box}/metrics",
        f"--state-dir={box}/state",
        f"--watchdog-args={watchdog}",
        *arguments,
    ) as process:
        yield process


def _stopped(process: subprocess.Popen[bytes]) -> list[str]:
    """End the agent; return what it printed."""
    process.send_signal(signal.SIGTERM)
    done = ended(process)
    assert done.status == 0
    assert error_lines("agent", done) == []
    return done.stdout.splitlines()


def _own(box: Path) -> dict[str, float]:
    path = box / "metrics" / "tailscale-agent.prom"
    return series(path.read_text()) if path.exists() else {}


def _of_status(server: Server) -> int:
    return sum(request.target.endswith("/status") for request in server.requests)


def _timeless(text: str) -> list[str]:
    """The lines of an exposition without what differs from run to run."""
    return [
        line
        for line in text.splitlines()
        if not re.search("(duration|timestamp)_seconds", line) or line.startswith("#")
    ]


def test_each_job_writes_what_its_oneshot_writes(box: Path) -> None:
    with serving(box / "s", _tailscaled):
        with _agent(box) as process:
            wait_until(lambda: _own(box), "the agent has done its first runs")
            wait_until(
                lambda: all((box / "metrics" / name).exists() for name in FILES.values()),
                "all jobs have run",
            )
            said = _stopped(process)
        oneshots: list[str] = []
        for job, name in FILES.items():
            directory = box / "oneshots"
            directory.mkdir(exist_ok=True)
            options = [f"--socket={box}/s", f"--metrics-path={directory}/{name}"]
            if job == "watchdog":
                options += [f"--state-dir={box}/other", "--unit=tailscaled.service"]
            done = run(job, *options)
            assert (done.status, done.stderr) == (0, "")
            oneshots += done.stdout.splitlines()
            of_agent = (box / "metrics" / name).read_text()
            assert _timeless(of_agent) == _timeless((directory / name).read_text())
    assert said == oneshots == ["DETECTED: pi transitioned to relay"]


def test_agent_and_oneshot_share_the_state_of_the_watchdog(box: Path) -> None:
    oneshot = (
        "watchdog",
        f"--socket={box}/s",
        f"--state-dir={box}/state",
        "--unit=tailscaled.service",
        f"--metrics-path={box}/w.prom",
    )
    with serving(box / "s", _tailscaled):
        assert run(*oneshot).stdout == "DETECTED: pi transitioned to relay\n"
        with _agent(box, "--jobs=watchdog") as process:
            wait_until((box / "metrics" / FILES["watchdog"]).exists, "the watchdog has run")
            (line,) = _stopped(process)
        assert re.fullmatch(r"WAITING: pi on relay for \d+s \(threshold: 600s\)", line)
        assert re.fullmatch(
            r"WAITING: pi on relay for \d+s \(threshold: 600s\)\n", run(*oneshot).stdout
        )


def test_jobs_of_one_moment_share_one_status_and_keepalive_uses_it_later(box: Path) -> None:
    with (
        serving(box / "s", _tailscaled) as server,
        _agent(box, "--keepalive-interval=1s") as process,
    ):
        wait_until(lambda: len(server.pings()) >= 6, "keepalive has run three times")
        assert _of_status(server) == 1
        _stopped(process)


@pytest.mark.parametrize("is_adaptive", [True, False])
def test_adaptive_keepalive_leaves_out_direct_peers_and_keeps_their_results(
    box: Path, *, is_adaptive: bool
) -> None:
    (direct,) = pings(decoded(peer("nas")))

    def answer(request: Request) -> Response:
        return DIRECT_PONG if request.ip == direct.ip else DERP_PONG

    options = ["--adaptive-keepalive"] if is_adaptive else []
    with (
        serving(box / "s", tailscaled(STATUS, answer, USERMETRICS)) as server,
        _agent(
            box,
            *options,
            "--jobs=keepalive",
            "--keepalive-interval=1s",
            f"--keepalive-args=--count=1 --metrics-path={box}/metrics/k.prom",
        ) as process,
    ):
        wait_until(lambda: len(server.pings()) >= 6, "keepalive has run")
        _stopped(process)
    to_direct = [request for request in server.pings() if request.ip == direct.ip]
    assert (len(to_direct) == 1) is is_adaptive
    found = series((box / "metrics" / "k.prom").read_text())
    assert found['tailscale_keepalive_peers{result="direct"}'] == 1
    assert found['tailscale_keepalive_peers{result="derp"}'] == 1


def _kept(response: bytes) -> Iterator[bytes]:
    """The response without `Connection: close`, and an open connection after it."""
    return itertools.chain([response.replace(b"Connection: close\r\n", b"")], itertools.repeat(b""))


def test_connections_are_kept(box: Path) -> None:
    def respond(request: Request) -> Response:
        response = _tailscaled(request)
        assert isinstance(response, bytes)
        return _kept(response)

    with serving(box / "s", respond) as server, _agent(box, *QUICK) as process:
        wait_until(lambda: len(server.requests) > 30, "there were many requests")
        # Two pings and two questions at a time, and a look whether somebody listens.
        assert len({id(request.connection) for request in server.requests}) <= 4
        _stopped(process)


def test_a_hung_tailscaled_holds_up_only_who_waits_for_it(box: Path) -> None:
    def respond(request: Request) -> Response:
        return None if request.target.endswith("/status") else _tailscaled(request)

    with serving(box / "s", respond) as server, _agent(box, *QUICK, "--timeout=60") as process:
        wait_until(
            lambda: sum("/usermetrics" in request.target for request in server.requests) >= 4,
            "native-metrics has run four times",
        )
        assert sorted(path.name for path in (box / "metrics").glob("*.prom")) == [
            "tailscale-agent.prom",
            "tailscale-native.prom",
        ]
        before = time.monotonic()
        assert _stopped(process) == []
        assert time.monotonic() - before < DEADLINE_SECONDS


def test_a_restart_holds_up_no_other_job(box: Path) -> None:
    """The helper never answers."""
    with (
        serving(box / "s", _tailscaled) as server,
        socket.socket(socket.AF_UNIX) as helper,
    ):
        helper.bind(f"{box}/restart")
        helper.listen()
        helper.settimeout(DEADLINE_SECONDS)
        watchdog = f"--unit=x.service --max-relay-seconds=0 --restart-socket={box}/restart"
        with _agent(box, *QUICK, "--watchdog-interval=1s", watchdog=watchdog) as process:
            connection, _ = helper.accept()
            number = len(server.pings())
            wait_until(lambda: len(server.pings()) > number + 4, "keepalive goes on")
            wait_until(
                lambda: (
                    _own(box).get('tailscale_agent_skipped_runs_total{command="watchdog"}', 0) or 1
                ),
                "the watchdog waits",
            )
            assert _stopped(process)[-1].startswith("RESTART: pi on relay for ")
            connection.close()


def test_the_end_comes_soon_though_tailscaled_hangs(box: Path) -> None:
    with serving(box / "s", lambda _: None) as server, _agent(box, "--timeout=60") as process:
        wait_until(lambda: len(server.requests) >= 2, "the agent waits")
        before = time.monotonic()
        assert _stopped(process) == []
        assert time.monotonic() - before < 30


def test_without_tailscaled_each_job_says_so_and_the_agent_goes_on(box: Path) -> None:
    with _agent(box, *QUICK) as process:
        wait_until(lambda: "tailscale_up 0" in _text(box, "tailscale-peers.prom"), "it is down")
        with serving(box / "s", _tailscaled):
            wait_until(lambda: "tailscale_up 1" in _text(box, "tailscale-peers.prom"), "it is up")
        process.send_signal(signal.SIGTERM)
        done = ended(process)
    assert done.status == 0
    jobs = {line.split(":")[0] for line in done.stderr.splitlines()}
    assert jobs == {
        f"tsfc {job}" for job in ("exporter", "native-metrics", "keepalive", "watchdog")
    }


def _text(box: Path, name: str) -> str:
    path = box / "metrics" / name
    return path.read_text().replace(".0", "") if path.exists() else ""


def test_hangup_changes_nothing(box: Path) -> None:
    with serving(box / "s", _tailscaled) as server, _agent(box, *QUICK) as process:
        wait_until(server.pings, "the agent runs")
        process.send_signal(signal.SIGHUP)
        number = len(server.pings())
        wait_until(lambda: len(server.pings()) > number + 2, "the agent goes on")
        _stopped(process)


def test_systemd_is_told_while_the_loop_turns(box: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"{box}/notify")
        receiver.settimeout(DEADLINE_SECONDS)
        around = f'NOTIFY_SOCKET={box}/notify WATCHDOG_USEC=200000 exec "$@"'
        (box / "metrics").mkdir()
        with (
            serving(box / "s", _tailscaled),
            started(
                "agent",
                f"--socket={box}/s",
                f"--metrics-dir={box}/metrics",
                "--jobs=exporter",
                around=around,
            ) as process,
        ):
            told: list[str] = []
            while told.count("WATCHDOG=1") < 3 or len(set(told)) < 3:
                told.append(receiver.recv(1000).decode())
            process.send_signal(signal.SIGSTOP)
            _drain(receiver)
            receiver.settimeout(0.6)
            with pytest.raises(TimeoutError):
                receiver.recv(1000)
            receiver.settimeout(DEADLINE_SECONDS)
            process.send_signal(signal.SIGCONT)
            assert receiver.recv(1000) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            while told[-1] != "STOPPING=1":
                told.append(receiver.recv(1000).decode())
            assert ended(process).status == 0
    assert told[0] == "READY=1"
    assert "STATUS=peers: 1 direct, 1 derp" in told


def _drain(receiver: socket.socket) -> None:
    """Take what was sent before the process stopped."""
    receiver.settimeout(0.2)
    try:
        while True:
            receiver.recv(1000)
    except TimeoutError:
        return


DEFECT = """
import sys
from tsfc.agent.agent import Agent, AgentJob
from tsfc.shell.system import System
from tsfc.shell.tailscaled.observe import RunOptions

async def wrong(host):
    raise ValueError("its text")

async def right(host):
    host.log("right")
    return 0

options = RunOptions(metrics_path=sys.argv[1])
jobs = [
    AgentJob(System(name, options), 1.0, job, status_age=None)
    for name, job in (("wrong", wrong), ("right", right))
]
sys.exit(Agent(jobs, System("agent", options)).run())
"""


def test_a_defect_of_a_job_is_reported_and_ends_that_run_alone(box: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DEFECT, f"{box}/agent.prom"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(3)] == ["right\n"] * 3
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    lines = stderr.splitlines()
    assert lines[0] == "tsfc agent: wrong ended with a defect of tsfc, please report it:"
    assert "tsfc agent: ValueError: its text" in lines
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--jobs=exporter,nothing"], "is not a list of exporter"),
        (["--jobs=exporter,exporter"], "is not a list of exporter"),
        (["--keepalive-interval=0s"], "is not a time span"),
        (["--keepalive-interval=soon"], "is not a time span"),
        (["--keepalive-args=--nope"], "tsfc keepalive: unrecognized arguments: --nope"),
        (["--keepalive-args='"], "No closing quotation"),
        (["--exporter-args=--now 5"], "--now is for a single run, not for the agent"),
        (["--exporter-args=--status-file -"], "--status-file is for a single run"),
        (["--exporter-args=--socket /x"], "give it to the agent"),
        (["--socket=/x"], "give --unit in --watchdog-args;"),
    ],
)
def test_what_is_wrong_with_the_command_line_is_one_line(arguments: list[str], error: str) -> None:
    done = run("agent", *arguments)
    assert (done.status, done.stdout) == (2, "")
    assert error in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1min 30s", 90), ("1.5h", 5400), ("2 weeks", 1209600), ("1m5sec", 65)],
)
def test_an_interval_is_a_time_span_of_systemd(text: str, seconds: float) -> None:
    assert values.interval(text) == seconds
    assert units_values.time_span(text) == text


def test_the_agent_has_a_metrics_file_and_labels_of_its_own(box: Path) -> None:
    own = box / "own.prom"
    with (
        serving(box / "s", _tailscaled),
        _agent(box, f"--metrics-path={own}", "--label=tailscaled=work") as process,
    ):
        wait_until(own.exists, "the agent has written its metrics")
        _stopped(process)
    assert 'tailscale_agent_resident_memory_bytes{tailscaled="work"}' in series(own.read_text())
    assert not (box / "metrics" / "tailscale-agent.prom").exists()


SANDBOXED = (
    """PATH=/usr/bin:/bin exec unshare --mount --propagation=private """
    """sh -ec 'mount --bind "$0/host" "$0/seen"; exec "$@"' {box} "$@" """
)


@pytest.mark.parametrize("replaced", ["socket", "metrics", "state"])
def test_an_agent_that_cannot_see_a_replaced_directory_ends_to_be_started_again(
    box: Path, replaced: str
) -> None:
    """The directory is that of the socket, of the metrics or of the state."""
    for name in ("host", "metrics", "seen", "state"):
        (box / name).mkdir()
    directories = {"socket": box, "metrics": box / "metrics", "state": box / "state"}
    directories[replaced] = box / "seen"
    paths = {**directories, replaced: box / "host"}
    with (
        serving(paths["socket"] / "s", _tailscaled),
        started(
            "agent",
            f"--socket={directories['socket']}/s",
            f"--metrics-dir={directories['metrics']}",
            f"--state-dir={directories['state']}",
            "--jobs=exporter,watchdog",
            "--watchdog-args=--unit=x.service",
            *QUICK,
            around=SANDBOXED.format(box=box),
        ) as process,
    ):
        wait_until(
            lambda: all(
                (paths[kind] / name).exists()
                for kind, name in (
                    ("metrics", "tailscale-peers.prom"),
                    ("metrics", "tailscale-watchdog.prom"),
                    ("state", "state.json"),
                )
            ),
            "both jobs have run",
        )
        shutil.rmtree(box / "host")
        (box / "host").mkdir()
        done = ended(process)
    assert done.status == os.EX_TEMPFAIL
    assert done.stderr.splitlines()[-1] == (
        f"tsfc agent: {box}/seen was replaced or is missing, and a sandbox shows a new one only "
        "to new processes; the agent ends, so that systemd starts it again"
    )


def test_an_agent_goes_on_for_a_while_if_the_directory_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that its jobs report a stopped tailscaled, and it is not started in a loop."""
    monkeypatch.setattr(sight, "cannot_appear", "/run/none".__eq__)
    agent = Agent((), System("agent", RunOptions(socket="/run/none/s")))
    with closing(agent._loop):
        assert agent._hidden_directory() is None
        monkeypatch.setattr(agent, "_started", agent._started - SIGHT_SECONDS)
        assert agent._hidden_directory() == "/run/none"


def test_a_dry_run_restarts_nothing_and_keeps_no_state(box: Path) -> None:
    with (
        serving(box / "s", lambda _: http(STATUS)),
        _agent(
            box,
            "--dry-run",
            "--jobs=watchdog",
            "--watchdog-interval=1s",
            watchdog="--policy=guarded",
        ) as process,
    ):
        wait_until(lambda: _own(box), "the agent runs")
        assert process.stdout
        assert process.stdout.readline() == b"DETECTED: pi transitioned to relay\n"
        assert process.stdout.readline() == b"DETECTED: pi transitioned to relay\n"
        _stopped(process)
    assert list((box / "state").iterdir()) == []
