"""Read observations: from a capture, a URL, a directory of statuses, or standard input.

A capture is plain or compressed. It is read as a stream, one line in memory at a time.
Unreadable parts are reported and skipped: a crash of the host may damage a record in
the middle of a capture, because later runs append to it.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Raw, Struct
from returns.result import Failure, Result, Success

from tsfc.core.evaluation.observation import Observation, parse
from tsfc.core.tailscale.status import decode
from tsfc.core.text import one_line
from tsfc.shell.console import STDIN
from tsfc.shell.tailscaled.observe import STANDARD_INPUT

LINE_LIMIT = 256 * 2**20
"Maximum length of a line, in bytes: the limit on a response of tailscaled."
_PIECE = 2**18
_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[^/]*)?://")
"Matches chained URLs too, such as `zip://a.ndjson::s3://bucket/captures.zip`."
GZIP, ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
"First bytes of each gzip member (RFC 1952) and of each zstd frame (RFC 8878)."


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
Take = Callable[[int], bytes]
"Returns the next bytes, up to the given number; none at the end."


class _Decompressor(Protocol):
    """Common interface of the decompressors of zlib and zstandard."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


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
    number = 0
    rest: list[bytes] = []
    size = 0
    for piece in _plain(take):
        # A damaged part: drop the beginning of a line before it.
        if piece is None:
            yield Skipped(
                f"reading {name}: after line {number}: compressed data torn or damaged; skipped",
                is_torn=True,
            )
            rest, size = [], 0
            continue

        # The lines that end in this piece; the first may have begun in an earlier one.
        *lines, tail = piece.split(b"\n")
        for line in lines:
            number += 1
            whole = b"".join((*rest, line)) if rest else line
            if size + len(line) > LINE_LIMIT:
                limit = f"{LINE_LIMIT // 2**20} MiB"
                yield Skipped(f"reading {name}: line {number}: longer than {limit}; skipped")
            elif whole.strip():
                yield _observation(whole, f"reading {name}: line {number}: ")
            rest, size = [], 0

        # The beginning of the next line; of a line that is too long, only its size.
        size += len(tail)
        if size <= LINE_LIMIT:
            rest.append(tail)
        else:
            rest = []

    # A last line without line feed: whole, or torn by a crash.
    last = b"".join(rest)
    if last.strip():
        whole_last = _observation(last, f"reading {name}: line {number + 1}: ")
        torn = Skipped(
            f"reading {name}: line {number + 1}: torn, as after a crash; skipped",
            is_torn=True,
        )
        yield torn if isinstance(whole_last, Skipped) else whole_last


def _observation(line: bytes, prefix: str) -> Observation | Skipped:
    parsed = parse(line)
    return (
        Skipped(f"{prefix}{parsed.failure()}; skipped")
        if isinstance(parsed, Failure)
        else parsed.unwrap()
    )


def _plain(take: Take) -> Iterator[bytes | None]:
    """Yield the content in pieces, decompressed if its first bytes say so.

    None stands for data that could not be decompressed.
    """
    first = b""
    while len(first) < len(ZSTD) and (more := take(_PIECE)):
        first += more
    if first.startswith(GZIP):
        return _members(first, take, GZIP, lambda: zlib.decompressobj(wbits=31))
    if first.startswith(ZSTD):
        import zstandard  # noqa: PLC0415 - only for zstd

        return _members(first, take, ZSTD, lambda: zstandard.ZstdDecompressor().decompressobj())
    return _pieces(first, take)


def _pieces(first: bytes, take: Take) -> Iterator[bytes]:
    piece = first
    while piece:
        yield piece
        piece = take(_PIECE)


def _members(
    first: bytes, take: Take, magic: bytes, new: Callable[[], _Decompressor]
) -> Iterator[bytes | None]:
    """Yield the decompressed members; None for a damaged one.

    After a damaged member, continue at the next magic number.
    """
    data = first
    member, is_open = new(), False
    while data:
        try:
            plain = member.decompress(data)
        except Exception as error:
            # `zlib.error`, or `zstandard.ZstdError`, which is not imported here.
            if type(error).__name__ not in {"error", "ZstdError"}:
                raise
            yield None
            data = _from_next(data, take, magic)
            member, is_open = new(), False
            continue
        if plain:
            yield plain

        # A member may end anywhere in the data; the next one begins right after it.
        is_open = not member.eof
        if is_open:
            data = take(_PIECE)
        else:
            data, member = member.unused_data or take(_PIECE), new()
    if is_open:
        yield None


def _from_next(data: bytes, take: Take, magic: bytes) -> bytes:
    """Return the data from the next magic number on, or nothing if there is none.

    The search skips the first byte, where the damaged member begins.
    """
    at = data.find(magic, 1)
    while at < 0:
        more = take(_PIECE)
        if not more:
            return b""
        data = data[-len(magic) + 1 :] + more
        at = data.find(magic)
    return data[at:]


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
            head = _head(os.path.join(directory, name))
            if isinstance(head, Skipped):
                yield head
            else:
                timed.append((_time(os.path.join(directory, name), head), name))
    for at, name in sorted(timed):
        path = os.path.join(directory, name)
        head = _head(path)
        if isinstance(head, Skipped):
            yield head
        elif head.fault is not None and not bytes(head.status):
            yield Observation(at, fault=head.fault)
        else:
            yield Observation(at, status=head.status if bytes(head.status) else Raw(_bytes(path)))


def _head(path: str) -> _Head | Skipped:
    try:
        return _HEAD.decode(_bytes(path))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Skipped(f"reading {path}: {' '.join(str(error).split())}; skipped")
    except OSError as error:
        return Skipped(f"reading {path}: {error.strerror}; skipped")


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(LINE_LIMIT)


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
