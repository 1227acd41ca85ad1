"""The watchdog's restart by a helper: `--restart-socket`, against a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.processes import Forked, Ran, complaints, series, wait_until
from support.programs import calls, program
from support.statuses import encoded, peer
from tsfc.core.watchdog.events import Done, Failed
from tsfc.shell import systemd

T = 1_800_000_000


@contextmanager
def helping(path: Path, answer: bytes | None) -> Generator[list[bytes]]:
    """Answers each who connects, and closes; None answers nobody. Gives what was sent by whom, which is to be nothing."""
    received: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def help_all() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                if answer is not None:
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                received.append(connection.recv(100))

    thread = threading.Thread(target=help_all)
    thread.start()
    try:
        yield received
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def watch(box: Path, forks: Forked) -> Ran:
    """Runs a watchdog that has to restart, on a host with a `systemctl` that must not be called."""
    programs = box / "bin"
    programs.mkdir(exist_ok=True)
    program(programs, "systemctl")
    (box / "state").mkdir(exist_ok=True)
    (box / "state/peer_rpi3").write_text(f"{T - 650}\n")
    (box / "status.json").write_bytes(encoded(peer("rpi3", "derp")))
    options = ("--now", str(T), "--status-file", f"{box}/status.json", "--state-dir", f"{box}/state", "--metrics-path", f"{box}/a.prom")
    ran = forks.run("watchdog", *options, "--restart-socket", f"{box}/s", programs=programs)
    assert ran.stdout == "RESTART: rpi3 on relay for 650s, restarting tailscaled\n"
    assert calls(programs, "systemctl") == []
    return ran


def counted(box: Path) -> tuple[float, float]:
    exported = series((box / "a.prom").read_text())
    return exported["tailscale_watchdog_restarts_total"], exported["tailscale_watchdog_restart_failures_total"]


def test_a_restart_that_the_helper_did_counts(box: Path, forks: Forked) -> None:
    """To connect is to ask: nothing is sent."""
    with helping(box / "s", b"done\n") as received:
        ran = watch(box, forks)
        wait_until(lambda: received, "the helper has heard")
    assert (ran.status, ran.stderr, counted(box), received) == (0, "", (1, 0), [b""])


SAYS = {
    b"": "the connection was closed without an answer",
    b"Job for tailscaled.service failed.\nSee journalctl\n": "Job for tailscaled.service failed. See journalctl",
    b"done": "done",
    b"done\nand more": "done and more",
    b"\x1b[31mred\xff\n": "\ufffd[31mred\ufffd",
    b"x" * 2**20: "x" * 300 + "…",
}


@pytest.mark.parametrize("answer", SAYS)
def test_anything_but_done_is_a_failure_with_its_words_in_one_line(box: Path, forks: Forked, answer: bytes) -> None:
    with helping(box / "s", answer):
        ran = watch(box, forks)
    assert complaints("watchdog", ran) == [
        f"asking for a restart of tailscaled.service over {box}/s: {SAYS[answer]}; see `systemctl status tailscaled.service`"
    ]
    assert (ran.status, counted(box)) == (1, (0, 1))


@pytest.mark.parametrize(("there", "says"), [("nothing", "No such file or directory"), ("a file", "Connection refused"), ("a socket", "Connection refused")])
def test_where_nobody_helps_that_is_said(box: Path, forks: Forked, there: str, says: str) -> None:
    if there == "a file":
        (box / "s").touch()
    if there == "a socket":
        with socket.socket(socket.AF_UNIX) as nobodys:
            nobodys.bind(f"{box}/s")
    ran = watch(box, forks)
    (complaint,) = complaints("watchdog", ran)
    assert complaint.startswith(f"asking for a restart of tailscaled.service over {box}/s: {says}; see `systemctl status tailscale-watchdog-restart.socket`")
    assert (ran.status, counted(box)) == (1, (0, 1))


def test_a_helper_that_hangs_is_waited_for_no_longer_than_a_restart_may_take(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "TIMEOUT_SECONDS", 0.3)
    with helping(box / "s", None):
        outcome = systemd.ask_for_restart("tailscaled.service", f"{box}/s")
    assert outcome == Failed(f"asking for a restart of tailscaled.service over {box}/s: not done within 0.3 s; see `systemctl status tailscaled.service`")


def test_an_answer_in_pieces_is_one(box: Path) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            for piece in (b"do", b"ne", b"\n"):
                connection.sendall(piece)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{box}/s")
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        assert systemd.ask_for_restart("tailscaled.service", f"{box}/s") == Done()
        thread.join()
