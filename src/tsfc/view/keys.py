"""Keys of `tsfc peers --watch`, and how they scroll the table."""

from __future__ import annotations

import re
from enum import Enum, auto


class Key(Enum):
    """What a key does."""

    QUIT = auto()
    UP = auto()
    DOWN = auto()
    PAGE_UP = auto()
    PAGE_DOWN = auto()
    TOP = auto()
    BOTTOM = auto()


KEYS = {
    b"q": Key.QUIT,
    b"Q": Key.QUIT,
    b"\x03": Key.QUIT,
    **dict.fromkeys((b"k", b"\x1b[A", b"\x1bOA"), Key.UP),
    **dict.fromkeys((b"j", b"\x1b[B", b"\x1bOB"), Key.DOWN),
    **dict.fromkeys((b"b", b"\x1b[5~"), Key.PAGE_UP),
    **dict.fromkeys((b" ", b"\x1b[6~"), Key.PAGE_DOWN),
    **dict.fromkeys((b"g", b"\x1b[H", b"\x1bOH", b"\x1b[1~"), Key.TOP),
    **dict.fromkeys((b"G", b"\x1b[F", b"\x1bOF", b"\x1b[4~"), Key.BOTTOM),
}
"""Keys as a terminal sends them: letters, and the cursor keys of xterm and tmux.

Source: `kcuu1`, `kpp`, `khome` and the like of terminfo, in both modes of the cursor
keys.
"""
_SEQUENCE = re.compile(rb"\x1b\[[0-9;?]*[@-~]|\x1bO.|.", re.DOTALL)
_INCOMPLETE = re.compile(rb"\x1b(\[[0-9;?]{0,16}|O)?\Z")
"The beginning of a sequence, at the end of what was read."


def decode(data: bytes) -> tuple[tuple[Key, ...], bytes]:
    """Return the known keys in what was read, and the rest that is not complete yet."""
    tail = _INCOMPLETE.search(data)
    rest = tail[0] if tail else b""
    sequences = _SEQUENCE.findall(data[: len(data) - len(rest)])
    return tuple(KEYS[sequence] for sequence in sequences if sequence in KEYS), rest


def scrolled(first: int, key: Key | None, rows: int, room: int) -> int:
    """Return the index of the first row to show after a key.

    `room` is the number of rows that are shown at once. Without a key, `first` only
    changes if there are fewer rows than before.
    """
    moved = {
        Key.UP: first - 1,
        Key.DOWN: first + 1,
        Key.PAGE_UP: first - room,
        Key.PAGE_DOWN: first + room,
        Key.TOP: 0,
        Key.BOTTOM: rows,
    }
    wanted = first if key is None else moved.get(key, first)
    return max(0, min(wanted, rows - room))
