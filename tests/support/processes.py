"""tsfc as processes: run to their end, or started and ended by their own id."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tsfc.cli import main as cli
from tsfc.shell import signals

DEADLINE_SECONDS = 60.0
"For whatever ought to happen, and does at once: past it a test fails instead of hanging."
UNPRIVILEGED = (
    'exec /usr/bin/setpriv --bounding-set=-dac_override,-dac_read_search "$@"'
    if os.geteuid() == 0
    else 'exec "$@"'
)
"Around a process: the rights of a file hold for it, also where root runs the tests."
NO_PROGRAMS = "/nonexistent"
"A PATH with nothing on it: no test may find the machine's own `systemctl` or `tailscale`."


class Ran(NamedTuple):
    """A process that has ended."""

    status: int
    stdout: str
    stderr: str


def run(
    *arguments: str, programs: Path | None = None, stdin: bytes = b"", around: str | None = None
) -> Ran:
    """Runs tsfc to its end; `programs` is its PATH, `around` a shell's command line around it, which it is as `"$@"`."""
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
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def started(
    *arguments: str, programs: Path | None = None, around: str | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """Starts tsfc, and kills it where it still runs when the block is left."""
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


def ended(process: subprocess.Popen[bytes], *, within: float = DEADLINE_SECONDS) -> Ran:
    """Waits for the end of what was started."""
    stdout, stderr = process.communicate(timeout=within)
    return Ran(process.returncode, stdout.decode(), stderr.decode())


def inside(*arguments: str) -> int:
    """Runs tsfc in this very process, for what cannot be had from outside, and returns its exit status."""
    handlers = {number: signal.getsignal(number) for number in signals.ENDING}
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def complaints(job: str, ran: Ran) -> list[str]:
    """Returns what a run complained about: printable lines that name the job, and nothing else on standard error."""
    prefix = f"tsfc {job}: "
    *lines, rest = ran.stderr.split("\n")
    assert rest == "", ran.stderr
    assert all(line.startswith(prefix) and line.isprintable() for line in lines), ran.stderr
    return [line.removeprefix(prefix) for line in lines]


def series(exposition: str) -> dict[str, float]:
    """Returns each series' value by the series as it is written, of a text that prometheus_client reads and that has none twice."""
    assert exposition == "" or exposition.endswith("\n")
    list(text_string_to_metric_families(exposition))
    found = [
        line.rpartition(" ") for line in exposition.split("\n") if line and not line.startswith("#")
    ]
    values = {left: float(right) for left, _, right in found}
    assert len(values) == len(found), "two samples of one series"
    return values


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Waits for a condition."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)


def interrupt(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends a signal once the process waits for something.

    Between Python's last look at the signals and the system call that waits there is a moment in which a signal is noted
    and wakes nobody: the run would end when its wait does.
    """
    wait_until(lambda: _state(process.pid) == "S", "it waits")
    process.send_signal(number)


def is_alive(pid: int) -> bool:
    """Reports whether a process runs; one that has ended and was not reaped by its parent does not."""
    return _state(pid) not in {"", "Z", "X"}


@contextmanager
def noted_processes(box: Path) -> Generator[Path]:
    """Gives a file for scripts to note their process ids in, and kills what is left of them."""
    noted = box / "pids"
    noted.touch()
    try:
        yield noted
    finally:
        for pid in pids_in(noted):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def pids_in(noted: Path) -> list[int]:
    """Returns the process ids that scripts have noted."""
    return [int(pid) for pid in noted.read_text().split()]


def have_ended(noted: Path) -> bool:
    """Reports whether there were processes that noted themselves, and all have ended."""
    pids = pids_in(noted)
    return bool(pids) and not any(is_alive(pid) for pid in pids)


@contextmanager
def short_directory() -> Generator[Path]:
    """Makes a directory whose path is short enough for a socket in it (108 bytes), and removes it."""
    directory = Path(tempfile.mkdtemp(prefix="tsfc-", dir="/tmp"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def tree(directory: Path) -> dict[str, bytes | None]:
    """Returns what is in a directory: each regular file's content by its path, None for whatever is no regular file."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


class Forked:
    """Runs of tsfc that are forked from one process: ten times as fast as a start, and each can be killed at a step (`forked.py`)."""

    def __init__(self, server: subprocess.Popen[str], directory: Path) -> None:
        self._server = server
        self._out, self._err = directory / "stdout", directory / "stderr"

    def run(
        self,
        *arguments: str,
        programs: Path | None = None,
        kill_at: int | None = None,
        log: Path | None = None,
    ) -> Ran:
        """Runs tsfc to its end, or to its kill at a step; writes its steps into `log`."""
        order = {
            "arguments": arguments,
            "path": str(programs or NO_PROGRAMS),
            "stdout": str(self._out),
            "stderr": str(self._err),
            "kill_at": kill_at,
            "log": None if log is None else str(log),
        }
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return Ran(
            int(self._server.stdout.readline()), self._out.read_text(), self._err.read_text()
        )


@contextmanager
def forked() -> Generator[Forked]:
    """Starts the process from which runs are forked."""
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


def _argv(arguments: Sequence[str], around: str | None) -> list[str]:
    shell = [] if around is None else ["/bin/sh", "-c", around, "sh"]
    return [*shell, sys.executable, "-m", "tsfc", *arguments]


def _state(pid: int) -> str:
    """Returns the letter that Linux has for what a process does; nothing where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _environment(programs: Path | None) -> dict[str, str]:
    return os.environ | {"PATH": str(programs or NO_PROGRAMS)}
