"""`tsfc watchdog --restart-socket`: who listens there restarts tailscaled, and says how it went."""

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
    Forked,
    Ran,
    complaints,
    ended,
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
from tsfc.shell import systemd

T = 1_800_000_000
RESTART_LINE = "RESTART: rpi3 on relay for 650s, restarting tailscaled\n"
UNIT = "tailscaled.service"
SEE = f"; see `systemctl status {UNIT}`"
NOBODY = "; see `systemctl status tailscale-watchdog-restart.socket`, and check --restart-socket"

Answer = Callable[[socket.socket], object]
"What is done with a connection, before it is closed."


class Helper:
    """Who listens at a socket; notes who came and what they sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.went = threading.Event()
        "Set when a client has closed its side."


@contextmanager
def helping(path: Path, answer: Answer) -> Generator[Helper]:
    """Serves one connection after the other while the block lasts."""
    helper = Helper()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(ConnectionError):
                        answer(connection)
                        connection.shutdown(socket.SHUT_WR)
                        helper.sent.append(connection.recv(2**16))
                    helper.went.set()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield helper
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def says(answer: bytes) -> Answer:
    return lambda connection: connection.sendall(answer)


class Host:
    """A host on which a peer `rpi3` is stuck, and where no `systemctl` is to be called."""

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
        """Returns the options of a run."""
        return ["watchdog", "--now", str(now), *self._files, "--restart-socket", str(self.path)]

    def run(self, *options: str, now: int = T) -> Ran:
        """Does one run, which calls no systemctl."""
        ran = self._forks.run(*self.options(now=now), *options, programs=self.programs)
        assert calls(self.programs, "systemctl") == []
        return ran

    def counted(self) -> tuple[float, float]:
        """Returns how many restarts were done, and how many have failed."""
        exported = series(self.metrics.read_text())
        return exported["tailscale_watchdog_restarts_total"], exported[
            "tailscale_watchdog_restart_failures_total"
        ]


@pytest.fixture
def host(box: Path, forks: Forked) -> Host:
    return Host(box, forks)


def complaint(host: Host, ran: Ran, *, unit: str = UNIT) -> str:
    """What a run said of a restart that failed, which it counted."""
    (line,) = complaints("watchdog", ran)
    prefix = f"asking for a restart of {unit} over {host.path}: "
    assert line.startswith(prefix)
    assert (ran.status, ran.stdout, host.counted()) == (1, RESTART_LINE, (0, 1))
    return line.removeprefix(prefix)


def test_a_restart_that_is_done_is_counted(host: Host) -> None:
    """To connect is to ask: nothing is sent. Then it cools down, and does not ask again."""
    with helping(host.path, says(b"done\n")) as helper:
        assert host.run() == (0, RESTART_LINE, "")
        assert host.run(now=T + 60) == (
            0,
            "COOLDOWN: rpi3 exceeded threshold but in cooldown (540s remaining)\n",
            "",
        )
    assert (helper.sent, host.counted()) == ([b""], (1, 0))


def test_an_answer_may_come_in_pieces(host: Host) -> None:
    def answer(connection: socket.socket) -> None:
        for piece in (b"d", b"on", b"e", b"\n"):
            connection.sendall(piece)

    with helping(host.path, answer):
        assert host.run() == (0, RESTART_LINE, "")
    assert host.counted() == (1, 0)


def test_nobody_is_asked_where_nothing_is_to_be_restarted(host: Host) -> None:
    """Nor by a dry run, nor within the threshold."""
    with helping(host.path, says(b"done\n")) as helper:
        assert host.run("--dry-run").status == 0
        assert host.run(now=T - 600).stdout == "WAITING: rpi3 on relay for 50s (threshold: 600s)\n"
    assert helper.sent == []


@pytest.mark.parametrize(
    ("answer", "shown"),
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
def test_any_other_answer_is_a_restart_that_failed_and_is_shown(
    host: Host, answer: bytes, shown: str
) -> None:
    """`done` after something else is said by who did not stop at an error."""
    with helping(host.path, says(answer)):
        assert complaint(host, host.run()) == f"{shown}{SEE}"


def test_the_unit_is_named(host: Host) -> None:
    with helping(host.path, says(b"no\n")):
        assert (
            complaint(host, host.run("--unit", "a@b.service"), unit="a@b.service")
            == "no; see `systemctl status a@b.service`"
        )


@pytest.mark.parametrize("answer", [b"", b"\n", b" \t\n"])
def test_a_connection_that_is_closed_without_an_answer_is_a_restart_that_failed(
    host: Host, answer: bytes
) -> None:
    with helping(host.path, says(answer)):
        assert complaint(host, host.run()) == f"the connection was closed without a response{SEE}"


HOSTILE = {
    "lines": b"one\ntwo\r\nRESTART: rpi4\n",
    "escape-sequence": b"\x1b[31mred\x1b[0m\x9b31m",
    "not-utf-8": b"\xff\xfe\x80done\n",
    "nul": b"\0" * 100,
    "right-to-left": "\u202egnp.exe\u2028\u2029".encode(),
    "surrogate": b"\xed\xa0\x80",
    "format": b"%s %n {0} $(reboot) `reboot`",
    "long": b"n" * 10_000,
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_answer_from_hell_stays_on_one_printable_line_of_some_length(
    host: Host, answer: bytes
) -> None:
    """That the line is printable, `complaints` holds."""
    with helping(host.path, says(answer)):
        said = complaint(host, host.run())
    assert said.endswith(SEE)
    assert 0 < len(said.removesuffix(SEE)) <= 301


@pytest.mark.parametrize("start", [b"", b"done\n"])
def test_an_answer_without_an_end_is_read_no_further_than_anybody_would_read_it(
    host: Host, start: bytes
) -> None:
    """It would otherwise fill the memory, or last until the bound on the time."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(b"x" * 2**16)

    with helping(host.path, answer) as helper:
        said = complaint(host, host.run())
        assert helper.went.wait(60)
    assert said.startswith((start.decode().strip() + " " + "x" * 250).strip())
    assert said.endswith(f"…{SEE}")


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


