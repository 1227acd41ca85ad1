"""Files that somebody else may have replaced: only regular files of a known size are read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import error_lines, run
from tsfc.shell.regular import read_regular
from tsfc.shell.textfile import read_previous


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _link_to_file(path: Path) -> None:
    (path.parent / "secret").write_text("secret")
    path.symlink_to(path.parent / "secret")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _directory(path: Path) -> None:
    path.mkdir()


OTHERS = [_fifo, _link_to_zeros, _link_to_file, _socket, _directory]


def test_a_regular_file_is_read(box: Path) -> None:
    (box / "a").write_bytes(b"12345")
    assert read_regular(str(box / "a"), 5) == b"12345"


@pytest.mark.parametrize("make", OTHERS)
def test_anything_else_is_refused_at_once(box: Path, make: Callable[[Path], None]) -> None:
    make(box / "a")
    with pytest.raises(OSError, match="it is not a regular file"):
        read_regular(str(box / "a"), 100)


def test_a_larger_file_is_refused(box: Path) -> None:
    with open(box / "a", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="it is larger than 1 MiB"):
        read_regular(str(box / "a"), 2**20)


@pytest.mark.parametrize("make", OTHERS)
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
