"""Read observations: from a capture, a URL, a directory of statuses, or standard input.

A capture is plain or compressed. It is read as a stream, one line in memory at a time.
Time and memory are bounded, because a capture may come from somebody else.
Unreadable parts are reported and skipped: a crash of the host may damage a record in
the middle of a capture, because later runs append to it.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.clock import Boot, Seconds
from tsfc.core.evaluation.observation import NOT_ONE, Observation, UnixTime, parse
from tsfc.core.tailscale.json_input import problem, stream_to_utf8, to_utf8
from tsfc.core.tailscale.status import decode
from tsfc.core.text import one_line
from tsfc.offline.capture.decompress import Take, plain
from tsfc.offline.capture.lines import LINE_LIMIT, Damaged, Dropped, Line, lines
from tsfc.offline.capture.time_in_name import time_in_name
from tsfc.offline.extras import advice
from tsfc.shell import regular
from tsfc.shell.console import STDIN
from tsfc.shell.tailscaled.observe import STANDARD_INPUT

_UNREAD_BYTES = 2 * LINE_LIMIT
_UNREAD_LINES = 100_000
"How much data without an observation ends the reading."
_BEGINNING = b'{"captured_at"'
"The first bytes of a record of `tsfc capture`."
_ADVICE = "give a capture of `tsfc capture`"
_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[^/]*)?://")
"Matches chained URLs too, such as `zip://a.ndjson::s3://bucket/captures.zip`."


class Skipped(Struct, frozen=True):
    """A part of a capture that was skipped; reading continues after it."""

    detail: str
    "Error message of one line."
    is_torn: bool = False
    "Whether it is a torn record, as a crash leaves it."


class Note(Struct, frozen=True):
    """What the user should know about a capture, of which nothing was skipped."""

    detail: str
    "One line."


class Broken(Struct, frozen=True):
    """An error that ended the reading early."""

    detail: str
    "Error message of one line."


T = TypeVar("T")
Read = Observation | Skipped | Note | Broken
Parse = Callable[[bytes], Result[Observation, str]]
"Parses a line of a capture: `parse` or `parse_whole`."


def observations(source: str, parse: Parse = parse) -> Iterator[Read]:
    """Yield the observations of a source, and what was skipped.

    The source is a file, a URL, a directory of statuses (`_SUFFIXES`), or `-` for
    standard input. Observations of a directory come in the order of their times, others
    in the order of their lines.
    """
    name = "standard input" if source == STANDARD_INPUT else source
    try:
        if _URL.match(source):
            yield from _remote(source, parse)
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
            yield from _capture(file.read, name, parse)
    except OSError as error:
        yield Broken(f"reading {name}: {error.strerror or error}; give a readable capture")


def in_order(source: str, warn: Callable[[str], None]) -> Result[tuple[Observation, ...], str]:
    """Return a whole capture, sorted by time; equal times keep the order of the lines.

    Notes and torn records lead to a call of `warn`. Any other unusable record is a
    failure, and so is an empty capture.
    """
    found: list[Observation] = []
    for read in observations(source):
        # Only a torn record may be skipped.
        if isinstance(read, Note) or (isinstance(read, Skipped) and read.is_torn):
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
        return Failure(f"reading {source}: no observations; {_ADVICE}")
    return Success(tuple(sorted(found, key=lambda observation: observation.captured_at)))


def _remote(url: str, parse: Parse) -> Iterator[Read]:
    """Read a URL with fsspec. Any exception of its libraries becomes an `OSError`."""
    try:
        fsspec: Any = import_module("fsspec")  # an optional dependency, without types
    except ImportError:
        yield Broken(f"reading {url}: URLs need fsspec, which is not installed; {advice('fleet')}")
        return
    with ExitStack() as opened:

        def tried(act: Callable[[], T]) -> T:
            try:
                return act()
            except Exception as error:
                raise OSError(f"{type(error).__name__}: {one_line(str(error))}") from error

        file = tried(lambda: opened.enter_context(fsspec.open(url, "rb")))
        yield from _capture(lambda size: tried(lambda: file.read(size)), url, parse)


def _capture(take: Take, name: str, parse: Parse) -> Iterator[Read]:
    unread_lines = unread_bytes = 0
    is_empty = True
    for part in lines(stream_to_utf8(plain(take))):
        found = _read(part, name, parse)
        yield from found
        is_empty = is_empty and not found
        if any(isinstance(read, Observation) for read in found):
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
    if is_empty:
        yield Broken(f"reading {name}: it is empty; {_ADVICE}")


def _read(part: Line | Dropped | Damaged, name: str, parse: Parse) -> list[Observation | Skipped]:
    """Return the observation in a part of a capture, or what was skipped."""
    match part:
        case Dropped():
            return []
        case Damaged():
            problem = f"after line {part.after}: compressed data torn or damaged"
            return [Skipped(f"reading {name}: {problem}; skipped", is_torn=True)]
        case Line():
            return _observations(part, f"reading {name}: line {part.number}", parse)


def _observations(line: Line, action: str, parse: Parse) -> list[Observation | Skipped]:
    """Return the observation in a line; two if the line feed between them is missing.

    If a whole record follows a torn one on its line, only the torn one is lost.
    """
    if line.text is None:
        return [Skipped(f"{action}: longer than {LINE_LIMIT // 2**20} MiB; skipped")]
    whole = parse(line.text)
    if not isinstance(whole, Failure):
        return [whole.unwrap()]
    torn = Skipped(f"{action}: torn, as after a crash; skipped", is_torn=True)
    second = line.text.rfind(_BEGINNING)
    if second > 0:
        parts = [parse(line.text[:second]), parse(line.text[second:])]
        if any(isinstance(part, Success) for part in parts):
            return [torn if isinstance(part, Failure) else part.unwrap() for part in parts]
    if not line.is_ended:
        return [torn]
    return [Skipped(f"{action}: {whole.failure()}; skipped")]


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


class _Document(Struct):
    """An observation, or a status with perhaps the time of one."""

    captured_at: UnixTime | None = None
    boot: Boot | None = None
    tailscaled_start: Seconds | None = None
    status: Raw = Raw()
    fault: str | None = None


_DOCUMENT = msgspec.json.Decoder(_Document)
_SUFFIXES = (".json", ".json.gz", ".json.zst")


def _directory(directory: str) -> Iterator[Read]:
    """Read the times of all files, then the files in that order, one at a time."""
    timed: list[tuple[float, str]] = []
    without_time: list[str] = []
    for name in sorted(os.listdir(directory)):
        if name.startswith(".") or not name.endswith(_SUFFIXES):
            continue
        path = os.path.join(directory, name)
        document = _document(path)
        if isinstance(document, Failure):
            yield Skipped(f"reading {path}: {document.failure()}; skipped")
            continue
        at = document.unwrap().captured_at
        at = time_in_name(name) if at is None else at
        if at is None:
            without_time.append(name)
            at = max(0.0, os.stat(path).st_mtime)
        timed.append((at, name))

    if not timed:
        yield Broken(f"reading {directory}: no statuses in its *.json files; give a capture")
        return
    if without_time:
        more = len(without_time) - 1
        names = without_time[0] + (f" and of {more} more" if more else "")
        yield Note(
            f"reading {directory}: there is no time in the name of {names}; the modification time "
            "is used; name files like 2026-11-23T13:00:00Z.json"
        )
    for at, name in sorted(timed):
        path = os.path.join(directory, name)
        document = _document(path)
        if isinstance(document, Failure):
            yield Skipped(f"reading {path}: {document.failure()}; skipped")
            continue
        found = document.unwrap()
        yield Observation(at, found.boot, found.tailscaled_start, found.status, found.fault)


def _document(path: str) -> Result[_Document, str]:
    """Read a file of a directory. A bare status becomes the status of a document."""
    read = regular.read(path, LINE_LIMIT)
    content = read if isinstance(read, Failure) else _decompressed(read.unwrap())
    if isinstance(content, Failure):
        return Failure(content.failure())
    raw = to_utf8(content.unwrap())
    try:
        document = _DOCUMENT.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(problem(raw, error))
    has_status = bool(bytes(document.status))
    if has_status and document.fault is not None:
        return Failure(NOT_ONE)
    if has_status or document.fault is not None:
        return Success(document)
    return Success(replace(document, status=Raw(raw)))


def _decompressed(data: bytes) -> Result[bytes, str]:
    """Return the content of a file of limited size, decompressed."""
    content = bytearray()
    for piece in plain(io.BytesIO(data).read):
        if piece is None:
            return Failure("compressed data torn or damaged")
        content += piece
        if len(content) > LINE_LIMIT:
            return Failure(f"it is larger than {LINE_LIMIT // 2**20} MiB")
    return Success(bytes(content))
