"""The lines of each job in the journal."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tsfc.agent import journal
from tsfc.agent.agent import Agent
from tsfc.agent.journal import Journal
from tsfc.shell.host import Host
from tsfc.shell.system import System
from tsfc.shell.tailscaled.observe import RunOptions

HEAD = b"tailscale-watchdog\n\n5\n0\n0\n0\n0\n"


@pytest.fixture
def journald(box: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket in the place of journald's."""
    monkeypatch.setattr(journal, "JOURNAL", f"{box}/stdout")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{box}/stdout")
        listener.listen()
        listener.settimeout(60)
        yield listener


def received(
    journald: socket.socket, write: Callable[[Host], None], instance: str | None = None
) -> bytes:
    """What journald gets from a job of an agent under systemd."""
    agent = Agent((), System("agent", RunOptions()), instance=instance)
    with closing(agent._loop):
        host = agent._hosted(System("watchdog", RunOptions()))
        write(host)
        assert host.journal
        host.journal.close()
    accepted, _ = journald.accept()
    with accepted, accepted.makefile("rb") as stream:
        return stream.read()


@pytest.mark.parametrize(("instance", "end"), [(None, ""), ("work", "-work")])
def test_a_job_has_the_identifier_of_its_unit(
    journald: socket.socket, monkeypatch: pytest.MonkeyPatch, instance: str | None, end: str
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    got = received(journald, lambda host: host.log("RESTART: a"), instance)
    assert got.startswith(f"tailscale-watchdog{end}\n".encode())


def test_a_warning_is_one_printable_line(
    journald: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths can have any bytes."""
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    got = received(journald, lambda host: host.warn("writing /a\nb\ud800: denied"))
    line = "tsfc watchdog: writing /a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}: denied\n"
    assert got == HEAD + line.encode()


def test_lines_follow_the_head_of_their_stream(journald: socket.socket) -> None:
    stream = Journal("tailscale-watchdog")
    assert stream.write("RESTART: a\u2028b")
    assert stream.write("WAITING: c")
    stream.close()
    accepted, _ = journald.accept()
    with accepted, accepted.makefile("rb") as received:
        assert received.read() == HEAD + "RESTART: a\u2028b\nWAITING: c\n".encode()


def test_a_restarted_journald_gets_the_lines_after_the_first(journald: socket.socket) -> None:
    stream = Journal("tailscale-watchdog")
    assert stream.write("first")
    journald.accept()[0].close()
    assert not stream.write("lost, so the caller prints it")
    assert stream.write("second")
    stream.close()
    accepted, _ = journald.accept()
    with accepted, accepted.makefile("rb") as received:
        assert received.read() == HEAD + b"second\n"


def test_a_journald_that_does_not_read_blocks_nobody(journald: socket.socket) -> None:
    stream = Journal("tailscale-watchdog")
    while not stream.dropped:
        assert stream.write("x" * 1000)
    accepted, _ = journald.accept()
    stream.close()
    with accepted, accepted.makefile("rb") as received:
        *lines, _ = received.read().removeprefix(HEAD).split(b"\n")
    assert set(lines) == {b"x" * 1000}


def test_without_a_journald_the_caller_learns_it(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "JOURNAL", f"{box}/stdout")
    assert not Journal("tailscale-watchdog").write("line")
