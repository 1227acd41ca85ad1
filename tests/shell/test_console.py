"""Standard output and standard error that accept nothing, or only later."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import PIPE_BUF

import pytest

from support.processes import DEADLINE_SECONDS, full_pipe, is_waiting, series, wait_until
from support.programs import calls, program
from support.statuses import encoded, peer
from tsfc.shell.console import PATIENCE_SECONDS

T = 1_800_000_000
DROPPED = (
    "tsfc: printing: {} lines were dropped, because their reader blocked for 1 s; "
    "check what reads the output\n"
)


@contextmanager
def _blocked_terminal() -> Generator[tuple[int, int]]:
    """Make a terminal whose output is stopped, as by Ctrl-S."""
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)
    try:
        yield ours, theirs
    finally:
        os.close(ours)
        os.close(theirs)


BLOCKED = {"a full pipe": full_pipe, "a stopped terminal": _blocked_terminal}


class Host:
    """A host whose peer `rpi3` is on relay for longer than the threshold."""

    def __init__(self, box: Path, programs: Path) -> None:
        self.box = box
        self.programs = programs
        program(programs, "systemctl")
        (box / "status.json").write_bytes(encoded(peer("rpi3", "derp")))
        (box / "state").mkdir()
        (box / "state" / "peer_rpi3").write_text(f"{T - 650}\n")

    def watchdog(
        self, *options: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
    ) -> tuple[int, bytes | None, bytes | None, float]:
        """Run the watchdog: its status, what it printed, and the seconds it needed."""
        command = (
            *(sys.executable, "-m", "tsfc", "watchdog", "--now", str(T)),
            *("--status-file", f"{self.box}/status.json", "--state-dir", f"{self.box}/state"),
            *("--metrics-path", f"{self.box}/a.prom", *options),
        )
        started = time.monotonic()
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=os.environ | {"PATH": str(self.programs)},
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr, time.monotonic() - started

    def restarts(self) -> float:
        """Return the counter in the metrics."""
        return series((self.box / "a.prom").read_text())["tailscale_watchdog_restarts_total"]


@pytest.fixture
def host(box: Path, programs: Path) -> Host:
    return Host(box, programs)


@pytest.mark.parametrize("kind", BLOCKED)
def test_a_standard_output_that_blocks_does_not_prevent_a_restart(host: Host, kind: str) -> None:
    with BLOCKED[kind]() as (_, writer):
        flags = fcntl.fcntl(writer, fcntl.F_GETFL)
        status, _, stderr, _ = host.watchdog(stdout=writer)
        assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags, "others share it"
    assert (status, stderr) == (0, DROPPED.format(1).encode())
    assert calls(host.programs, "systemctl") == ["restart tailscaled.service"]
    assert host.restarts() == 1


def test_streams_that_block_delay_a_restart_by_their_common_patience(host: Host) -> None:
    """One damaged file of the state is one line on standard error."""
    (host.box / "state" / ".detection_count").write_text("many\n")
    usual = _seconds_of_a_run(host)
    with full_pipe() as (_, writer):
        status, _, _, seconds = host.watchdog(stdout=writer, stderr=writer)
    assert status == 0
    assert calls(host.programs, "systemctl") == ["restart tailscaled.service"]
    assert seconds < usual + 2 * PATIENCE_SECONDS


def _seconds_of_a_run(host: Host) -> float:
    """Seconds of a dry run, which changes nothing."""
    return host.watchdog("--dry-run")[-1]


# The lines of one process, whose standard output is a pipe.


def _say(lines: str, stdout: int, *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    script = f"from tsfc.shell.console import STDOUT, print_dropped, say\n{lines}"
    return subprocess.Popen(
        [sys.executable, "-c", script], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
    )


def _read_all(reader: int) -> bytes:
    """Read what is in a pipe, without its filling."""
    os.set_blocking(reader, False)
    pieces: list[bytes] = []
    with suppress(BlockingIOError):
        while piece := os.read(reader, 2**16):
            pieces.append(piece)
    return b"".join(pieces).lstrip(b".")


def test_a_reader_that_is_late_gets_every_line() -> None:
    """A page of the pipe is free again before the patience ends."""
    with full_pipe() as (reader, writer):
        lines = (
            "import os; os.write(2, b'ready'); "
            "say(STDOUT, 'one'); say(STDOUT, 'two'); print_dropped()"
        )
        with _say(lines, writer) as process:
            assert process.stderr
            assert process.stderr.read(5) == b"ready"
            wait_until(lambda: is_waiting(process.pid), "it waits for the reader")
            os.read(reader, 2**16)
            assert process.communicate(timeout=DEADLINE_SECONDS)[1] == b""
        assert _read_all(reader) == b"one\ntwo\n"


def test_a_line_after_an_incomplete_one_begins_on_a_new_line() -> None:
    """The pipe has room for one of the three pieces of the first line."""
    lines = """
import os
say(STDOUT, "a" * 10_000)
os.write(2, b"said")
os.read(0, 1)
say(STDOUT, "two")
"""
    go, start = os.pipe()
    with full_pipe() as (reader, writer):
        os.read(reader, PIPE_BUF)
        with _say(lines, writer, stdin=go) as process:
            assert process.stderr
            assert process.stderr.read(4) == b"said"
            first = _read_all(reader)
            os.write(start, b"x")
            assert process.communicate(timeout=DEADLINE_SECONDS)[1] == b""
        assert first == b"a" * PIPE_BUF
        assert _read_all(reader) == b"\ntwo\n"
    os.close(go)
    os.close(start)


def test_a_line_longer_than_a_piece_is_complete() -> None:
    with _say('say(STDOUT, "a" * 10_000); print_dropped()', subprocess.PIPE) as process:
        assert process.communicate(timeout=DEADLINE_SECONDS) == (b"a" * 10_000 + b"\n", b"")


def test_data_that_was_asked_for_waits_for_its_reader(host: Host) -> None:
    """`tsfc exporter --metrics-path -`."""
    command = (
        *(sys.executable, "-m", "tsfc", "exporter", "--metrics-path", "-"),
        *("--status-file", f"{host.box}/status.json"),
    )
    with full_pipe() as (reader, writer):
        with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE) as process:
            try:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(2 * PATIENCE_SECONDS)
                os.set_blocking(reader, False)
                output = b""
                while process.poll() is None:
                    output += _read_all(reader)
            finally:
                process.kill()
        assert process.returncode == 0
        assert series((output + _read_all(reader)).decode())["tailscale_up"] == 1
