"""A Dask cluster gives what one machine gives, to the byte, also when a worker dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from support.captures import hectic, text
from support.processes import complaints, ended, run, started, wait_until


class Fleet(NamedTuple):
    """A scheduler and its workers, each a process."""

    address: str
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def _process(*argv: str, directory: Path) -> Generator[subprocess.Popen[bytes]]:
    environment = os.environ | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3", "DASK_LOGGING__DISTRIBUTED": "warning"}
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", *argv], stdout=subprocess.DEVNULL, stderr=log, env=environment, cwd=directory)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def fleet(box: Path) -> Generator[Fleet]:
    """Two workers of one thread each, on loopback, at ports that are free."""
    with ExitStack() as stack:
        file = box / "scheduler.json"
        common = ("--host", "127.0.0.1", "--no-dashboard")
        stack.enter_context(_process("distributed.cli.dask_scheduler", *common, "--port", "0", "--scheduler-file", str(file), directory=box))
        wait_until(lambda: file.exists() and file.stat().st_size, "the scheduler listens")
        address = re.search(r'"address": "(tcp://127\.0\.0\.1:\d+)"', file.read_text())
        assert address
        options = ("--nthreads", "1", "--no-nanny", "--host", "127.0.0.1", "--no-dashboard", "--local-directory", str(box))
        workers = [stack.enter_context(_process("distributed.cli.dask_worker", address[1], *options, directory=box)) for _ in range(2)]
        yield Fleet(address[1], workers)


def test_captures_are_replayed_on_a_cluster_and_a_worker_dies(box: Path, fleet: Fleet) -> None:
    """One of the two is killed as soon as the first capture is done; what comes out is what one machine says."""
    captures = [str(box / f"{number}.ndjson") for number in range(12)]
    hectic_text = text(hectic(0, length=6000))
    for number, capture in enumerate(captures):
        Path(capture).write_text(text(hectic(number, length=100)) + hectic_text)
    alone = run("replay", *captures)
    with started("replay", *captures, "--cluster", fleet.address) as process:
        assert process.stdout
        first = os.read(process.stdout.fileno(), 1)
        fleet.workers[0].send_signal(signal.SIGKILL)
        together = ended(process)
    assert (together.status, together.stderr) == (0, "")
    assert first.decode() + together.stdout == alone.stdout
    assert fleet.workers[0].wait() == -signal.SIGKILL


def test_seeds_are_simulated_on_a_cluster(fleet: Fleet) -> None:
    """Blocks of seeds, and the same distributions."""
    command = ("simulate", "flapping", "--days", "0.2", "--runs", "6", "--format", "json")
    together = run(*command, "--cluster", fleet.address)
    assert (together.status, together.stderr) == (0, "")
    assert together.stdout == run(*command).stdout


def test_a_cluster_that_is_not_there_is_one_line(box: Path) -> None:
    (box / "c").write_text(text(hectic(0)))
    ran = run("replay", f"{box}/c", "--cluster", "tcp://127.0.0.1:1")
    assert (ran.status, ran.stdout) == (1, "")
    assert len(complaints("replay", ran)) == 1
