"""Metrics files for a textfile collector (node_exporter, Alloy), or standard output."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from returns.result import Failure, Result, Success

from tsfc.shell import regular
from tsfc.shell.atomic import NotRegularError, atomic_write, temporary_path, write_all
from tsfc.shell.clocks import unix_time

STANDARD_OUTPUT = "-"
SIZE_LIMIT = 64 * 2**20
"""Maximum size in bytes of a metrics file or a snapshot that an earlier run wrote.

Metrics of 100,000 peers have 66 MB, a snapshot of 10,000 peers on relay has 0.5 MB.
"""
ABANDONED_SECONDS = 600
"Age at which a temporary file is considered abandoned. Writing one takes milliseconds."


def write(path: str, text: str) -> Result[None, str]:
    """Replace the file `path` by `text` in one step, readable by all; print it if `-`.

    The file is not synced to disk: the next run rewrites it, and 7 syncs per minute
    would wear out an SD card.
    """
    if path == STANDARD_OUTPUT:
        return _print(text)
    directory, name = os.path.split(os.path.abspath(path))
    try:
        with atomic_write(path, temporary_path(path), 0o644) as descriptor:
            write_all(descriptor, text.encode())
        _remove_abandoned(directory, name)
    except OSError as error:
        return Failure(f"writing {path}: {error.strerror}; {_advice(error, directory)}")
    return Success(None)


def snapshot_path(path: str) -> str:
    """Return the path of a job's snapshot: that of its metrics, with `.json`."""
    return f"{path.removesuffix('.prom')}.json"


def read_previous(path: str | None) -> str:
    """Return the text that an earlier run wrote; empty if it cannot be read."""
    if path is None or path == STANDARD_OUTPUT:
        return ""
    try:
        return regular.read_unlinked(path, SIZE_LIMIT).value_or(b"").decode()
    except UnicodeDecodeError:
        return ""


def _print(text: str) -> Result[None, str]:
    try:
        write_all(1, text.encode())
    except OSError as error:
        return Failure(f"writing to standard output: {error.strerror}; check disk space")
    return Success(None)


def _remove_abandoned(directory: str, name: str) -> None:
    """Remove the temporary files of runs that were killed."""
    now = unix_time(None)
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if not (entry.name.startswith(f".{name}.") and entry.name.endswith(".tmp")):
                continue
            with suppress(OSError):  # such as a directory of that name
                age = now - entry.stat(follow_symlinks=False).st_mtime
                if abs(age) > ABANDONED_SECONDS:
                    os.unlink(entry.path)


def _is_sticky(directory: str) -> bool:
    try:
        return bool(os.stat(directory).st_mode & stat.S_ISVTX)
    except OSError:
        return False


def _advice(error: OSError, directory: str) -> str:
    match error:
        case NotRegularError():
            return "set --metrics-path to a regular file, or to - for standard output"
        case FileNotFoundError():
            return f"create the directory {directory}, or set --metrics-path"
        case PermissionError() if error.errno == errno.EPERM and _is_sticky(directory):
            return (
                f"the old file belongs to another user and {directory} has the sticky bit: "
                "delete the file, or set --metrics-path"
            )
        case PermissionError():
            return f"run as a user with write access to {directory}, or set --metrics-path"
        case _:
            return (
                f"check {directory} and its free space, or set --metrics-path; "
                "the old file is unchanged"
            )
