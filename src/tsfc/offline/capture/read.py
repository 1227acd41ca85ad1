"""Read observations: from a capture, a URL, a directory of statuses, or standard input.

A capture is plain or compressed. It is read as a stream, one line in memory at a time.
Time and memory are bounded, because a capture may come from somebody else.
Unreadable parts are reported and skipped: a crash of the host may damage a record in
the middle of a capture, because later runs append to it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct
from returns.result import Failure, Result, Success

from tsfc.core.evaluation.observation import Observation, parse
from tsfc.core.tailscale.json_input import problem, stream_to_utf8, to_utf8
from tsfc.core.tailscale.status import decode
from tsfc.core.text import one_line
from tsfc.offline.capture.decompress import Take, plain
from tsfc.offline.capture.lines import LINE_LIMIT, Damaged, Dropped, Line, lines
from tsfc.shell import regular
from tsfc.shell.console import STDIN
from tsfc.shell.tailscaled.observe import STANDARD_INPUT

_UNREAD_BYTES = 2 * LINE_LIMIT
_UNREAD_LINES = 100_000
"How much data without an observation ends the reading."
_ADVICE = "give a capture of `tsfc capture`"
_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[^/]*)?://")
"Matches chained URLs too, such as `zip://a.ndjson::s3://bucket/captures.zip`."


class Skipped(Struct, frozen=True):
    """A part of a capture that was skipped; reading continues after it."""

    detail: str
    "Error message of one line."
    is_torn: bool = False
    "Whether it is a torn record, as a crash leaves it."


class Broken(Struct, frozen=True):
    """An error that ended the reading early."""

    detail: str
    "Error message of one line."


T = TypeVar("T")
Read = Observation | Skipped | Broken


def observations(source: str) -> Iterator[Read]:
    """Yield the observations of a source, and what was skipped.

    The source is a file, a URL, a directory of `*.json` files, or `-` for standard
    input. Observations of a directory come in the order of their times, others in the
    order of their lines.
    """
    name = "standard input" if source == STANDARD_INPUT else source
    try:
        if _URL.match(source):
            yield from _remote(source)
            return
        if os.path.isdir(source):
            yield from _directory(source)
            return
        with open(
            STDIN if source == STANDARD_INPUT else source,
            "rb",
            buffering=0,
            closefd=source != STANDARD_INPUT,
        ) as file:
            yield from _capture(file.read, name)
    except OSError as error:
        yield Broken(f"reading {name}: {error.strerror or error}; give a readable capture")


def in_order(source: str, warn: Callable[[str], None]) -> Result[tuple[Observation, ...], str]:
    """Return a whole capture, sorted by time; equal times keep the order of the lines.

    Torn records are skipped with a call of `warn`. Any other unusable record is a
    failure, and so is an empty capture.
    """
    found: list[Observation] = []
    for read in observations(source):
        # Only a torn record may be skipped.
        if isinstance(read, Skipped) and read.is_torn:
            warn(read.detail)
            continue
        if not isinstance(read, Observation):
            return Failure(
                f"{read.detail.removesuffix('; skipped')}; a capture has one observation a line"
                if isinstance(read, Skipped)
                else read.detail
            )
        # The status must be usable.
        status = Success(None) if read.fault is not None else decode(bytes(read.status))
        if isinstance(status, Failure):
            at = f"the observation at {read.captured_at:.3f}"
            return Failure(f"reading {source}: {at}: {status.failure().detail}")
        found.append(read)
    if not found:
        return Failure(
            f"reading {source}: it is empty; give a capture with at least one observation"
        )
    return Success(tuple(sorted(found, key=lambda observation: observation.captured_at)))


def _remote(url: str) -> Iterator[Read]:
    """Read a URL with fsspec. Any exception of its libraries becomes an `OSError`."""
    try:
        fsspec: Any = import_module("fsspec")  # an optional dependency, without types
    except ImportError:
        yield Broken(
            f"reading {url}: URLs need fsspec, which is not installed; install tsfc[fleet]"
        )
        return
    with ExitStack() as opened:

        def tried(act: Callable[[], T]) -> T:
            try:
                return act()
            except Exception as error:
                raise OSError(f"{type(error).__name__}: {one_line(str(error))}") from error

        file = tried(lambda: opened.enter_context(fsspec.open(url, "rb")))
        yield from _capture(lambda size: tried(lambda: file.read(size)), url)


def _capture(take: Take, name: str) -> Iterator[Read]:
    unread_lines = unread_bytes = 0
    for part in lines(stream_to_utf8(plain(take))):
        read = _read(part, name)
        if read is not None:
            yield read
        if isinstance(read, Observation):
            unread_lines = unread_bytes = 0
            continue

        # Without a limit, a few kilobytes of compressed data could take hours.
        unread_lines += not isinstance(part, Dropped)
        unread_bytes += _size(part)
        if unread_lines > _UNREAD_LINES:
            yield Broken(f"reading {name}: no observation in {_UNREAD_LINES} lines; {_ADVICE}")
            return
        if unread_bytes > _UNREAD_BYTES:
            amount = f"{_UNREAD_BYTES // 2**20} MiB"
            yield Broken(f"reading {name}: no observation in {amount}; {_ADVICE}")
            return


def _read(part: Line | Dropped | Damaged, name: str) -> Observation | Skipped | None:
    """Return the observation in a part of a capture; None if the part is blank."""
    match part:
        case Dropped():
            return None
        case Damaged():
            problem = f"after line {part.after}: compressed data torn or damaged"
            return Skipped(f"reading {name}: {problem}; skipped", is_torn=True)
        case Line():
            return _observation(part, f"reading {name}: line {part.number}")


def _observation(line: Line, action: str) -> Observation | Skipped:
    if line.text is None:
        return Skipped(f"{action}: longer than {LINE_LIMIT // 2**20} MiB; skipped")
    parsed = parse(line.text)
    if not isinstance(parsed, Failure):
        return parsed.unwrap()
    if not line.is_ended:
        return Skipped(f"{action}: torn, as after a crash; skipped", is_torn=True)
    return Skipped(f"{action}: {parsed.failure()}; skipped")


def _size(part: Line | Dropped | Damaged) -> int:
    """Return the size of a part, in bytes; None is a line whose parts were dropped."""
    match part:
        case Dropped():
            return part.size
        case Line():
            return len(part.text or b"")
        case Damaged():
            return 0


# A directory of statuses


class _Head(Struct):
    """Fields that tell an observation from a bare status."""

    captured_at: float | None = None
    status: Raw = Raw()
    fault: str | None = None


_HEAD = msgspec.json.Decoder(_Head)
_UNIX = re.compile(r"(?:^|[^0-9])([0-9]{9,11}(?:\.[0-9]+)?)$")
_ISO = re.compile(
    r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})[T_ ]([0-9]{2})[:-]?([0-9]{2})[:-]?([0-9]{2})"
    r"(?:\.[0-9]+)?(Z|[+-][0-9]{2}:?[0-9]{2})?$"
)


def _directory(directory: str) -> Iterator[Read]:
    """Read the times of all files, then the files in that order, one at a time."""
    timed: list[tuple[float, str]] = []
    for name in sorted(os.listdir(directory)):
        if name.endswith(".json"):
            found = _document(os.path.join(directory, name))
            if isinstance(found, Skipped):
                yield found
            else:
                timed.append((_time(os.path.join(directory, name), found[0]), name))
    for at, name in sorted(timed):
        found = _document(os.path.join(directory, name))
        if isinstance(found, Skipped):
            yield found
            continue
        head, raw = found
        if head.fault is not None and not bytes(head.status):
            yield Observation(at, fault=head.fault)
        else:
            yield Observation(at, status=head.status if bytes(head.status) else Raw(raw))


def _document(path: str) -> tuple[_Head, bytes] | Skipped:
    """Return the first fields of a document, and all of it."""
    read = regular.read(path, LINE_LIMIT)
    if isinstance(read, Failure):
        return Skipped(f"reading {path}: {read.failure()}; skipped")
    raw = to_utf8(read.unwrap())
    try:
        return _HEAD.decode(raw), raw
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Skipped(f"reading {path}: {problem(raw, error)}; skipped")


def _time(path: str, head: _Head) -> float:
    """Return the Unix time of a document: its own, its name's, or the file's mtime."""
    if head.captured_at is not None and head.captured_at >= 0:
        return head.captured_at
    stem = os.path.basename(path).removesuffix(".json")
    if unix := _UNIX.search(stem):
        return float(unix[1])
    if iso := _ISO.search(stem):
        year, month, day, hour, minute, second, zone = iso.groups()
        try:
            at = datetime.fromisoformat(
                f"{year}-{month}-{day}T{hour}:{minute}:{second}{zone or ''}"
            )
        except ValueError:
            return os.stat(path).st_mtime
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    return os.stat(path).st_mtime
