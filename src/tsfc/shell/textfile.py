"""The exposition's way out: a file for node_exporter's or Alloy's textfile collector, or standard output."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from returns.result import Failure, Result, Success

from tsfc.shell.atomic import atomic_write, write_all
from tsfc.shell.clocks import unix_time

STANDARD_OUTPUT = "-"
ABANDONED_SECONDS = 600
"Age at which a temporary file is nobody's; to write one takes milliseconds."


def write(path: str, text: str) -> Result[None, str]:
    """Replaces the file `path` by `text`, readable for all, in one step; with `-` prints it instead.

    Only a regular file is replaced, so that a root's `--metrics-path /dev/null` leaves the machine its /dev/null. It is
    not synced to the disk: the next run writes it anew, and 7 syncs a minute would wear an SD card for nothing.
    """
    if path == STANDARD_OUTPUT:
        return _print(text)
    directory, name = os.path.split(os.path.abspath(path))
    try:
        if not _may_be_replaced(path):
            return Failure(
                f"writing {path}: it is not a regular file; give a file for --metrics-path, or - for standard output"
            )
        with atomic_write(
            path, os.path.join(directory, f".{name}.{os.getpid()}.tmp"), 0o644
        ) as descriptor:
            write_all(descriptor, text.encode())
        _remove_abandoned(directory, name)
    except OSError as error:
        return Failure(f"writing {path}: {error.strerror}; {_advice(error, directory)}")
    return Success(None)


def snapshot_path(path: str) -> str:
    """Where a job's snapshot lies: beside its metrics, as `.json` in place of `.prom`."""
    return f"{path.removesuffix('.prom')}.json"


def read(path: str | None) -> str:
    """Returns what the file holds now; nothing where it cannot be read, is not text, or there is none."""
    if path is None or path == STANDARD_OUTPUT:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def _print(text: str) -> Result[None, str]:
    try:
        write_all(1, text.encode())
    except OSError as error:
        return Failure(f"writing to standard output: {error.strerror}")
    return Success(None)


def _may_be_replaced(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


def _remove_abandoned(directory: str, name: str) -> None:
    """Removes the temporary files of runs that were killed; one that is being written is never that old."""
    oldest = unix_time(None) - ABANDONED_SECONDS
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if (
                entry.name.startswith(f".{name}.")
                and entry.name.endswith(".tmp")
                and entry.stat(follow_symlinks=False).st_mtime < oldest
            ):
                os.unlink(entry.path)


def _advice(error: OSError, directory: str) -> str:
    match error:
        case FileNotFoundError():
            return f"create the directory {directory}, or give --metrics-path"
        case PermissionError():
            return f"run as a user who may write in {directory}, or give --metrics-path"
        case _:
            return f"see to {directory}, or give --metrics-path; the file is as it was"
