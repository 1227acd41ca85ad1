"""`tsfc watchdog --restart-socket`: a helper restarts tailscaled and responds."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.processes import (
    Completed,
    Forked,
    ended,
    error_lines,
    interrupt,
    run,
    series,
    started,
    wait_until,
)
from support.programs import calls, program
from support.statuses import encoded, peer
from tsfc.core.watchdog.remedy import Failed, Stage
from tsfc.core.watchdog.state import decode
from tsfc.shell import systemd, waiting

T = 1_800_000_000
RESTART_LINE = "RESTART: rpi3 on relay for 650s, restarting tailscaled\n"
UNIT = "tailscaled.service"
SEE = f"; see `systemctl status {UNIT}`"
SEE_HELPER = "; see `journalctl -u 'tailscale-watchdog-restart*'`"
SEE_SOCKET = (
    "; see `systemctl status tailscale-watchdog-restart.socket`, and check --restart-socket"
)

Response = Callable[[socket.socket], object]
"Function that responds on a connection, before it is closed."


class Helper:
    """Data that clients sent to the helper."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        # Set when a client has closed its side.
        self.client_closed = threading.Event()


@contextmanager
def serving(path: Path, respond: Response) -> Generator[Helper]:
    """Listen on `path` and serve one connection at a time while the block runs."""
    helper = Helper()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(ConnectionError):
                        respond(connection)
                        connection.shutdown(socket.SHUT_WR)
                        helper.requests.append(connection.recv(2**16))
                    helper.client_closed.set()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield helper
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def send(response: bytes) -> Response:
    return lambda connection: connection.sendall(response)


class Host:
    """A host with a peer `rpi3` over the threshold. No run may call its `systemctl`."""

    def __init__(self, box: Path, forks: Forked) -> None:
        self._forks = forks
        self.path = box / "restart.sock"
        self.state = box / "state"
        self.metrics = box / "a.prom"
        self.programs = box / "bin"
        self.programs.mkdir()
        program(self.programs, "systemctl")
        self.state.mkdir()
        (self.state / "peer_rpi3").write_text(f"{T - 650}\n")
        (box / "status.json").write_bytes(encoded(peer("rpi3", "derp")))
        self._files = [
            "--status-file",
            str(box / "status.json"),
            "--state-dir",
            str(self.state),
            "--metrics-path",
            str(self.metrics),
        ]

    def options(self, *, now: int = T) -> list[str]:
        """Options of a run."""
        return ["watchdog", "--now", str(now), *self._files, "--restart-socket", str(self.path)]

    def run(self, *options: str, now: int = T) -> Completed:
        """Run the watchdog once, and check that it does not call systemctl."""
        result = self._forks.run(*self.options(now=now), *options, programs=self.programs)
        assert calls(self.programs, "systemctl") == []
        return result

    def counts(self) -> tuple[float, float]:
        """Number of restarts, and of restarts that failed."""
        exported = series(self.metrics.read_text())
        return exported["tailscale_watchdog_restarts_total"], exported[
            "tailscale_watchdog_restart_failures_total"
        ]


@pytest.fixture
def host(box: Path, forks: Forked) -> Host:
    return Host(box, forks)


def complaint(host: Host, result: Completed, *, unit: str = UNIT) -> str:
    """Check that a run counted and reported a failed restart, and return the reason."""
    (line,) = error_lines("watchdog", result)
    prefix = f"asking for a restart of {unit} over {host.path}: "
    assert line.startswith(prefix)
    assert (result.status, result.stdout, host.counts()) == (1, RESTART_LINE, (0, 1))
    return line.removeprefix(prefix)


def test_a_successful_restart_is_counted_once_and_begins_the_cooldown(host: Host) -> None:
    """The connection itself is the request; no data is sent."""
    with serving(host.path, send(b"done\n")) as helper:
        assert host.run() == (0, RESTART_LINE, "")
        assert host.run(now=T + 60) == (
            0,
            "COOLDOWN: rpi3 exceeded threshold but in cooldown (540s remaining)\n",
            "",
        )
    assert (helper.requests, host.counts()) == ([b""], (1, 0))


