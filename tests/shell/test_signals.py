"""A signal ends every command at once, wherever it arrives, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.captures import hectic, text
from support.processes import (
    DEADLINE_SECONDS,
    Completed,
    Forked,
    ended,
    full_pipe,
    have_ended,
    inside,
    interrupt,
    noted_processes,
    pids_in,
    started,
    wait_until,
)
from support.programs import program
from support.random_signals import CASES, machine, soak
from support.servers import serving, tailscaled
from support.statuses import encoded, peer
from tsfc.shell import signals

SOON_SECONDS = 10.0
"Much longer than `LONGEST_WAIT_SECONDS`, much shorter than the waits below."
ENDED = "tsfc: ended by SIGTERM before it was done\n"


def _script(lines: str) -> Completed:
    """Run a Python script that has installed the handlers."""
    command = [
        sys.executable,
        "-c",
        f"import os, signal\nfrom tsfc.shell import signals\nsignals.install()\n{lines}",
    ]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_SECONDS, check=False)
    return Completed(done.returncode, done.stdout.decode(), done.stderr.decode())


KILL_ITSELF = "os.kill(os.getpid(), signal.SIGTERM)"


def test_a_signal_in_code_that_swallows_exceptions_ends_the_process() -> None:
    """Python prints and drops an exception of a weakref callback."""
    lines = f"""
import weakref
class Thing: pass
thing = Thing()
reference = weakref.ref(thing, lambda _: {KILL_ITSELF})
del thing
print("it continues", flush=True)
"""
    assert _script(lines) == (143, "", ENDED)


def test_a_signal_in_a_deep_recursion_ends_the_process() -> None:
    """The handler has few frames left, or none."""
    lines = f"""
def dig():
    try:
        dig()
    except RecursionError:
        {KILL_ITSELF}
dig()
print("it continues", flush=True)
"""
    ran = _script(lines)
    assert (ran.status, ran.stdout, "Traceback" in ran.stderr) == (143, "", False)


@pytest.mark.parametrize("number", signals.ENDING, ids=lambda number: number.name)
def test_each_of_the_signals_ends_the_process(number: signal.Signals) -> None:
    ran = _script(f"os.kill(os.getpid(), {number.value})")
    line = f"tsfc: ended by {number.name} before it was done\n"
    assert ran == (128 + number, "", line)


@pytest.mark.parametrize("action", ["install", "install_for_server", "restore_defaults"])
def test_an_ignored_signal_stays_ignored(action: str) -> None:
    lines = f"""
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signals.{action}()
os.kill(os.getpid(), signal.SIGHUP)
print("it continues", flush=True)
"""
    assert _script(lines) == (0, "it continues\n", "")


def test_a_signal_undoes_what_is_not_complete_the_last_step_first() -> None:
    lines = f"""
from functools import partial
def fail(): raise OSError
with signals.cleaning_up(partial(print, "complete", flush=True)): pass
with signals.cleaning_up(partial(print, "first", flush=True)), signals.cleaning_up(fail):
    with signals.cleaning_up(partial(print, "second", flush=True)):
        {KILL_ITSELF}
"""
    assert _script(lines) == (143, "second\nfirst\n", ENDED)


def test_a_deferred_signal_ends_the_process_after_the_block() -> None:
    lines = f"""
with signals.deferred():
    {KILL_ITSELF}
    print("the block", flush=True)
print("it continues", flush=True)
"""
    assert _script(lines) == (143, "the block\n", ENDED)


def test_an_inner_block_that_ends_does_not_end_the_outer_one() -> None:
    lines = f"""
with signals.deferred():
    with signals.deferred():
        {KILL_ITSELF}
    print("the outer block", flush=True)
print("it continues", flush=True)
"""
    assert _script(lines) == (143, "the outer block\n", ENDED)


@pytest.mark.parametrize(
    "block", ["signals.deferred()", f"signals.cleaning_up(lambda: {KILL_ITSELF})"]
)
def test_a_second_signal_ends_the_process_at_once(block: str) -> None:
    """Neither a block that defers signals nor a clean-up makes the process deaf."""
    lines = f"""
with {block}:
    {KILL_ITSELF}
    {KILL_ITSELF}
    print("it continues", flush=True)
