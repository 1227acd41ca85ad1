"""`tsfc watchdog --notify-exec` and `--notify-socket`: people are told what is new."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from shell.test_watchdog import Host, T
from support.processes import Forked
from support.programs import calls, program
from support.statuses import encoded, peer
from tsfc.core.watchdog.notices import Notice
from tsfc.shell import notifier, waiting

NEWS = (Notice(T, "RESTART", "RESTART: rpi3 on relay for 601s, restarting tailscaled"),)
DERP, DIRECT = encoded(peer("rpi3", "derp")), encoded(peer("rpi3", "direct"))


def told(box: Path) -> list[list[str]]:
    """The lines that each start of the program was told."""
    files = sorted(box.glob("told.*"), key=lambda file: int(file.suffix[1:]))
    return [[json.loads(line)["line"] for line in file.read_text().splitlines()] for file in files]


@pytest.fixture
def keeper(box: Path) -> Path:
    """A program that keeps what it reads, in a file for each of its starts."""
    log = box / "told"
    return program(box, "notify", f"cat > {log}.$(ls {log}.* 2>/dev/null | wc -l)")


def test_each_run_with_news_starts_the_program_once(box: Path, forks: Forked, keeper: Path) -> None:
    host = Host(box, forks)
    options = ("--notify-exec", str(keeper))
    host.set_status(DERP)
    host.run(*options, now=T - 601)
    host.run(*options, now=T - 300)
    host.run(*options, now=T)
    host.set_status(DIRECT)
    host.run(*options, now=T + 60)
    assert told(box) == [
        ["DETECTED: rpi3 transitioned to relay"],
        ["RESTART: rpi3 on relay for 601s, restarting tailscaled"],
        ["RECOVERED: rpi3 back to direct"],
    ]


def test_the_program_starts_after_the_restart(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    restarts = host.programs / "systemctl.calls"
    notifier = program(box, "notify", f"test -s {restarts} && echo after >> {box}/order")
    host.set_status(DERP)
    host.run(now=T - 601)
    assert host.run("--notify-exec", str(notifier), now=T).stderr == ""
    assert (box / "order").read_text() == "after\n"


def test_a_dry_run_notifies_nobody(box: Path, forks: Forked, keeper: Path) -> None:
    host = Host(box, forks)
    host.set_status(DERP)
    host.run("--dry-run", "--notify-exec", str(keeper))
    assert calls(box, "notify") == []


def test_a_program_that_fails_is_one_line(box: Path, forks: Forked) -> None:
    host, notifier = Host(box, forks), program(box, "notify", "echo no route >&2; exit 3")
    ran = host.run("--notify-exec", str(notifier))
    assert ran.status == 0
    assert ran.stderr == (
        f"tsfc watchdog: notifying with {notifier}: exit status 3: no route; "
        "run it by hand for details\n"
    )


def test_a_program_that_hangs_is_ended(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "TIMEOUT_SECONDS", 0.2)
    hangs = program(box, "notify", "exec sleep 1000")
    assert waiting.run(notifier.notify(notifier.Program(str(hangs)), NEWS)) == (
        f"notifying with {hangs}: it was ended after 0.2 s; make it quicker"
    )


def test_a_program_that_is_not_there_is_one_line(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.set_status(DERP)
    ran = host.run("--notify-exec", "/nonexistent")
    assert ran.status == 0
    assert ran.stderr == (
        "tsfc watchdog: notifying with /nonexistent: No such file or directory; "
        "correct --notify-exec\n"
    )


def test_the_news_can_go_to_a_socket(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{box}/notify.sock")
        listener.listen()
        assert host.run("--notify-socket", f"{box}/notify.sock").stderr == ""
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            assert [json.loads(line)["kind"] for line in lines] == ["DETECTED"]


def test_a_socket_that_is_not_there_is_one_line(box: Path, forks: Forked) -> None:
    ran = Host(box, forks).run("--notify-socket", "/nonexistent")
    assert ran.status == 0
    assert ran.stderr == (
        "tsfc watchdog: notifying with /nonexistent: No such file or directory; "
        "is the socket unit started?\n"
    )


def test_a_path_that_is_too_long_for_a_socket_is_one_line() -> None:
    problem = waiting.run(notifier.notify(notifier.Listener(f"/{'x' * 200}"), NEWS))
    assert problem is not None
    assert problem.endswith(": AF_UNIX path too long; is the socket unit started?")


def test_a_socket_that_takes_nothing_is_left(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "TIMEOUT_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{box}/notify.sock")
        listener.listen()
        target = notifier.Listener(f"{box}/notify.sock")
        problem = waiting.run(notifier.notify(target, NEWS * 100_000))
    assert problem is not None
    assert "not taken within 0.2 s" in problem


def test_a_program_that_reads_nothing_does_not_block(box: Path, forks: Forked) -> None:
    """The news of 1,000 peers are larger than a pipe holds."""
    host, notifier = Host(box, forks), program(box, "notify")
    host.set_status(encoded(*(peer(f"peer{number}", "derp") for number in range(1000))))
    assert host.run("--notify-exec", str(notifier)).stderr == ""
    assert len(calls(box, "notify")) == 1
