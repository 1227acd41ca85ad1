"""A file that is there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress


@contextmanager
def atomic_write(path: str, temporary: str, mode: int) -> Generator[int, None, None]:
    """Opens the file `temporary`, beside `path` and so on its file system, for writing; when the block ends it takes `path`'s place.

    Where the block, or the renaming, fails, the temporary file goes and `path` stays as it was. `mode` holds whatever the
    umask. The temporary file is never followed as a link: others may write in the directory, too.
    """
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode
    )
    try:
        try:
            os.fchmod(descriptor, mode)
            yield descriptor
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of `data`; `os.write` alone may write less, on a file system that fills up."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
