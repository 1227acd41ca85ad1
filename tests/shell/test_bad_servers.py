"""Misbehaving servers: each job prints one line in time and writes no stale sample."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from returns.result import Success

from support.processes import (
    DEADLINE_SECONDS,
    Completed,
    ended,
    error_lines,
    inside,
    run,
    series,
    started,
)
from support.servers import Response, http, serving
from support.statuses import encoded, peer
from tsfc.shell import waiting
from tsfc.shell.tailscaled import localapi

T = 1_800_000_000
JOBS = ["exporter", "native-metrics", "keepalive", "watchdog"]
STATUS = encoded(peer("a"))
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OLD_STATE = {"peer_a": f"{T - 100}\n", ".detection_count": "1\n"}


class Bad(NamedTuple):
    """A way to misbehave, and the consequence for the jobs."""

    response: Callable[[], Response]
    status: int
    "Exit status: 0 without a response, 1 if the response is unusable."
    error: str
    "Part of the error line."


DOWN, UNUSABLE = 0, 1
TIMED_OUT = "no complete response within 0.5 s"


def _drip(data: bytes) -> Iterator[bytes]:
    return (data[n : n + 1] for n in itertools.count())


CASES = {
    "no response": Bad(lambda: None, DOWN, TIMED_OUT),
    "one byte at a time": Bad(lambda: _drip(http(STATUS * 100)), DOWN, TIMED_OUT),
    "only the head": Bad(
        lambda: itertools.chain([http(STATUS)[:60]], itertools.repeat(b"")), DOWN, TIMED_OUT
    ),
    "closed at once": Bad(lambda: b"", DOWN, "closed without a response"),
    "garbage": Bad(
        lambda: b"\x00\xff\x1b[31mgarbage\r\n\r\n", UNUSABLE, "not a valid HTTP response"
    ),
    "garbage without an end of line": Bad(
        lambda: b"x" * 200_000, UNUSABLE, "not a valid HTTP response"
    ),
    "another protocol": Bad(
        lambda: b"SSH-2.0-OpenSSH_9.9\r\n", UNUSABLE, "not a valid HTTP response"
    ),
    "403": Bad(
        lambda: http(b"access denied\nno\x1b[31m", "403 Forbidden"),
        UNUSABLE,
        "403 Forbidden: access denied no",
    ),
    "404": Bad(
        lambda: http(b"404 page not found\n", "404 Not Found"),
        UNUSABLE,
        "404 Not Found: 404 page not found; this tailscaled does not support the request",
    ),
    "500": Bad(
        lambda: http(b"<html>" + b"oops " * 10_000, "500 Internal Server Error"),
        UNUSABLE,
        "500 Internal Server Error: <html>oops",
    ),
    "204": Bad(lambda: http(b"", "204 No Content"), UNUSABLE, "204 No Content"),
    "truncated in the head": Bad(lambda: b"HTTP/1.1 200 OK\r\nContent-Le", UNUSABLE, ""),
    "truncated in the body": Bad(lambda: http(STATUS)[:-10], UNUSABLE, "the response is truncated"),
    "truncated in a chunk": Bad(
        lambda: CHUNKED + b"ff\r\n{",
        UNUSABLE,
        "the response is truncated",
    ),
    "truncated between chunks": Bad(
        lambda: CHUNKED + b"2\r\n# \r\n",
        UNUSABLE,
        "the response is truncated",
    ),
    "an invalid chunk size": Bad(
        lambda: CHUNKED + b"zz\r\n",
        UNUSABLE,
        "not a valid HTTP response",
    ),
    "a length out of range": Bad(
        lambda: b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n{",
        UNUSABLE,
        "not a valid HTTP response",
    ),
    "a chunk size out of range": Bad(
        lambda: CHUNKED + b"f" * 30 + b"\r\n{",
        UNUSABLE,
        "not a valid HTTP response",
    ),
    "a head without end": Bad(
        lambda: b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000, UNUSABLE, "its head is too long"
    ),
    "millions of chunks": Bad(lambda: CHUNKED + b"1\r\n{\r\n" * 8_000_000, DOWN, TIMED_OUT),
    "millions of interim responses": Bad(
        lambda: CONTINUE * 2_700_000, UNUSABLE, "its head is too long"
    ),
    "millions of trailers": Bad(
        lambda: CHUNKED + b"0\r\n" + b"A: b\r\n" * 8_000_000, DOWN, TIMED_OUT
    ),
    "endless chunks": Bad(
        lambda: itertools.chain([CHUNKED], itertools.repeat(b"1\r\n{\r\n" * 100_000)),
        DOWN,
        TIMED_OUT,
    ),
    "truncated JSON": Bad(lambda: http(STATUS[:-10]), UNUSABLE, "is it the output of `tailscale"),
    "another document": Bad(
        lambda: http(b'{"error":"x"}'), UNUSABLE, "is it the output of `tailscale"
    ),
}


def _prepare(box: Path) -> None:
    (box / "exporter.prom").write_text(
        'tailscale_up 1\ntailscale_peer_online{peer="a"} 1\n'
        f"tailscale_exporter_last_success_timestamp_seconds {T - 30}\n"
    )
    (box / "native-metrics.prom").write_text(
        "tailscaled_approved_routes 1\ntailscale_native_metrics_up 1\n"
    )
    (box / "keepalive.prom").write_text('tailscale_keepalive_peers{result="direct"} 1\n')
    (box / "watchdog.prom").write_text('tailscale_watchdog_peer_state{peer="a"} 1\n')
    (box / "state").mkdir()
    for name, text in OLD_STATE.items():
        (box / "state" / name).write_text(text)


def _all_jobs(box: Path, socket_path: Path, error: str) -> dict[str, Completed]:
    """Run all four jobs concurrently.

    The timeout is short if a timeout is expected, else too long to expire on a busy
    machine.
    """
    timeout = "0.5" if error == TIMED_OUT else "60"
    with ExitStack() as stack:
        running = {
            job: stack.enter_context(
                started(
                    job,
                    *(
                        "--socket",
                        str(socket_path),
                        "--source",
                        "localapi",
                        "--timeout",
                        timeout,
                        "--now",
                        str(T),
                    ),
                    *(
                        "--metrics-path",
                        str(box / f"{job}.prom"),
                        *(
                            ["--state-dir", str(box / "state"), "--unit=tailscaled.service"]
                            if job == "watchdog"
                            else []
                        ),
                    ),
                )
            )
            for job in JOBS
        }
        return {job: ended(process) for job, process in running.items()}


def _check(box: Path, ran: dict[str, Completed], status: int, error: str) -> None:
    for job in JOBS:
        (line,) = error_lines(job, ran[job])
        assert error in line, job
        assert (ran[job].status, ran[job].stdout) == (status, ""), job
    exporter = series((box / "exporter.prom").read_text())
    assert exporter == {
        "tailscale_up": 0,
        "tailscale_exporter_last_success_timestamp_seconds": T - 30,
    }
    assert series((box / "native-metrics.prom").read_text()) == {"tailscale_native_metrics_up": 0}
    assert series((box / "keepalive.prom").read_text()) == {}
    watchdog = series((box / "watchdog.prom").read_text())
    assert watchdog["tailscale_watchdog_relay_detections_total"] == 1
    assert watchdog["tailscale_watchdog_last_run_timestamp_seconds"] == T
    assert not [name for name in watchdog if "{" in name or "last_success" in name]
    for name, text in OLD_STATE.items():
        assert (box / "state" / name).read_text() == text, "without a status, the state is kept"
    assert not list(box.glob(".*"))


@pytest.mark.parametrize("case", CASES)
def test_a_misbehaving_server_is_a_one_line_error_of_every_job(box: Path, case: str) -> None:
    bad = CASES[case]
    _prepare(box)
    with serving(box / "s", lambda _: bad.response()):
        ran = _all_jobs(box, box / "s", bad.error)
    _check(box, ran, bad.status, bad.error)


@contextmanager
def _no_accept(path: Path) -> Generator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield


@contextmanager
def _full_backlog(path: Path) -> Generator[None]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
        yield


@contextmanager
def _stale_socket(path: Path) -> Generator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    yield


@contextmanager
def _nothing(path: Path) -> Generator[None]:
    assert not path.exists()
    yield


@contextmanager
def _file(path: Path) -> Generator[None]:
    path.write_bytes(http(STATUS))
    yield


@contextmanager
def _directory(path: Path) -> Generator[None]:
    path.mkdir()
    yield


@pytest.mark.parametrize(
    ("there", "error"),
    [
        pytest.param(_no_accept, TIMED_OUT, id="a socket without accept"),
        pytest.param(_full_backlog, TIMED_OUT, id="a socket with a full backlog"),
        pytest.param(
            _stale_socket, "Connection refused; is tailscaled running?", id="a stale socket"
        ),
        pytest.param(_nothing, "No such file or directory; is tailscaled running?", id="nothing"),
        pytest.param(_file, "Connection refused; is tailscaled running?", id="a file"),
        pytest.param(_directory, "Connection refused; is tailscaled running?", id="a directory"),
    ],
)
def test_a_socket_without_a_response_means_that_the_daemon_is_down(
    box: Path, there: type, error: str
) -> None:
    _prepare(box)
    with there(box / "s"):
        ran = _all_jobs(box, box / "s", error)
    _check(box, ran, DOWN, error)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("x" * 200, id="a path too long for a socket"),
        pytest.param("file/s", id="a path through a file"),
    ],
)
def test_a_path_that_cannot_be_a_socket_is_unusable(box: Path, name: str) -> None:
    _prepare(box)
    (box / "file").touch()
    error = "set --socket to the path of tailscaled's socket"
    _check(box, _all_jobs(box, box / name, error), UNUSABLE, error)


@pytest.mark.parametrize("job", JOBS)
def test_a_response_larger_than_the_limit_is_an_error(
    box: Path, job: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The limit is lowered; the response is endless."""
    monkeypatch.setattr(localapi, "RESPONSE_LIMIT", 2**20)
    _prepare(box)
    options = (
        ["--state-dir", str(box / "state"), "--unit=tailscaled.service"]
        if job == "watchdog"
        else []
    )
    with serving(
        box / "s",
        lambda _: itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(b"# " * 2**15)),
    ):
        status = inside(
            job,
            "--socket",
            str(box / "s"),
            "--source",
            "localapi",
            "--metrics-path",
            str(box / f"{job}.prom"),
            *options,
        )
    out, err = capfd.readouterr()
    (line,) = error_lines(job, Completed(status, out, err))
    assert "the response is larger than 1 MiB" in line
    assert (status, out) == (UNUSABLE, "")