def test_a_response_may_arrive_in_pieces(host: Host) -> None:
    def respond(connection: socket.socket) -> None:
        for piece in (b"d", b"on", b"e", b"\n"):
            connection.sendall(piece)

    with serving(host.path, respond):
        assert host.run() == (0, RESTART_LINE, "")
    assert host.counts() == (1, 0)


def test_without_a_restart_nothing_connects_to_the_helper(host: Host) -> None:
    """In a dry run, and within the threshold."""
    with serving(host.path, send(b"done\n")) as helper:
        assert host.run("--dry-run").status == 0
        assert host.run(now=T - 600).stdout == "WAITING: rpi3 on relay for 50s (threshold: 600s)\n"
    assert helper.requests == []


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (
            b"Failed to restart a.service: Unit a.service not found.\n",
            "Failed to restart a.service: Unit a.service not found.",
        ),
        (b"warning\ndone\n", "warning done"),
        (b"don", "don"),
        (b"done", "done"),
        (b"done\n\n", "done"),
        (b"done\r\n", "done"),
        (b"DONE\n", "DONE"),
        (b" done\n", "done"),
        (b"done\ndone\n", "done done"),
        (b"done\n\0", "done \N{REPLACEMENT CHARACTER}"),
    ],
    ids=ascii,
)
def test_any_other_response_is_a_failed_restart_and_is_reported(
    host: Host, response: bytes, reason: str
) -> None:
    """`done` after other text comes from a script that went on after an error."""
    with serving(host.path, send(response)):
        assert complaint(host, host.run()) == f"{reason}{SEE}"


def test_the_error_has_the_name_of_the_unit(host: Host) -> None:
    with serving(host.path, send(b"no\n")):
        assert (
            complaint(host, host.run("--unit", "a@b.service"), unit="a@b.service")
            == "no; see `systemctl status a@b.service`"
        )


@pytest.mark.parametrize("response", [b"", b"\n", b" \t\n"])
def test_a_connection_closed_without_a_response_is_a_failure_of_the_helper(
    host: Host, response: bytes
) -> None:
    """Of its unit, or another request was served; so tailscaled is not to blame."""
    with serving(host.path, send(response)):
        assert (
            complaint(host, host.run())
            == f"the connection was closed without a response{SEE_HELPER}"
        )


HOSTILE = [
    pytest.param(b"one\ntwo\r\nRESTART: rpi4\n", id="lines"),
    pytest.param(b"\x1b[31mred\x1b[0m\x9b31m", id="escape sequence"),
    pytest.param(b"\xff\xfe\x80done\n", id="not utf 8"),
    pytest.param(b"\0" * 100, id="nul"),
    pytest.param("\u202egnp.exe\u2028\u2029".encode(), id="right to left"),
    pytest.param(b"\xed\xa0\x80", id="surrogate"),
    pytest.param(b"%s %n {0} $(reboot) `reboot`", id="format"),
    pytest.param(b"n" * 10_000, id="long"),
]


@pytest.mark.parametrize("response", HOSTILE)
def test_a_hostile_response_is_reported_in_one_printable_line_of_limited_length(
    host: Host, response: bytes
) -> None:
    """`error_lines` checks that the line is printable."""
    with serving(host.path, send(response)):
        reason = complaint(host, host.run())
    assert reason.endswith(SEE)
    assert 0 < len(reason.removesuffix(SEE)) <= 301