"""
    assert _script(lines) == (-signal.SIGTERM, "", "")


def test_two_signals_at_once_end_the_process_even_if_they_are_deferred() -> None:
    """Python calls both handlers one after the other."""
    lines = """
both = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, both)
for number in both: os.kill(os.getpid(), number)
with signals.deferred():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    print("it continues", flush=True)
"""
    assert _script(lines) == (-signal.SIGTERM, "", "")


def test_a_fork_leaves_the_clean_up_to_its_parent() -> None:
    lines = f"""
with signals.cleaning_up(lambda: print("cleaned up", flush=True)):
    child = os.fork()
    if child == 0:
        {KILL_ITSELF}
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
    assert _script(lines) == (0, "-15\n", "")


def test_a_signal_removes_a_temporary_file(box: Path) -> None:
    (box / "a").write_text("old")
    lines = f"""
from tsfc.shell.atomic import atomic_write
with atomic_write("{box}/a", "{box}/.tmp", 0o644) as descriptor:
    os.write(descriptor, b"new")
    {KILL_ITSELF}
"""
    assert _script(lines).status == 143
    assert [(path.name, path.read_text()) for path in box.iterdir()] == [("a", "old")]


def test_a_signal_while_a_child_is_reaped_prints_no_traceback() -> None:
    """`Popen.wait` has reaped the child, and does not know its status yet."""
    lines = f"""
import subprocess
from tsfc.shell import program
with program.ended_children() as children:
    child = program.start(["/bin/sh", "-c", "exit"], children, stderr=subprocess.DEVNULL)
    os.waitpid(child.pid, 0)
    {KILL_ITSELF}
"""
    assert _script(lines) == (143, "", ENDED)


def test_a_signal_during_the_wait_for_a_child_terminates_the_child(box: Path) -> None:
    """`Popen.wait` holds a lock when the handler interrupts it."""
    with noted_processes(box) as pid_file:
        lines = f"""
import subprocess
from tsfc.shell import program
with program.ended_children() as children:
    command = "echo $$ >> {pid_file}; kill -TERM $PPID; exec sleep 300"
    program.start(["/bin/sh", "-c", command], children, stderr=subprocess.DEVNULL).wait()
"""
        assert _script(lines) == (143, "", ENDED)
        wait_until(lambda: have_ended(pid_file), "the child has ended")


def test_a_full_pipe_at_standard_error_does_not_keep_the_process_alive(box: Path) -> None:
    """The last line is left out if nobody reads it."""
    with full_pipe() as (_, writer), serving(box / "s", lambda _: None) as server:
        command = [*(sys.executable, "-m", "tsfc", "exporter", "--socket", str(box / "s"))]
        with subprocess.Popen(command, stderr=writer) as process:
            try:
                wait_until(lambda: server.requests, "the job waits for a response")
                process.send_signal(signal.SIGTERM)
                assert process.wait(SOON_SECONDS) == 143
            finally:
                process.kill()


ARGUMENTS = {
    "exporter": (),
    "native-metrics": (),
    "keepalive": (),
    "watchdog": ("--socket=/nonexistent",),
    "peers": (),
    "explain": ("a",),
    "units": ("--print",),
    "capture": ("--output=-",),
    "replay": ("/nonexistent",),
    "simulate": ("--list",),
    "stand-in": ("--capture=/nonexistent", "--socket=/nonexistent"),
}


class _Installed(Exception):  # noqa: N818 - it is no error
    """A command has installed the handlers."""


