"""Where observations come from: captures, plain or compressed, here or elsewhere, directories of statuses, standard input.

All is read as a stream: what is held is one line. What cannot be read is said and skipped, for a capture ends where its host
crashed, and goes on behind that.
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
"Bytes of one line: as much as tailscaled may answer."
_PIECE = 2**18
_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[^/]*)?://")
"Also a chain of them, such as `zip://a.ndjson::s3://bucket/captures.zip`."
GZIP, ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
"With what each member of a gzip file begins (RFC 1952), and each frame of a zstd file (RFC 8878)."


class Skipped(Struct, frozen=True):
    """Something that is no observation, or cannot be read; what comes behind it can."""

    detail: str
    "One line."
    is_torn: bool = False
    "A crash left it so: the end of a capture, or of what was written before one."


class Broken(Struct, frozen=True):
    """The reading ended before the end."""

    detail: str
    "One line."


T = TypeVar("T")
Read = Observation | Skipped | Broken
Take = Callable[[int], bytes]
"Gives the next bytes, so many at most; none at the end."


class _Decompressor(Protocol):
    """What zlib's and zstandard's decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def observations(source: str) -> Iterator[Read]:
    """Returns what a file, a URL, a directory of `*.json`, or standard input (`-`) holds, in the order of the lines; of a directory in that of the times."""
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
        yield Broken(f"reading {name}: {error.strerror or error}; give a capture that can be read")


def in_order(source: str, warn: Callable[[str], None]) -> Result[tuple[Observation, ...], str]:
    """Reads a whole capture, in the order of its times, equal ones in that of the lines.

    What is torn is skipped, and `warn` is told. Fails, in one line, where anything else is unusable, or there is nothing.
    """
    seen: list[Observation] = []
    for read in observations(source):
        if isinstance(read, Skipped) and read.is_torn:
            warn(read.detail)
            continue
        if not isinstance(read, Observation):
            return Failure(
                f"{read.detail.removesuffix('; skipped')}; a capture has one observation a line"
                if isinstance(read, Skipped)
                else read.detail
            )
        status = Success(None) if read.fault is not None else decode(bytes(read.status))
        if isinstance(status, Failure):
            return Failure(
                f"reading {source}: the observation at {read.captured_at:.3f}: {status.failure().detail}"
            )
        seen.append(read)
    if not seen:
        return Failure(
            f"reading {source}: it is empty; give a capture with at least one observation"
        )
    return Success(tuple(sorted(seen, key=lambda observation: observation.captured_at)))


def _remote(url: str) -> Iterator[Read]:
    """Reads what fsspec knows how to reach. What goes wrong there is an `OSError` here, whatever its own library calls it."""
    try:
        fsspec: Any = import_module("fsspec")  # it is optional, and has no types
    except ImportError:
        yield Broken(
            f"reading {url}: fsspec is not installed, which reads URLs; install tsfc[fleet]"
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
        if piece is None:
            yield Skipped(
                f"reading {name}: after line {number}: what is compressed there is torn or damaged; skipped",
                is_torn=True,
            )
            rest, size = [], 0
            continue
        *lines, tail = piece.split(b"\n")
        for line in lines:
            number += 1
            whole = b"".join((*rest, line)) if rest else line
            if size + len(line) > LINE_LIMIT:
                yield Skipped(
                    f"reading {name}: line {number}: it is longer than {LINE_LIMIT // 2**20} MiB; skipped"
                )
            elif whole.strip():
                yield _observation(whole, f"reading {name}: line {number}: ")
            rest, size = [], 0
        size += len(tail)
        if size <= LINE_LIMIT:
            rest.append(tail)
        else:
            rest = []
    last = b"".join(rest)
    if last.strip():
        whole_last = _observation(last, f"reading {name}: line {number + 1}: ")
        torn = Skipped(
            f"reading {name}: line {number + 1}: it is torn, as a crash leaves the last one; skipped",
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
    """Returns the content piece by piece, decompressed where it begins like something compressed; None stands for what could not be."""
    first = b""
    while len(first) < len(ZSTD) and (more := take(_PIECE)):
        first += more
    if first.startswith(GZIP):
        return _members(first, take, GZIP, lambda: zlib.decompressobj(wbits=31))
    if first.startswith(ZSTD):
        import zstandard  # noqa: PLC0415 - most captures are not

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
    """Decompresses one member after the other. Behind one that is torn it goes on at the next that begins in what was read."""
    data = first
    member, is_open = new(), False
    while data:
        try:
            plain = member.decompress(data)
        except Exception as error:
            if type(error).__name__ not in {
                "error",
                "ZstdError",
            }:  # zlib's and zstandard's, of which the latter is not imported here
                raise
            yield None
            data = _from_next(data, take, magic)
            member, is_open = new(), False
            continue
        if plain:
            yield plain
        is_open = not member.eof
        if is_open:
            data = take(_PIECE)
        else:
            data, member = member.unused_data or take(_PIECE), new()
    if is_open:
        yield None


def _from_next(data: bytes, take: Take, magic: bytes) -> bytes:
    """Returns what begins with the next member after the beginning of `data`; nothing where there is none."""
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
    """What a document in a directory says of itself: an observation, or a bare status."""

    captured_at: float | None = None
    status: Raw = Raw()
    fault: str | None = None


_HEAD = msgspec.json.Decoder(_Head)
_UNIX = re.compile(r"(?:^|[^0-9])([0-9]{9,11}(?:\.[0-9]+)?)$")
_ISO = re.compile(
    r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})[T_ ]([0-9]{2})[:-]?([0-9]{2})[:-]?([0-9]{2})(?:\.[0-9]+)?(Z|[+-][0-9]{2}:?[0-9]{2})?$"
)


def _directory(directory: str) -> Iterator[Read]:
    """Twice through: the times, then the documents, of which one is held."""
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
    """Returns when a document was made: it says so, or its name does, or the file system."""
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