@pytest.mark.parametrize("start", [b"", b"done\n"])
def test_an_endless_response_is_cut_off(host: Host, start: bytes) -> None:
    """Otherwise it would fill the memory, or last until the timeout."""

    def respond(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(b"x" * 2**16)

    with serving(host.path, respond) as helper:
        reason = complaint(host, host.run())
        assert helper.client_closed.wait(60)
    assert reason.startswith((start.decode().strip() + " " + "x" * 250).strip())
    assert reason.endswith(f"…{SEE}")


def _nothing(path: Path) -> None:
    pass


def _a_file(path: Path) -> None:
    path.write_text("done\n")


def _a_directory(path: Path) -> None:
    path.mkdir()


def _a_pipe(path: Path) -> None:
    os.mkfifo(path)


def _a_dangling_link(path: Path) -> None:
    path.symlink_to("/nonexistent/socket")


def _a_socket_without_a_listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _a_datagram_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (_nothing, "No such file or directory"),
        (_a_file, "Connection refused"),
        (_a_directory, "Connection refused"),
        (_a_pipe, "Connection refused"),
        (_a_dangling_link, "No such file or directory"),
        (_a_socket_without_a_listener, "Connection refused"),
        (_a_datagram_socket, "Connection refused"),
    ],
)
def test_an_unreachable_helper_is_a_failed_restart(
    host: Host, make: Callable[[Path], None], error: str
) -> None:
    """It is counted and begins the cooldown."""
    make(host.path)
    assert complaint(host, host.run()) == f"{error}{SEE_SOCKET}"
    assert host.run(now=T + 60) == (
        0,
        "COOLDOWN: rpi3 exceeded threshold but in cooldown (540s remaining)\n",
        "",
    )


def test_an_open_datagram_socket_is_reported_as_the_wrong_type(host: Host) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(host.path))
        assert complaint(host, host.run()) == f"Protocol wrong type for socket{SEE_SOCKET}"


def test_a_path_too_long_for_a_socket_is_reported_in_one_line(host: Host) -> None:
    host.path = host.path.parent / ("n" * 120)
    reason = complaint(host, host.run())
    assert reason.endswith(SEE_SOCKET)
    assert "None" not in reason


def test_an_empty_path_is_reported_in_one_line(host: Host) -> None:
    result = host.run("--restart-socket", "")
    assert len(error_lines("watchdog", result)) == 1
    assert (result.status, result.stdout, host.counts()) == (1, RESTART_LINE, (0, 1))


def _on_another_port(host: Host, *options: str) -> Completed:
    """Run the watchdog when the remedy `other-port` is due."""
    guarded = ("--policy", "guarded", "--remedies", "other-port")
    status = host.state.parent / "status.json"
    status.write_bytes(encoded(peer("rpi3", "direct")))
    assert host.run(*guarded, *options, now=T - 800).status == 0
    status.write_bytes(encoded(peer("rpi3", "derp")))
    assert host.run(*guarded, *options, now=T - 650).status == 0
    return host.run(*guarded, *options)


OTHER_PORT_LINE = "OTHER-PORT: rpi3 on relay for 650s, restarting tailscaled on another port\n"


def test_another_port_is_a_request_of_its_own(host: Host) -> None:
    with serving(host.path, send(b"done\n")) as helper:
        assert _on_another_port(host) == (0, OTHER_PORT_LINE, "")
    assert (helper.requests, host.counts()) == ([b"other-port\n"], (1, 0))


def test_a_refused_change_of_the_port_is_reported(host: Host) -> None:
    response = b"tailscaled.service does not use the variable PORT in ExecStart=\n"
    with serving(host.path, send(response)):
        result = _on_another_port(host)
    (line,) = error_lines("watchdog", result)
    assert line == (
        f"asking for a restart of {UNIT} on another port over {host.path}: "
        f"{response.decode().strip()}{SEE}"
    )
    assert (result.status, host.counts()) == (1, (0, 1))


def test_a_helper_that_refuses_the_connection_is_reported_as_one(host: Host) -> None:
    """It is busy, and closes the connection before the request is sent."""
    with serving(host.path, lambda connection: connection.shutdown(socket.SHUT_RDWR)):
        result = _on_another_port(host)
    (line,) = error_lines("watchdog", result)
    assert line.endswith(f"the connection was closed without a response{SEE_HELPER}")


