"""A Dask cluster gives the same output as one machine, even if a worker dies."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import zstandard

from support.captures import hectic, text
from support.processes import ended, error_lines, run, started, wait_until


class Fleet(NamedTuple):
    """Processes of a Dask scheduler and its workers."""

    address: str
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def _process(*argv: str, directory: Path) -> Generator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3",
        "DASK_LOGGING__DISTRIBUTED": "warning",
    }
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *argv],
            stdout=subprocess.DEVNULL,
            stderr=log,
            env=environment,
            cwd=directory,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def fleet(box: Path) -> Generator[Fleet]:
    """Start a scheduler and two single-threaded workers on free loopback ports."""
    with ExitStack() as stack:
        file = box / "scheduler.json"
        common = ("--host", "127.0.0.1", "--no-dashboard")
        stack.enter_context(
            _process(
                "distributed.cli.dask_scheduler",
                *common,
                "--port",
                "0",
                "--scheduler-file",
                str(file),
                directory=box,
            )
        )
        wait_until(lambda: file.exists() and file.stat().st_size, "the scheduler listens")
        address = re.search(r'"address": "(tcp://127\.0\.0\.1:\d+)"', file.read_text())
        assert address
        options = (
            "--nthreads",
            "1",
            "--no-nanny",
            "--host",
            "127.0.0.1",
            "--no-dashboard",
            "--local-directory",
            str(box),
        )
        workers = [
            stack.enter_context(
                _process("distributed.cli.dask_worker", address[1], *options, directory=box)
            )
            for _ in range(2)
        ]
        yield Fleet(address[1], workers)


def test_a_replay_on_a_cluster_survives_the_death_of_a_worker(box: Path, fleet: Fleet) -> None:
    """One of two workers is killed after the first capture; the output is the same."""
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


def test_a_cluster_gives_the_distributions_that_one_machine_gives(fleet: Fleet) -> None:
    """There are so many seeds that a block has several."""
    command = ("simulate", "flapping", "--days", "0.2", "--runs", "130", "--format", "json")
    together = run(*command, "--cluster", fleet.address)
    assert (together.status, together.stderr) == (0, "")
    assert together.stdout == run(*command).stdout


def test_an_unreachable_cluster_is_one_line(box: Path) -> None:
    (box / "c").write_text(text(hectic(0)))
    ran = run("replay", f"{box}/c", "--cluster", "tcp://127.0.0.1:1")
    assert (ran.status, ran.stdout) == (1, "")
    assert len(error_lines("replay", ran)) == 1


# Captures at URLs


@pytest.mark.parametrize("name", ["c.ndjson", "c.ndjson.gz", "c.ndjson.zst"])
def test_a_capture_at_a_url_is_read_like_a_file(box: Path, name: str) -> None:
    """Its compression is detected; it can be inside an archive."""
    plain = text(hectic(0, length=2000)).encode()
    packs: dict[str, Callable[[bytes], bytes]] = {
        "c.ndjson": bytes,
        "c.ndjson.gz": gzip.compress,
        "c.ndjson.zst": zstandard.ZstdCompressor().compress,
    }
    pack = packs[name]
    (box / name).write_bytes(pack(plain))
    with zipfile.ZipFile(box / "all.zip", "w") as archive:
        archive.writestr(name, pack(plain))
    local = run("replay", str(box / name))
    assert local.status == 0
    for url in (f"file://{box}/{name}", f"zip://{name}::file://{box}/all.zip"):
        assert run("replay", url) == local


def test_urls_are_replayed_on_a_cluster(box: Path, fleet: Fleet) -> None:
    (box / "c").write_text(text(hectic(0)))
    together = run("replay", f"file://{box}/c", f"file://{box}/c", "--cluster", fleet.address)
    assert together == run("replay", f"file://{box}/c", f"file://{box}/c")
    assert together.status == 0


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///no/such/file", "FileNotFoundError"),
        ("nope://a/b", "Protocol not known"),
        ("s3://bucket/c.ndjson", "s3fs"),
        ("file:///", "IsADirectoryError"),
    ],
)
def test_an_unreadable_url_is_one_line(url: str, why: str) -> None:
    ran = run("replay", url)
    assert ran.status == 1
    (complaint,) = error_lines("replay", ran)
    assert complaint.startswith(f"reading {url}: ")
    assert why in complaint
    assert complaint.endswith("; give a readable capture")


def test_without_fsspec_one_line_says_what_to_install(box: Path) -> None:
    (box / "fsspec.py").write_text("raise ImportError('not here')\n")
    argv = [sys.executable, "-m", "tsfc", "replay", "s3://bucket/c"]
    ran = subprocess.run(
        argv, capture_output=True, text=True, env={"PYTHONPATH": str(box)}, check=False
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert (
        ran.stderr
        == "tsfc replay: reading s3://bucket/c: URLs need fsspec, which is not installed; install the extra 'fleet' of tsfc: docs/offline.md says how\n"
    )
