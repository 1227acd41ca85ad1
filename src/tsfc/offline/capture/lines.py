"""The lines of a stream of bytes, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

LINE_LIMIT = 256 * 2**20
"Maximum length of a line, in bytes: the limit on a response of tailscaled."
_WINDOW = 2**16
"Bytes in which a run of whitespace is measured at once."


class Line(Struct, frozen=True):
    """A line that is not blank, without its line feed."""

    number: int
    text: bytes | None
    "None if the line is longer than `LINE_LIMIT`."
    is_ended: bool = True
    "Whether a line feed follows. Only the last line may lack it."


class Dropped(Struct, frozen=True):
    """Bytes that are part of no `Line`: blank lines, or a part of a line.

    That is one that is too long, or whose end is missing.
    """

    size: int


class Damaged(Struct, frozen=True):
    """A part of the stream that is missing, and with it the end of a line."""

    after: int
    "Number of the last whole line before it."


def lines(pieces: Iterator[bytes | None]) -> Iterator[Line | Dropped | Damaged]:
    """Yield the lines that are not blank; None in `pieces` is a damaged part.

    Leading whitespace of a line is dropped.
    """
    ended = 0
    "Number of lines that have ended."
    parts: list[bytes] = []
    "The current line; empty if it is too long."
    size = 0
    "Bytes of the current line, without leading whitespace."
    for piece in pieces:
        if piece is None:
            if parts:
                yield Dropped(size)
            yield Damaged(ended)
            parts, size = [], 0
            continue
        at = 0
        while at < len(piece):
            # Blank lines, and the leading whitespace of a line.
            if size == 0 and (begin := _end_of_blank(piece, at)) > at:
                ended += piece.count(b"\n", at, begin)
                yield Dropped(begin - at)
                at = begin
                continue

            # The rest of the line, or of the piece. Keep only the size of a long line.
            feed = piece.find(b"\n", at)
            end = len(piece) if feed < 0 else feed
            size += end - at
            if size <= LINE_LIMIT:
                parts.append(piece[at:end])
            else:
                parts = []
                yield Dropped(end - at)
            at = end + 1
            if feed >= 0:
                ended += 1
                yield Line(ended, _joined(parts, size))
                parts, size = [], 0

    # The last line has no line feed: whole, or torn by a crash.
    if size:
        yield Line(ended + 1, _joined(parts, size), is_ended=False)


def _joined(parts: list[bytes], size: int) -> bytes | None:
    return None if size > LINE_LIMIT else b"".join(parts)


def _end_of_blank(piece: bytes, at: int) -> int:
    """Return where the whitespace that begins at `at` ends."""
    while piece[at : at + 1].isspace():
        window = piece[at : at + _WINDOW]
        at += len(window) - len(window.lstrip())
    return at
