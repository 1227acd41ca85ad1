"""Read regular files of a limited size; refuse anything else at once.

A FIFO without a writer would block the run, and a device may never end.
"""

from __future__ import annotations

import errno
import os
import stat

from returns.result import Failure, Result, Success

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOT_REGULAR = "it is not a regular file"


def read(path: str, limit: int) -> Result[bytes, str]:
    """Return the content of a file of at most `limit` bytes, or a reason.

    For files that the user names: symbolic links are followed.
    """
    return _read(path, limit, _FLAGS)


def read_unlinked(path: str, limit: int) -> Result[bytes, str]:
    """Return the content of a file of at most `limit` bytes, or a reason.

    For files in directories that others may write to: a symbolic link is refused.
    """
    return _read(path, limit, _FLAGS | os.O_NOFOLLOW)


def _read(path: str, limit: int, flags: int) -> Result[bytes, str]:
    try:
        descriptor = os.open(path, flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Failure(_NOT_REGULAR)
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(limit + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        is_socket = error.errno == errno.ENXIO
        is_link = error.errno == errno.ELOOP and bool(flags & os.O_NOFOLLOW)
        return Failure(_NOT_REGULAR if is_socket or is_link else os.strerror(error.errno or 0))
    if len(content) > limit:
        return Failure(f"it is larger than {limit / 2**20:g} MiB")
    return Success(content)
