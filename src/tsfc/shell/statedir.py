"""The watchdog's state directory: a lock, and files that change together or not at all.

Files change one by one, so a change of several is first written down whole, in `.journal`: from then on it will be
made, by this run or by the next. Each step is a temporary file, synced, and a rename. A kill at any instruction leaves
the state before or the state after.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec
from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.shell.atomic import atomic_write, write_all

LOCK, JOURNAL, TEMPORARY = ".lock", ".journal", ".tmp"
_READ_LIMIT = 2**16
"Bytes of a state file; one has 20."


class Journal(Struct, frozen=True, forbid_unknown_fields=True):
    """A change that was decided: the new text of each file, or null for one that is to go."""

    files: dict[str, str | None]


class Locked(Struct, frozen=True):
    """Another run holds the lock."""


class Lock(Struct, frozen=True):
    """The lock is held while this process has the descriptor open, and no longer than it lives."""

    descriptor: int


_DECODER = msgspec.json.Decoder(Journal)


def lock(directory: str) -> Result[Lock, Locked | str]:
    """Makes the directory where there is none, and takes its lock, or tells at once that another run has it."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(
            os.path.join(directory, LOCK),
            os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
        )
    except OSError as error:
        return Failure(_complaint("locking", directory, error))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        return Failure(
            Locked()
            if isinstance(error, BlockingIOError)
            else _complaint("locking", directory, error)
        )
    return Success(Lock(descriptor))


def load(
    directory: str, is_state_file: Callable[[str], bool]
) -> Result[dict[str, bytes | None], str]:
    """Returns the content of each state file by its name, None for one that cannot be read. Changes nothing.

    A change that was journalled counts as made. A directory that does not exist is empty.
    """
    try:
        names = [
            name for name in os.listdir(directory) if is_state_file(name) and name.isprintable()
        ]
    except FileNotFoundError:
        return Success({})
    except OSError as error:
        return Failure(_complaint("reading", directory, error))
    files = {name: _read(os.path.join(directory, name)) for name in names}
    for name, text in _journalled(directory).items():
        if text is None:
            files.pop(name, None)
        else:
            files[name] = text.encode()
    return Success(files)


def commit(
    directory: str, before: Mapping[str, bytes | None], after: Mapping[str, str]
) -> Result[None, str]:
    """Makes the files that were loaded as `before` into `after`; durable when it returns. The lock must be held.

    A file that a journal was to change is written in any case, since `before` says what it should hold, not what it does.
    """
    unsettled = _journalled(directory)
    changes: dict[str, str | None] = {
        name: text
        for name, text in after.items()
        if name in unsettled or before.get(name) != text.encode()
    }
    changes |= {name: None for name in (*before, *unsettled) if name not in after}
    try:
        if len(changes) > 1:
            _write(directory, JOURNAL, msgspec.json.encode(Journal(changes)))
            _sync(directory)
        for name, text in changes.items():
            if text is None:
                _remove(directory, name)
            else:
                _write(directory, name, text.encode())
        if changes:
            _sync(directory)
        _remove(directory, JOURNAL)
    except OSError as error:
        return Failure(_complaint("writing", directory, error))
    return Success(None)


def _journalled(directory: str) -> Mapping[str, str | None]:
    raw = _read(os.path.join(directory, JOURNAL), limit=None)
    if raw is None:
        return {}
    try:
        files = _DECODER.decode(raw).files
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return {name: text for name, text in files.items() if "/" not in name}


def _read(path: str, limit: int | None = _READ_LIMIT) -> bytes | None:
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )  # a named pipe would wait for a writer
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return file.read(-1 if limit is None else limit)
    except OSError:
        return None


def _write(directory: str, name: str, data: bytes) -> None:
    with atomic_write(
        os.path.join(directory, name), os.path.join(directory, TEMPORARY), 0o644
    ) as descriptor:
        write_all(descriptor, data)
        os.fsync(descriptor)


def _remove(directory: str, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, name))


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _complaint(verb: str, directory: str, error: OSError) -> str:
    return f"{verb} the state in {directory}: {error.strerror}; run as a user who may write there and see to the disk, or give --state-dir"