def test_a_status_after_a_fault_updates_the_last_success(box: Path) -> None:
    _prepare(box)
    with serving(box / "s", lambda _: http(STATUS)):
        assert (
            run(
                "exporter",
                "--socket",
                str(box / "s"),
                "--source",
                "localapi",
                "--now",
                str(T),
                "--metrics-path",
                str(box / "exporter.prom"),
            ).status
            == 0
        )
    assert (
        series((box / "exporter.prom").read_text())[
            "tailscale_exporter_last_success_timestamp_seconds"
        ]
        == T
    )


def test_faults_keep_the_last_success_and_it_is_absent_if_there_was_none(
    box: Path,
) -> None:
    _prepare(box)
    options = ("--socket", str(box / "s"), "--source", "localapi", "--now", str(T))
    for _ in range(2):
        run("exporter", *options, "--metrics-path", str(box / "exporter.prom"))
    assert (
        series((box / "exporter.prom").read_text())[
            "tailscale_exporter_last_success_timestamp_seconds"
        ]
        == T - 30
    )
    run("exporter", *options, "--metrics-path", str(box / "new.prom"))
    assert series((box / "new.prom").read_text()) == {"tailscale_up": 0}
    os.truncate(box / "exporter.prom", 0)
    run("exporter", *options, "--metrics-path", str(box / "exporter.prom"))
    assert series((box / "exporter.prom").read_text()) == {"tailscale_up": 0}


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(http(STATUS).replace(b"Connection: close\r\n", b""), id="with a length"),
        pytest.param(
            CHUNKED + f"{len(STATUS):x}\r\n".encode() + STATUS + b"\r\n0\r\n\r\n",
            id="in chunks",
        ),
    ],
)
def test_a_complete_response_counts_though_the_server_keeps_the_connection(
    box: Path, response: bytes
) -> None:
    """It does not wait for the timeout, either."""
    endless = itertools.chain([response], itertools.repeat(b""))
    with serving(box / "s", lambda _: endless):
        body = waiting.run(
            localapi.call(
                localapi.Connections(str(box / "s")), "GET", "/localapi/v0/status", timeout=60
            )
        )
    assert body == Success(STATUS)


