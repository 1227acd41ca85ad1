"""Only regular files of a limited size are read; all others are refused at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from returns.result import Failure, Success

from support import irregular
from support.processes import error_lines, run
from tsfc.shell.regular import read, read_unlinked
from tsfc.shell.textfile import read_previous

READS = [read, read_unlinked]


@pytest.mark.parametrize("reading", READS)
def test_a_regular_file_is_read(box: Path, reading: Callable[[str, int], object]) -> None:
    (box / "a").write_bytes(b"12345")
    assert reading(str(box / "a"), 5) == Success(b"12345")


@pytest.mark.parametrize("make", [*irregular.NO_FILES, irregular.link_to_zeros])
@pytest.mark.parametrize("reading", READS)
def test_anything_else_is_refused_at_once(
    box: Path, reading: Callable[[str, int], object], make: Callable[[Path], None]
) -> None:
    make(box / "a")
    assert reading(str(box / "a"), 100) == Failure("it is not a regular file")


@pytest.mark.parametrize("make", irregular.LINKS)
def test_links_can_be_refused(box: Path, make: Callable[[Path], None]) -> None:
    make(box / "a")
    assert read_unlinked(str(box / "a"), 100) == Failure("it is not a regular file")


def test_links_can_be_followed(box: Path) -> None:
    irregular.link(box / "a")
    irregular.dangling_link(box / "b")
    (box / "c").symlink_to("c")
    assert read(str(box / "a"), 100) == Success(irregular.OLD.encode())
    assert read(str(box / "b"), 100) == Failure("No such file or directory")
    assert read(str(box / "c"), 100) == Failure("Too many levels of symbolic links")


@pytest.mark.parametrize("reading", READS)
def test_a_larger_file_is_refused(box: Path, reading: Callable[[str, int], object]) -> None:
    for size in (2**20 + 1, 2**40):
        (box / "a").touch()
        os.truncate(box / "a", size)
        assert reading(str(box / "a"), 2**20) == Failure("it is larger than 1 MiB")


@pytest.mark.parametrize("make", irregular.EACH_KIND)
def test_an_exporter_without_tailscaled_reads_no_other_file(
    box: Path, make: Callable[[Path], None]
) -> None:
    make(box / "a.prom")
    assert read_previous(str(box / "a.prom")) == ""
    ran = run("exporter", "--socket", str(box / "s"), "--metrics-path", str(box / "a.prom"))
    assert ran.status == 1
    assert error_lines("exporter", ran)[-1].startswith(f"writing {box}/a.prom: it is not a regular")


def test_peers_waits_for_no_writer_of_a_pipe(box: Path) -> None:
    os.mkfifo(box / "watchdog.json")
    (box / "status.json").write_text('{"BackendState": "Running"}')
    ran = run(
        "peers",
        "--status-file",
        str(box / "status.json"),
        "--watchdog-metrics",
        str(box / "watchdog.prom"),
    )
    assert ran.status == 0
    assert f"reading {box}/watchdog.json: it is not a regular file, so" in ran.stdout