@pytest.mark.parametrize("command", ARGUMENTS)
def test_every_command_handles_signals_before_it_does_anything(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    def note() -> None:
        raise _Installed

    monkeypatch.setattr(signals, "install", note)
    monkeypatch.setattr(signals, "install_for_server", note)
    with pytest.raises(_Installed):
        inside(command, *ARGUMENTS[command])
    assert capfd.readouterr() == ("", "")


def test_before_that_sigint_has_its_default_action() -> None:
    """Python's own action would print a traceback."""
    lines = """
import signal, sys
from tsfc.__main__ import entry
class Importing:
    def find_spec(self, name, *_):
        if name == "tsfc.cli": signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Importing())
entry()
"""
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


# A signal can arrive after Python's check for signals and before the system call that waits.
# It is the same for a process whose main thread blocks the signals: the kernel gives them to
# another thread, and interrupts no system call of the main thread.
UNINTERRUPTED = """
import signal, threading
from tsfc.__main__ import entry
blocked = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
def wait():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
    threading.Event().wait()
signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
threading.Thread(target=wait, daemon=True).start()
entry()
"""


@contextmanager
def _uninterrupted(*arguments: str, path: Path) -> Generator[subprocess.Popen[bytes]]:
    """Start tsfc so that signals interrupt none of its system calls."""
    with subprocess.Popen(
        [sys.executable, "-c", UNINTERRUPTED, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PATH": str(path)},
        cwd="/",
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("job", ["exporter", "keepalive"])
def test_a_signal_that_interrupts_no_system_call_ends_a_job_soon(box: Path, job: str) -> None:
    """The exporter waits for one response, keepalive for many."""
    with serving(
        box / "s",
        tailscaled(encoded(peer("a", "derp")), lambda _: None)
        if job == "keepalive"
        else lambda _: None,
    ) as server:
        timeout = ("--ping-timeout=300",) if job == "keepalive" else ("--timeout=300",)
        options = (f"--socket={box}/s", f"--metrics-path={box}/a.prom", *timeout)
        number = 2 if job == "keepalive" else 1
        with _uninterrupted(job, *options, path=box) as process:
            wait_until(lambda: len(server.requests) == number, "the job waits for a response")
            interrupt(process, signal.SIGTERM)
            assert ended(process, within=SOON_SECONDS) == (143, "", ENDED)


def test_a_signal_that_interrupts_no_system_call_ends_the_wait_for_a_program(
    box: Path, programs: Path
) -> None:
    with noted_processes(box) as pid_file:
        program(programs, "tailscale", f"echo $$ >> {pid_file}; exec sleep 300")
        options = ("--source=cli", "--timeout=300", f"--metrics-path={box}/a.prom")
        with _uninterrupted("exporter", *options, path=programs) as process:
            wait_until(lambda: pids_in(pid_file), "the program runs")
            interrupt(process, signal.SIGTERM)
            assert ended(process, within=SOON_SECONDS) == (143, "", ENDED)
        wait_until(lambda: have_ended(pid_file), "the program has ended")


@pytest.mark.parametrize("command", ["capture", "peers", "stand-in"])
def test_a_signal_that_interrupts_no_system_call_ends_a_command_that_waits(
    box: Path, command: str
) -> None:
    (box / "status.json").write_bytes(encoded(peer("a")))
    status = f"--status-file={box}/status.json"
    (box / "c").write_text(text(hectic(1, 3)))
    arguments, line = {
        "capture": (("--output=-", "--interval=1h", status), b'{"captured_at"'),
        "peers": (("--watch=300", status), b"self"),
        "stand-in": ((f"--capture={box}/c", f"--socket={box}/s"), b"playing "),
    }[command]
    with _uninterrupted(command, *arguments, path=box) as process:
        assert process.stdout
        assert process.stdout.readline().startswith(line)
        interrupt(process, signal.SIGTERM)
        ran = ended(process, within=SOON_SECONDS)
    assert (ran.status, re.sub("(?m)^tsfc peers: .*\n", "", ran.stderr)) == (
        (0, "") if command == "stand-in" else (143, ENDED)
    )
    assert not (box / "s").exists()


def test_workers_end_with_their_parent_even_if_it_is_killed(box: Path) -> None:
    """Their captures are named pipes that never end."""
    fifos = [box / f"f{number}" for number in range(2)]
    for fifo in fifos:
        os.mkfifo(fifo)
    with started("replay", *map(str, fifos)) as process:
        writers = [os.open(fifo, os.O_WRONLY) for fifo in fifos]  # open() waits for the reader
        process.kill()
        try:
            ended(process, within=SOON_SECONDS)  # until no worker has its standard output
        finally:
            for writer in writers:  # which ends the workers in any case
                os.close(writer)


@pytest.mark.parametrize(("job", "source"), CASES)
def test_random_signals_at_random_moments_leave_nothing(
    box: Path, forks: Forked, job: str, source: str
) -> None:
    """`make soak` sends many more."""
    with machine(box, forks, job, source) as host:
        soak(host, 20, seed=1, second=0.0, say=print)