CALL = """
import sys, time
from tsfc.shell import waiting
from tsfc.shell.tailscaled import localapi
before = time.process_time()
result = waiting.run(localapi.call(localapi.Connections(sys.argv[1]), "GET", "/localapi/v0/status", timeout=float(sys.argv[2])))
seconds = time.process_time() - before
body = result.value_or(None)
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(seconds, peak, "none" if body is None else len(body))
"""
"Program that prints the processor time of a call, the peak memory in KiB, and the size."


def _cost_of_call(box: Path, response: bytes, *, timeout: float) -> tuple[float, int, str]:
    with serving(box / "s", lambda _: response):
        done = subprocess.run(
            [sys.executable, "-c", CALL, str(box / "s"), str(timeout)],
            capture_output=True,
            check=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
    (box / "s").unlink()
    seconds, peak, size = done.stdout.split()
    return float(seconds), int(peak), size


def test_a_body_in_tiny_chunks_takes_little_more_memory_than_one_in_one_piece(box: Path) -> None:
    """As lists of chunks, it took 100 times as much as its size."""
    size = 2**20
    _, whole, got = _cost_of_call(box, http(b" " * size), timeout=60)
    assert got == str(size)
    _, chunked, got = _cost_of_call(box, CHUNKED + b"1\r\n \r\n" * size + b"0\r\n\r\n", timeout=60)
    assert got == str(size)
    assert chunked < 1.5 * whole


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(CONTINUE * (2**26 // len(CONTINUE)), id="64 MiB of interim responses"),
        pytest.param(CHUNKED + b"1\r\n \r\n" * 2**23, id="8 MiB in chunks of one byte"),
    ],
)
def test_the_timeout_covers_parsing(box: Path, response: bytes) -> None:
    """Parsing took 10 s. Processor time does not depend on the machine's other work."""
    seconds, _, got = _cost_of_call(box, response, timeout=0.5)
    assert got == "none"
    assert seconds < 4 * 0.5