@pytest.mark.parametrize("start", [b"", b"done\n"])
def test_a_helper_that_does_not_close_the_connection_times_out(
    box: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """Even after `done`, since more text may follow. The timeout is shortened here."""
    monkeypatch.setattr(systemd, "TIMEOUT_SECONDS", 0.3)
    release = threading.Event()

    def respond(connection: socket.socket) -> None:
        connection.sendall(start)
        release.wait(60)

    with serving(box / "s", respond) as helper:
        outcome = waiting.run(systemd.ask_for_restart(UNIT, str(box / "s")))
        release.set()
        assert helper.client_closed.wait(60)
    assert outcome == Failed(
        f"asking for a restart of {UNIT} over {box}/s: timed out after 0.3 s{SEE}"
    )


def test_a_helper_that_sends_forever_times_out(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout is for the whole response, not for each piece."""
    monkeypatch.setattr(systemd, "TIMEOUT_SECONDS", 0.3)
    release = threading.Event()

    def respond(connection: socket.socket) -> None:
        while not release.wait(0.01):
            connection.sendall(b".")

    with serving(box / "s", respond):
        outcome = waiting.run(systemd.ask_for_restart(UNIT, str(box / "s")))
        release.set()
    assert outcome == Failed(
        f"asking for a restart of {UNIT} over {box}/s: timed out after 0.3 s{SEE}"
    )


def test_a_helper_that_does_not_accept_times_out(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue of the listener is full."""
    monkeypatch.setattr(systemd, "TIMEOUT_SECONDS", 0.3)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(box / "s"))
        listener.listen(0)
        client.connect(str(box / "s"))
        outcome = waiting.run(systemd.ask_for_restart(UNIT, str(box / "s")))
    assert outcome == Failed(
        f"asking for a restart of {UNIT} over {box}/s: timed out after 0.3 s{SEE}"
    )


def test_a_slow_restart_is_not_limited_by_option_timeout(host: Host) -> None:
    """`--timeout` is for calls to tailscaled only."""
    release = threading.Event()

    def respond(connection: socket.socket) -> None:
        release.wait(0.6)
        connection.sendall(b"done\n")

    with serving(host.path, respond):
        assert host.run("--timeout", "0.2") == (0, RESTART_LINE, "")
    assert host.counts() == (1, 0)


def test_the_cooldown_is_on_the_disk_before_the_helper_is_asked(host: Host) -> None:
    files: dict[str, str] = {}

    def respond(connection: socket.socket) -> None:
        files.update({path.name: path.read_text() for path in host.state.iterdir()})
        connection.sendall(b"done\n")

    with serving(host.path, respond):
        assert host.run() == (0, RESTART_LINE, "")
    assert files[".last_restart"] == f"{T}\n"
    assert decode(files["state.json"].encode()).unwrap().attempts[-1].stage is Stage.ASKED


def test_a_run_terminated_while_it_waits_prints_one_line_and_the_next_counts_it(
    host: Host,
) -> None:
    """The helper finishes the restart without the run, so it counts as done."""
    is_asked, release = threading.Event(), threading.Event()

    def respond(_: socket.socket) -> None:
        is_asked.set()
        release.wait(60)

    with serving(host.path, respond):
        with started(*host.options(), programs=host.programs) as process:
            wait_until(is_asked.is_set, "it asks")
            interrupt(process, signal.SIGTERM)
            assert ended(process) == (
                143,
                RESTART_LINE,
                "tsfc: ended by SIGTERM before it was done\n",
            )
        release.set()
    result = host.run(now=T + 60)
    assert error_lines("watchdog", result) == [
        "the run that restarted tailscaled ended before it knew the outcome: counted as done"
    ]
    assert (result.status, host.counts()) == (0, (1, 0))


def test_no_systemctl_is_needed(host: Host) -> None:
    """The sandbox of the unit may hide it."""
    with serving(host.path, send(b"done\n")):
        assert run(*host.options()) == (0, RESTART_LINE, "")
