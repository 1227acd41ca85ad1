"""Everything but a regular file, to put where the program expects one."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

OLD = "# the old file\n"
"Content of the file that a link leads to."


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.with_name("target").write_text(OLD)
    path.symlink_to("target")


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    """Not even root can open it."""
    path.symlink_to(path.name)


def directory(path: Path) -> None:
    path.mkdir()


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def device(path: Path) -> None:
    """Make a null device. Never use that of the machine: a bug could replace it."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root can make a device")


LINKS: list[Callable[[Path], None]] = [link, dangling_link, link_to_zeros, link_to_itself]
NO_FILES: list[Callable[[Path], None]] = [fifo, directory, unix_socket, device]
"What is not a regular file, even if links are followed."
EACH_KIND = [*LINKS, *NO_FILES]


def remains(box: Path) -> list[tuple[str, int, int]]:
    """Return what a directory has, to compare: names, types and sizes."""
    return [
        (path.name, (entry := path.lstat()).st_mode, entry.st_size)
        for path in sorted(box.iterdir())
    ]
