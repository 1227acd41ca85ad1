"""Reading captures: plain or compressed files, URLs, directories, standard input.

Everything is read as a stream; memory holds one line. Damaged records are skipped with
a warning: a crash can leave one in the middle of a capture.
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
"Maximum size of a line in bytes: that of a response of tailscaled."
_PIECE = 2**18
_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[^/]*)?://")
"A URL, or a chain such as `zip://a.ndjson::s3://bucket/captures.zip`."
GZIP, ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
"""First bytes of a member of a gzip file (RFC 1952) and a frame of a zstd file (RFC
8878)."""


class Skipped(Struct, frozen=True):
    """A damaged record; reading continues after it."""

    detail: str
    "One line."
    is_torn: bool = False
    """Whether a crash can have left it: at the end of a capture, or before a later
    start."""


class Broken(Struct, frozen=True):
    """Reading stopped before the end."""

    detail: str
    "One line."


T = TypeVar("T")
Read = Observation | Skipped | Broken
Take = Callable[[int], bytes]
"Return up to this many bytes; none at the end."


class _Decompressor(Protocol):
    """Interface that the decompressors of zlib and zstandard share."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def observations(source: str) -> Iterator[Read]:
    """Yield the observations of a source, in the order of its lines.

    A source is a file, a URL, standard input (`-`), or a directory of `*.json`, which
    is read in the order of its times.
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
        yield Broken(f"reading {name}: {error.strerror or error}; give a capture that can be read")


def in_order(source: str, warn: Callable[[str], None]) -> Result[tuple[Observation, ...], str]:
    """Read a whole capture, in the order of its times, then of its lines.

    Torn records are skipped, with a call of `warn`. Fails with one line if something
    else is unusable, or if there is no observation.
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
                f"reading {source}: the observation at {read.captured_at:.3f}: "
                f"{status.failure().detail}"
            )
        seen.append(read)
    if not seen:
        return Failure(
            f"reading {source}: it is empty; give a capture with at least one observation"
        )
    return Success(tuple(sorted(seen, key=lambda observation: observation.captured_at)))


def _remote(url: str) -> Iterator[Read]:
    """Open what fsspec can reach; every error of its libraries becomes an `OSError`."""
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
                f"reading {name}: after line {number}: "
                "the compressed data are torn or damaged; skipped",
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
                    f"reading {name}: line {number}: "
                    f"it is longer than {LINE_LIMIT // 2**20} MiB; skipped"
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
            f"reading {name}: line {number + 1}: "
            "it is torn, as a crash leaves the last one; skipped",
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
    """Yield the content in pieces, decompressed if it begins like compressed data.

    None stands for data that could not be decompressed.
    """
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
    """Decompress one member after the other.

    After a damaged member, continue at the next one within the data read so far.
    """
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
    """Return the data from the next member on; empty if there is none."""
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
    """A document in a directory: an observation, or a bare status."""

    captured_at: float | None = None
    status: Raw = Raw()
    fault: str | None = None


_HEAD = msgspec.json.Decoder(_Head)
_UNIX = re.compile(r"(?:^|[^0-9])([0-9]{9,11}(?:\.[0-9]+)?)$")
_ISO = re.compile(
    r"([0-9]{4})-?([0-9]{2})-?([0-9]{2})[T_ ]"
    r"([0-9]{2})[:-]?([0-9]{2})[:-]?([0-9]{2})(?:\.[0-9]+)?(Z|[+-][0-9]{2}:?[0-9]{2})?$"
)


def _directory(directory: str) -> Iterator[Read]:
    """Yield the documents of a directory, sorted by time.

    Each is read twice: first for its time, then for its content. Memory holds one.
    """
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
    """Time of a document: its own, else that in its name, else that of the file."""
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
