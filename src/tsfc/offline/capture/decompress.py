"""Decompression of a capture, as a stream of bounded pieces.

A capture may come from somebody else. So the compressed data is read in pieces that are
small enough to bound the memory of their content, whatever that is.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

Take = Callable[[int], bytes]
"Returns the next bytes, up to the given number; none at the end."

GZIP, ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
"First bytes of each gzip member (RFC 1952) and of each zstd frame (RFC 8878)."
_PIECE = 2**18
"Bytes that are read at once from plain data."
_COMPRESSED_PIECE = 2**10
"""Bytes that are read at once from compressed data.

Four bytes of zstd can be a block of 128 KiB, so the content is at most 32 MiB. Larger
pieces are not faster.
"""
_SWALLOWED_PIECES = 2**12
"""Pieces in which the next member is searched after an error: 4 MiB.

A torn gzip member can swallow all of the next one: Huffman codes synchronize
themselves, and only the checksum at the end is wrong. A torn zstd frame swallows a
block, up to 128 KiB.
"""


class _Decompressor(Protocol):
    """Common interface of the decompressors of zlib and zstandard."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def plain(take: Take) -> Iterator[bytes | None]:
    """Yield the content in pieces, decompressed if its first bytes say so.

    None stands for data that could not be decompressed. No piece is larger than 32 MiB.
    """
    first = b""
    while len(first) < len(ZSTD) and (more := take(_COMPRESSED_PIECE)):
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

    After a damaged member, continue at the next magic number. It may be in data that
    the member has swallowed.
    """
    buffer, at = first, 0
    "Data that was taken, and where the part begins that is not decompressed yet."
    member, is_open = new(), False
    swallowed: deque[bytes] = deque(maxlen=_SWALLOWED_PIECES)
    while True:
        if at == len(buffer):
            buffer, at = take(_COMPRESSED_PIECE), 0
            if not buffer:
                break
        data = buffer[at : at + _COMPRESSED_PIECE]
        at += len(data)
        swallowed.append(data)
        try:
            content = member.decompress(data)
        except Exception as error:
            # `zlib.error`, or `zstandard.ZstdError`, which is not imported here.
            if type(error).__name__ not in {"error", "ZstdError"}:
                raise
            yield None
            buffer, at = _from_next(b"".join(swallowed) + buffer[at:], take, magic), 0
            member, is_open = new(), False
            swallowed.clear()
            continue
        if content:
            yield content

        # A member may end anywhere in the data; the next one begins right after it.
        is_open = not member.eof
        if not is_open:
            at -= len(member.unused_data)
            member = new()
            swallowed.clear()
    if is_open:
        yield None


def _from_next(data: bytes, take: Take, magic: bytes) -> bytes:
    """Return the data from the next magic number on, or nothing if there is none.

    The search skips the first byte, where the damaged member begins.
    """
    at = data.find(magic, 1)
    while at < 0:
        more = take(_COMPRESSED_PIECE)
        if not more:
            return b""
        data = data[-len(magic) + 1 :] + more
        at = data.find(magic)
    return data[at:]
