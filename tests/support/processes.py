"""tsfc as a process: run to its end, or started and stopped."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tsfc.cli import main as cli
from tsfc.shell import signals

DEADLINE_SECONDS = 60.0
"Timeout after which a test fails instead of hanging."
UNPRIVILEGED = (
    'exec /usr/bin/setpriv --bounding-set=-dac_override,-dac_read_search "$@"'
    if os.geteuid() == 0
    else 'exec "$@"'
)
"Shell command around a process: file permissions apply, even if root runs the tests."
NO_PROGRAMS = "/nonexistent"
"An empty PATH: no test may find the machine's own `systemctl` or `tailscale`."


class Completed(NamedTuple):
    """Result of a process that has ended."""

    status: int
    stdout: str
    stderr: str


def run(
    *arguments: str, programs: Path | None = None, stdin: bytes = b"", around: str | None = None
) -> Completed:
    """Run tsfc to its end.

    `programs` is its PATH. `around` is a shell command that runs it as `"$@"`.
    """
    command = _argv(arguments, around)
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        env=_environment(programs),
        timeout=DEADLINE_SECONDS,
        check=False,
        cwd="/",
    )
    return Completed(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def started(
    *arguments: str, programs: Path | None = None, around: str | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """Start tsfc; when the block ends, kill it if it still runs."""
    command = _argv(arguments, around)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(programs),
        cwd="/",
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes], *, within: float = DEADLINE_SECONDS) -> Completed:
    """Wait until a started process has ended."""
    stdout, stderr = process.communicate(timeout=within)
    return Completed(process.returncode, stdout.decode(), stderr.decode())


def inside(*arguments: str) -> int:
    """Run tsfc in this process, for tests that patch it; return its exit status."""
    handlers = {number: signal.getsignal(number) for number in signals.ENDING}
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def error_lines(job: str, ran: Completed) -> list[str]:
    """Return the errors that a run printed.

    Standard error must have nothing but printable lines that name the job.
    """
    prefix = f"tsfc {job}: "
    *lines, rest = ran.stderr.split("\n")
    assert rest == "", ran.stderr
    assert all(line.startswith(prefix) and line.isprintable() for line in lines), ran.stderr
    return [line.removeprefix(prefix) for line in lines]


def series(exposition: str) -> dict[str, float]:
    """Return the value of each series of an exposition, by the series as written.

    prometheus_client must parse the text, and no series may be there twice.
    """
    assert exposition == "" or exposition.endswith("\n")
    list(text_string_to_metric_families(exposition))
    rows = [
        line.rpartition(" ") for line in exposition.split("\n") if line and not line.startswith("#")
    ]
    values = {left: float(right) for left, _, right in rows}
    assert len(values) == len(rows), "two samples of one series"
    return values


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Wait for a condition; fail after `DEADLINE_SECONDS`."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)


def interrupt(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal while the process is blocked in a system call.

    A signal that arrives between Python's check for signals and that system call would
    be handled only after the call.
    """
    wait_until(lambda: is_waiting(process.pid), "it waits")
    process.send_signal(number)


def is_waiting(pid: int) -> bool:
    """Whether a process is blocked in a system call that a signal can interrupt."""
    return _state(pid) == "S"


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return _state(pid) not in {"", "Z", "X"}


@contextmanager
def noted_processes(box: Path) -> Generator[Path]:
    """Make a file in which scripts log their process IDs; kill them at the end."""
    pid_file = box / "pids"
    pid_file.touch()
    try:
        yield pid_file
    finally:
        for pid in pids_in(pid_file):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def pids_in(pid_file: Path) -> list[int]:
    """Return the process IDs that scripts have logged."""
    return [int(pid) for pid in pid_file.read_text().split()]


def have_ended(pid_file: Path) -> bool:
    """Whether scripts have logged their process IDs, and all of them have ended."""
    pids = pids_in(pid_file)
    return bool(pids) and not any(is_alive(pid) for pid in pids)


@contextmanager
def short_directory() -> Generator[Path]:
    """Make a directory with a path short enough for a socket (108 bytes); remove it."""
    directory = Path(tempfile.mkdtemp(prefix="tsfc-", dir="/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def tree(directory: Path) -> dict[str, bytes | None]:
    """Return the contents of all files below a directory by path.

    None stands for anything that is not a regular file.
    """
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


class Forked:
    """Runs of tsfc that are forked from one process (`forked.py`).

    That is ten times as fast as a start, and a run can be killed at any step.
    """

    def __init__(self, server: subprocess.Popen[str], directory: Path) -> None:
        self._server = server
        self._out, self._err = directory / "stdout", directory / "stderr"

    def run(
        self,
        *arguments: str,
        programs: Path | None = None,
        kill_at: int | None = None,
        fail_at: int | None = None,
        keeps_failing: bool = False,
        log: Path | None = None,
    ) -> Completed:
        """Run tsfc to its end, or kill it at step `kill_at`; log its steps to `log`.

        Step `fail_at` fails with an input/output error, and all later ones, too, if it
        `keeps_failing`.
        """
        order = {
            "arguments": arguments,
            "path": str(programs or NO_PROGRAMS),
            "stdout": str(self._out),
            "stderr": str(self._err),
            "kill_at": kill_at,
            "fail_at": fail_at,
            "keeps_failing": keeps_failing,
            "log": None if log is None else str(log),
        }
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return Completed(
            int(self._server.stdout.readline()), self._out.read_text(), self._err.read_text()
        )


@contextmanager
def forked() -> Generator[Forked]:
    """Start the process from which runs are forked."""
    script = Path(__file__).parent.parent / "shell" / "forked.py"
    with (
        short_directory() as directory,
        subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        try:
            yield Forked(server, directory)
        finally:
            server.kill()


@contextmanager
def full_pipe() -> Generator[tuple[int, int]]:
    """Make a pipe that accepts no byte more; yield its reader and its writer."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, b"." * select.PIPE_BUF)
        os.set_blocking(writer, True)
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def _argv(arguments: Sequence[str], around: str | None) -> list[str]:
    shell = [] if around is None else ["/bin/sh", "-c", around, "sh"]
    return [*shell, sys.executable, "-m", "tsfc", *arguments]


def _state(pid: int) -> str:
    """Return the state letter of a process (proc(5)); empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _environment(programs: Path | None) -> dict[str, str]:
    return os.environ | {"PATH": str(programs or NO_PROGRAMS)}
