"""JSON that another program wrote: its encoding, and why it cannot be decoded.

tailscaled writes UTF-8. But `tailscale status --json > status.json` in Windows
PowerShell 5 writes UTF-16, and editors on Windows may add a byte order mark.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import chain

import msgspec

from tsfc.core.text import one_line

_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
"The byte order marks of UTF-16, each with its encoding."
_MARK_SIZE = 2
_QUOTATION = 40
"Length of a quotation, in characters."
_TRAILING = re.compile(r"trailing characters \(byte ([0-9]+)\)")
"msgspec's error if something follows the document, with the number of its first byte."


def to_utf8(raw: bytes) -> bytes:
    """Return a text as UTF-8 without a byte order mark.

    UTF-16 is recognized by its mark; what is invalid in it becomes U+FFFD. Anything
    else is returned as it is.
    """
    # JSON begins with ASCII: for nearly every input, the first byte decides.
    if raw[:1] not in {b"\xef", b"\xff", b"\xfe"}:
        return raw
    encoding = _UTF_16.get(raw[:_MARK_SIZE])
    if encoding is None:
        return raw.removeprefix(codecs.BOM_UTF8)
    return raw[_MARK_SIZE:].decode(encoding, errors="replace").encode()


def stream_to_utf8(pieces: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """Convert a stream from UTF-16, if its first piece begins with a byte order mark.

    Any other stream is unchanged. None is a damaged part.
    """
    first = next(pieces, b"")
    encoding = _UTF_16.get((first or b"")[:_MARK_SIZE])
    if first is None or encoding is None:
        yield first
        yield from pieces
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for piece in chain((first[_MARK_SIZE:],), pieces):
        if piece is None:
            decoder.reset()
            yield None
        else:
            yield decoder.decode(piece).encode()
    yield decoder.decode(b"", final=True).encode()


def problem(raw: bytes, error: Exception) -> str:
    """Return why the decoder failed with `error`, as one printable line.

    An input that is no JSON at all is quoted, as is what follows a document.
    """
    if not raw.strip():
        return "it is empty"
    if found := _TRAILING.search(str(error)):
        return f"more text after the JSON: {_quoted(raw[int(found[1]) - 1 :])}"
    if not raw.lstrip().startswith(b"{") and not _is_json(raw):
        return f"it is not JSON, but: {_quoted(raw)}"
    return one_line(str(error))


def _quoted(raw: bytes) -> str:
    # The slice bounds the work; a character has at most 4 bytes.
    text = raw.lstrip()[: 8 * _QUOTATION].decode(errors="replace")
    return f'"{one_line(text, _QUOTATION)}"'


def _is_json(raw: bytes) -> bool:
    try:
        msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
