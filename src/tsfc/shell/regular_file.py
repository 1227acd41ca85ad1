"""Input files that must be regular: a FIFO, a device or a huge file is refused."""

from __future__ import annotations

import os
import stat

from returns.result import Failure, Result, Success


def read(path: str, limit: int) -> Result[bytes, str]:
    """Return the contents of a regular file of at most `limit` bytes, or a reason.

    Never waits for the writer of a FIFO.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return Failure("it is not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                contents = file.read(limit + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Failure(str(error.strerror))
    if len(contents) > limit:
        return Failure(f"it is larger than {limit // 2**20} MiB")
    return Success(contents)