def _a_socket_that_nobody_listens_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _a_socket_of_datagrams(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_nothing, "No such file or directory"),
        (_a_file, "Connection refused"),
        (_a_directory, "Connection refused"),
        (_a_pipe, "Connection refused"),
        (_a_dangling_link, "No such file or directory"),
        (_a_socket_that_nobody_listens_at, "Connection refused"),
        (_a_socket_of_datagrams, "Connection refused"),
    ],
)
def test_where_nobody_can_be_asked_that_is_a_restart_that_failed(
    host: Host, make: Callable[[Path], None], why: str
) -> None:
    """It is counted and cools down, like any other."""
    make(host.path)
    assert complaint(host, host.run()) == f"{why}{NOBODY}"
    assert host.run(now=T + 60) == (
        0,
        "COOLDOWN: rpi3 exceeded threshold but in cooldown (540s remaining)\n",
        "",
    )


def test_a_socket_of_datagrams_that_is_open_is_of_the_wrong_kind(host: Host) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(host.path))
        assert complaint(host, host.run()) == f"Protocol wrong type for socket{NOBODY}"


def test_a_path_that_is_too_long_for_a_socket_is_one_line(host: Host) -> None:
    host.path = host.path.parent / ("n" * 120)
    said = complaint(host, host.run())
    assert said.endswith(NOBODY)
    assert "None" not in said


def test_a_path_that_is_empty_is_one_line(host: Host) -> None:
    ran = host.run("--restart-socket", "")
    assert len(complaints("watchdog", ran)) == 1
    assert (ran.status, ran.stdout, host.counted()) == (1, RESTART_LINE, (0, 1))


