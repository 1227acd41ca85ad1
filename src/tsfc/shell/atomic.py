"""Files that are written as a whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from tsfc.shell import signals


class NotRegularError(OSError):
    """A path leads to a link, a directory, a device, a FIFO or a socket."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file", path)


def require_replaceable(path: str) -> None:
    """Raise `NotRegularError` if `path` exists and is not a regular file.

    As root, renaming a file to /dev/null would replace the device. A link is refused,
    too: others may be able to write to the directory.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise NotRegularError(path)


def temporary_path(path: str) -> str:
    """Return the path of this process's temporary file, in the directory of `path`."""
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(directory, f".{name}.{os.getpid()}.tmp")


@contextmanager
def atomic_write(path: str, temporary: str, mode: int) -> Generator[int, None, None]:
    """Open the file `temporary` for writing; when the block ends, rename it to `path`.

    If the block or the rename fails, or a signal ends the process, `temporary` is
    removed and `path` is unchanged.
    Both must be on one file system. `mode` applies whatever the umask is. `temporary`
    is never opened through a symbolic link: others may be able to write to the
    directory. Only a regular file is replaced (`require_replaceable`).
    """
    require_replaceable(path)
    with _temporary_file(temporary, mode, lambda: os.replace(temporary, path)) as descriptor:
        yield descriptor


def write_new(path: str, data: bytes, mode: int) -> None:
    """Write a new file, whatever the umask is.

    Raises:
        OSError: it could not be written, or there is a file. Nothing was changed.
    """
    temporary = temporary_path(path)

    def finish() -> None:
        os.link(temporary, path)  # fails if the file exists, unlike a rename
        os.unlink(temporary)

    with _temporary_file(temporary, mode, finish) as descriptor:
        write_all(descriptor, data)


@contextmanager
def _temporary_file(
    temporary: str, mode: int, finish: Callable[[], None]
) -> Generator[int, None, None]:
    """Open a new file for writing; when the block ends, close it and call `finish`.

    The file is removed if one of these fails, or a signal ends the process.
    """
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    with signals.cleaning_up(lambda: os.unlink(temporary)):
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode
        )
        try:
            try:
                os.fchmod(descriptor, mode)
                yield descriptor
            finally:
                os.close(descriptor)
            finish()
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; `os.write` may write less on a nearly full file system."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
