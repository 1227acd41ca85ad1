"""The watchdog's state directory: its lock, `state.json`, and the exported files."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Mapping

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.clock import Instant
from tsfc.core.watchdog.files import OBSOLETE, STATE, from_directory, is_script_file, to_files
from tsfc.core.watchdog.state import State, encode
from tsfc.shell.atomic import atomic_write, write_all

LOCK, TEMPORARY = ".lock", ".tmp"
_STATE_LIMIT = 2**24
"Bytes of `state.json`. That of 10,000 peers on relay has 0.5 MB."
_NUMBER_LIMIT = 2**16
"Bytes of an exported file. It has 20."


class Locked(Struct, frozen=True):
    """Another run holds the lock."""


class Lock(Struct, frozen=True):
    """The lock, held until the descriptor is closed or the process ends."""

    descriptor: int


class CommitError(Struct, frozen=True):
    """A file that could not be written durably."""

    detail: str
    is_replaced: bool
    "The next run reads the new content, unless the power fails first."


class Directory(Struct, frozen=True):
    """A state directory whose lock is held."""

    path: str

    def load(self, now: Instant) -> Result[tuple[State, tuple[str, ...]], str]:
        """The state, and a line for each damaged file."""
        document = read(self.path, STATE)
        if document is not None:
            return Success(from_directory(document, {}, now=now))
        files = read_all(self.path, is_script_file)
        if isinstance(files, Failure):
            return Failure(files.failure())
        return Success(from_directory(None, files.unwrap(), now=now))

    def commit(self, state: State) -> Result[None, CommitError]:
        """Replace `state.json` in one step, durably."""
        return commit(self.path, STATE, encode(state))

    def export(self, state: State) -> Result[None, str]:
        """Write the scripts' files, and remove those of an older tsfc."""
        return export(
            self.path, to_files(state), lambda name: is_script_file(name) or name in OBSOLETE
        )


class ReadOnly(Directory, frozen=True):
    """A state directory that a dry run leaves as it is."""

    def commit(self, state: State) -> Result[None, CommitError]:  # noqa: ARG002
        """Change nothing."""
        return Success(None)

    def export(self, state: State) -> Result[None, str]:  # noqa: ARG002
        """Change nothing."""
        return Success(None)


def lock(directory: str) -> Result[Lock, Locked | str]:
    """Create the directory if it is missing, and take its lock without waiting."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(
            os.path.join(directory, LOCK),
            os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
        )
    except OSError as error:
        return Failure(_problem("locking", directory, error))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return Failure(Locked())
        return Failure(_problem("locking", directory, error))
    return Success(Lock(descriptor))


def read(directory: str, name: str) -> bytes | None:
    """The content of a file; empty if it cannot be read, None if there is none."""
    try:
        os.lstat(os.path.join(directory, name))
    except OSError:
        return None
    return _read(os.path.join(directory, name), _STATE_LIMIT) or b""


def read_all(
    directory: str, is_wanted: Callable[[str], bool]
) -> Result[dict[str, bytes | None], str]:
    """The contents of files by name, None for one that cannot be read.

    A directory that does not exist is empty.
    """
    try:
        names = [name for name in os.listdir(directory) if is_wanted(name) and name.isprintable()]
    except FileNotFoundError:
        return Success({})
    except OSError as error:
        return Failure(_problem("reading", directory, error))
    return Success({name: _read(os.path.join(directory, name), _NUMBER_LIMIT) for name in names})


def commit(directory: str, name: str, data: bytes) -> Result[None, CommitError]:
    """Replace a file in one step, durably. The lock must be held."""
    try:
        _replace(directory, name, data)
    except OSError as error:
        return Failure(CommitError(_problem("writing", directory, error), is_replaced=False))
    try:
        _sync(directory)
    except OSError as error:
        return Failure(CommitError(_problem("writing", directory, error), is_replaced=True))
    return Success(None)


def export(
    directory: str, files: Mapping[str, str], is_exported: Callable[[str], bool]
) -> Result[None, str]:
    """Make these files, and no others that `is_exported` names, exist in the directory.

    Only what differs is written. The lock must be held.
    """
    existing = read_all(directory, is_exported)
    if isinstance(existing, Failure):
        return Failure(existing.failure())
    old = existing.unwrap()
    try:
        for name, text in files.items():
            if old.get(name) != text.encode():
                _replace(directory, name, text.encode())
        for name in old.keys() - files.keys():
            os.unlink(os.path.join(directory, name))
    except OSError as error:
        name = os.path.basename(error.filename2 or error.filename or "")
        return Failure(_problem(f"exporting {name} from", directory, error))
    return Success(None)


def _read(path: str, limit: int) -> bytes | None:
    try:
        # Without O_NONBLOCK a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return file.read(limit)
    except OSError:
        return None


def _replace(directory: str, name: str, data: bytes) -> None:
    temporary = os.path.join(directory, TEMPORARY)
    with atomic_write(os.path.join(directory, name), temporary, 0o644) as descriptor:
        write_all(descriptor, data)
        os.fsync(descriptor)


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _problem(verb: str, directory: str, error: OSError) -> str:
    return (
        f"{verb} the state in {directory}: {error.strerror}; "
        "check permissions and disk space, or give --state-dir"
    )