@pytest.mark.parametrize("start", [b"", b"done\n"])
def test_a_helper_that_hangs_is_given_up(
    box: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """Also one that has said `done` and does not hang up: what else it may say is not known. The bound is shortened here."""
    monkeypatch.setattr(systemd, "TIMEOUT_SECONDS", 0.3)
    release = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        release.wait(60)

    with helping(box / "s", answer) as helper:
        outcome = systemd.ask_for_restart(UNIT, str(box / "s"))
        release.set()
        assert helper.went.wait(60)
    assert outcome == Failed(
        f"asking for a restart of {UNIT} over {box}/s: timed out after 0.3 s{SEE}"
    )


def test_a_helper_that_dribbles_is_given_up(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on the whole, not on each piece."""
    monkeypatch.setattr(systemd, "TIMEOUT_SECONDS", 0.3)
    release = threading.Event()

    def answer(connection: socket.socket) -> None:
        while not release.wait(0.01):
            connection.sendall(b".")

    with helping(box / "s", answer):
        outcome = systemd.ask_for_restart(UNIT, str(box / "s"))
        release.set()
    assert outcome == Failed(
        f"asking for a restart of {UNIT} over {box}/s: timed out after 0.3 s{SEE}"
    )


def test_a_socket_at_which_all_wait_is_given_up(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody accepts, and no other connection fits into the queue."""
    monkeypatch.setattr(systemd, "TIMEOUT_SECONDS", 0.3)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(box / "s"))
        listener.listen(0)
        waiting.connect(str(box / "s"))
        outcome = systemd.ask_for_restart(UNIT, str(box / "s"))
    assert outcome == Failed(
        f"asking for a restart of {UNIT} over {box}/s: timed out after 0.3 s{SEE}"
    )


def test_a_restart_that_takes_long_is_waited_for(host: Host) -> None:
    """`--timeout` bounds a call to tailscaled, and a restart is none."""
    release = threading.Event()

    def answer(connection: socket.socket) -> None:
        release.wait(0.6)
        connection.sendall(b"done\n")

    with helping(host.path, answer):
        assert host.run("--timeout", "0.2") == (0, RESTART_LINE, "")
    assert host.counted() == (1, 0)


def test_the_cooldown_is_on_the_disk_before_anybody_is_asked(host: Host) -> None:
    seen: dict[str, str] = {}

    def answer(connection: socket.socket) -> None:
        seen.update({path.name: path.read_text() for path in host.state.iterdir()})
        connection.sendall(b"done\n")

    with helping(host.path, answer):
        assert host.run() == (0, RESTART_LINE, "")
    assert seen[".last_restart"] == f"{T}\n"
    assert decode(seen["state.json"].encode()).unwrap().attempts[-1].stage is Stage.ASKED


def test_a_run_that_is_ended_while_it_waits_is_one_line_and_the_next_counts_the_restart(
    host: Host,
) -> None:
    """Who was asked goes on, so it counts as done."""
    asked, release = threading.Event(), threading.Event()

    def answer(_: socket.socket) -> None:
        asked.set()
        release.wait(60)

    with helping(host.path, answer):
        with started(*host.options(), programs=host.programs) as process:
            wait_until(asked.is_set, "it asks")
            interrupt(process, signal.SIGTERM)
            assert ended(process) == (
                143,
                RESTART_LINE,
                "tsfc: ended by SIGTERM before it was done\n",
            )
        release.set()
    ran = host.run(now=T + 60)
    assert complaints("watchdog", ran) == [
        "the run that restarted tailscaled ended before it knew the outcome: counted as done"
    ]
    assert (ran.status, host.counted()) == (0, (1, 0))


def test_it_takes_no_systemctl(host: Host) -> None:
    """As in the sandbox of its unit."""
    with helping(host.path, says(b"done\n")):
        assert run(*host.options()) == (0, RESTART_LINE, "")
