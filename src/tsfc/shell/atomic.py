"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress


@contextmanager
def atomic_write(path: str, temporary: str, mode: int) -> Generator[int, None, None]:
    """Open the file `temporary` for writing; when the block ends, rename it to `path`.

    If the block or the rename fails, `temporary` is removed and `path` is unchanged.
    Both must be on one file system. `mode` applies whatever the umask is. `temporary`
    is never opened through a symbolic link: others may be able to write to the
    directory.
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
    """Write all of `data`; `os.write` may write less on a nearly full file system."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
