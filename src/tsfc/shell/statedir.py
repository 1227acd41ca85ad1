"""The watchdog's state directory: its lock, `state.json`, and the exported files."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.clock import Instant
from tsfc.core.watchdog.files import OBSOLETE, STATE, from_files, is_script_file, salvage, to_files
from tsfc.core.watchdog.state import State, decode, encode
from tsfc.shell.atomic import atomic_write, write_all

LOCK, TEMPORARY = ".lock", ".tmp"
ASIDE = "aside_"
"Prefix of the new name of a directory, link or the like that was in the way of a file."
_STATE_LIMIT = 2**24
"""Maximum size of `state.json` in bytes; a larger one counts as damaged.

That of 10,000 peers on relay has 0.5 MB.
"""
_NUMBER_LIMIT = 2**16
"Maximum size of an exported file in bytes. It has 20."
_NOT_REGULAR = "is not a regular file"
_NAME_LIMIT = 255
"Bytes of a file name (NAME_MAX)."


class Locked(Struct, frozen=True):
    """Another run holds the lock."""


class Lock(Struct, frozen=True):
    """The lock, held until the descriptor is closed or the process ends."""

    descriptor: int


class NoContent(Struct, frozen=True):
    """Something that is not read: no regular file, or a file that is too large."""

    problem: str
    "What is wrong with it, after its name."


class CommitError(Struct, frozen=True):
    """A file that could not be written durably."""

    detail: str
    is_replaced: bool
    "The next run reads the new content, unless the power fails first."


class Directory(Struct, frozen=True):
    """A state directory whose lock is held."""

    path: str

    def load(self, now: Instant) -> Result[tuple[State, tuple[str, ...]], str]:
        """The state, and a line for each damaged file.

        Fails if a file is there and cannot be read: the state must not be replaced by
        one that knows less.
        """
        document = read(self.path, STATE)
        if isinstance(document, Failure):
            return Failure(document.failure())
        raw = document.unwrap()
        state = decode(raw) if isinstance(raw, bytes) else None
        if isinstance(state, Success):
            return Success((state.unwrap(), ()))

        # The files of the scripts have the state as well, or at least its counters.
        files = read_all(self.path, is_script_file)
        if isinstance(files, Failure):
            return Failure(files.failure())
        if state is not None:
            return Success(salvage(state.failure(), files.unwrap(), now=now))
        if isinstance(raw, NoContent):
            return Success(salvage(raw.problem, files.unwrap(), now=now))
        return Success(from_files(files.unwrap(), now=now))

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
        _make_way(directory, LOCK)
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


def read(directory: str, name: str) -> Result[bytes | NoContent | None, str]:
    """The content of a file; None if there is none. Fails if it cannot be read."""
    try:
        return Success(_read(os.path.join(directory, name), _STATE_LIMIT))
    except OSError as error:
        return Failure(_problem(f"reading {name} of", directory, error))


def read_all(
    directory: str, is_wanted: Callable[[str], bool]
) -> Result[dict[str, bytes | None], str]:
    """The contents of files by name, None for what has no content to read.

    A directory that does not exist is empty. Fails if a file cannot be read.
    """
    try:
        names = [name for name in os.listdir(directory) if is_wanted(name) and name.isprintable()]
    except FileNotFoundError:
        return Success({})
    except OSError as error:
        return Failure(_problem("reading", directory, error))
    contents: dict[str, bytes | None] = {}
    for name in names:
        try:
            content = _read(os.path.join(directory, name), _NUMBER_LIMIT)
        except OSError as error:
            return Failure(_problem(f"reading {name} of", directory, error))
        contents[name] = content if isinstance(content, bytes) else None
    return Success(contents)


def commit(directory: str, name: str, data: bytes) -> Result[None, CommitError]:
    """Replace a file in one step, durably. The lock must be held."""
    try:
        _replace(directory, name, data, is_durable=True)
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
    for name in (*files, *(old.keys() - files.keys())):
        try:
            if name not in files:
                _remove(directory, name)
            elif old.get(name) != files[name].encode():
                _replace(directory, name, files[name].encode(), is_durable=False)
        except OSError as error:
            return Failure(_problem(f"exporting {name} from", directory, error))
    return Success(None)


def _read(path: str, limit: int) -> bytes | NoContent | None:
    try:
        # Without O_NONBLOCK a named pipe would wait for a writer.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.ELOOP}:  # a socket, a symbolic link
            return NoContent(_NOT_REGULAR)
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return NoContent(_NOT_REGULAR)
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    finally:
        os.close(descriptor)
    return NoContent(f"is larger than {limit} bytes") if len(content) > limit else content


def _replace(directory: str, name: str, data: bytes, *, is_durable: bool) -> None:
    _make_way(directory, TEMPORARY)
    _make_way(directory, name)
    temporary = os.path.join(directory, TEMPORARY)
    with atomic_write(os.path.join(directory, name), temporary, 0o644) as descriptor:
        write_all(descriptor, data)
        if is_durable:
            os.fsync(descriptor)


def _remove(directory: str, name: str) -> None:
    _make_way(directory, name)
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, name))


def _make_way(directory: str, name: str) -> None:
    """Rename what has the name of a file and is not a regular file."""
    path = os.path.join(directory, name)
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            aside = os.fsencode(f"{ASIDE}{os.urandom(4).hex()}_{name}")[:_NAME_LIMIT]
            os.rename(path, os.path.join(directory, os.fsdecode(aside)))


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
