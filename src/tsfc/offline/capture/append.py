"""Append records to a capture that other processes append to and rotate, too.

The lock of the file protects both. A process that gets the lock of a file that another
one has rotated opens the new file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress

from returns.result import Failure, Result, Success

from tsfc.shell import signals, textfile
from tsfc.shell.atomic import NotRegularError, write_all

MODE = 0o600
"Permissions of captures: a status contains names of users and machines."
_FLAGS = (
    os.O_RDWR
    | os.O_APPEND
    | os.O_CREAT
    | os.O_CLOEXEC
    | os.O_NOFOLLOW  # as for metrics: others may be able to write to the directory
    | os.O_NONBLOCK  # opening a FIFO must not block
)


def append(path: str, data: bytes, *, max_size: int | None, keep: int) -> Result[None, str]:
    """Append a whole record, or nothing; fail with one line.

    A file that `data` would make larger than `max_size` bytes is rotated first, and
    `keep` old files are kept. Permissions of others are removed. If a plain file ends
    with a torn line, the record begins on a new line.
    """
    if path == textfile.STANDARD_OUTPUT:
        return _write(1, data, path)
    try:
        while True:
            with locked(path) as descriptor:
                if not _is_current(path, descriptor):
                    continue
                if max_size is None or not _is_full(descriptor, len(data), max_size):
                    return _append(descriptor, data, path)
                _rotate(path, keep)
    except OSError as error:
        return Failure(write_error(path, error))


@contextmanager
def locked(path: str) -> Generator[int, None, None]:
    """Open a regular file for reading and appending, and hold its lock; create it.

    Raise `OSError` if that fails, also for a symbolic link.
    """
    descriptor = os.open(path, _FLAGS, MODE)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegularError(path)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def permission_warning(path: str) -> str | None:
    """Return a warning if others can still read the capture."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if not stat.S_ISREG(mode) or not _is_shared(mode):
        return None
    return (
        f"writing {path}: other users can read it, and its permissions cannot be changed; "
        "set --output to a file that you own"
    )


def write_error(path: str, error: OSError) -> str:
    """Return the error message of a failed write to a capture or to its key."""
    match error:
        case NotRegularError():
            advice = "set --output to a file, or to - for standard output"
        case OSError(errno=errno.ELOOP):
            return f"writing {path}: it is a symbolic link; set --output to the file itself"
        case FileNotFoundError():
            directory = os.path.dirname(path) or "."
            advice = f"create the directory {directory}, or set --output to another file"
        case PermissionError():
            advice = "run as a user with write permission, or set --output to another file"
        case _:
            advice = "check the disk, or set --output to another file; the capture is unchanged"
    return f"writing {path}: {error.strerror}; {advice}"


def _append(descriptor: int, data: bytes, path: str) -> Result[None, str]:
    """Append to a locked file; undo a partial write, even if a signal interrupts it."""
    before = os.fstat(descriptor)
    if _is_shared(before.st_mode):
        with suppress(PermissionError):
            os.fchmod(descriptor, MODE)
    size = before.st_size
    is_plain = not path.endswith((".gz", ".zst"))
    is_torn = is_plain and size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    with signals.cleaning_up(lambda: os.ftruncate(descriptor, size)):
        written = _write(descriptor, b"\n" + data if is_torn else data, path)
    if isinstance(written, Failure):
        with suppress(OSError):
            os.ftruncate(descriptor, size)
    return written


def _write(descriptor: int, data: bytes, path: str) -> Result[None, str]:
    try:
        written = os.write(descriptor, data)
        if written < len(data):
            write_all(descriptor, data[written:])  # retry, to get the reason
    except OSError as error:
        return Failure(write_error(path, error))
    return Success(None)


def _is_shared(mode: int) -> bool:
    return mode & (stat.S_IRWXG | stat.S_IRWXO) != 0


def _is_current(path: str, descriptor: int) -> bool:
    """Whether no other process has rotated the file since it was opened."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _is_full(descriptor: int, more: int, max_size: int) -> bool:
    """Whether `more` bytes are too many. An empty file takes a record of any size."""
    size = os.fstat(descriptor).st_size
    return size > 0 and size + more > max_size


def _rotate(path: str, keep: int) -> None:
    """Rename the file, whose lock is held, and the old files.

    It becomes `.1`, the former `.1` becomes `.2`, and the oldest is deleted. The file
    itself is the last: from then on, another process can rotate the next one.
    """
    for number in range(keep, 0, -1):
        with suppress(FileNotFoundError):
            os.replace(path if number == 1 else f"{path}.{number - 1}", f"{path}.{number}")
    if keep == 0:
        os.unlink(path)
