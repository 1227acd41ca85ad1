"""Sanitizing of untrusted text.

Names, tags and error texts come from other machines. After sanitizing, they cannot
break out of a label, a log line or a file name.
"""

from __future__ import annotations

import re

import msgspec

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"Replacement for an unprintable character."
PATH_LIMIT = 4096
"Longest path of Linux, in bytes."

_DIGITS = re.compile("([0-9]+)")
_BLANK = frozenset(
    "\N{COMBINING GRAPHEME JOINER}"
    "\N{HANGUL CHOSEONG FILLER}\N{HANGUL JUNGSEONG FILLER}"
    "\N{HANGUL FILLER}\N{HALFWIDTH HANGUL FILLER}"
    "\N{KHMER VOWEL INHERENT AQ}\N{KHMER VOWEL INHERENT AA}"
    "\N{BRAILLE PATTERN BLANK}"
)
"""Characters that show nothing although Unicode classifies them as printable.

They are the Default_Ignorable_Code_Points that `str.isprintable` accepts, without the
variation selectors, which emoji contain; and the blank of Braille.
"""


def printable(text: str, limit: int) -> str:
    """Cut `text` to `limit` characters and replace the unprintable ones.

    Unprintable by Unicode (`str.isprintable`) are control characters, line and
    paragraph separators, direction marks and lone surrogates. So a newline cannot end a
    log line, and no escape sequence reaches a terminal. Characters that show nothing
    are replaced, too, so that no name looks empty or like another name.
    """
    text = text[:limit]
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_visible(c) else REPLACEMENT for c in text)


def printable_json(value: object) -> str:
    r"""Return a value as JSON on one printable line.

    An unprintable character is written as `\uXXXX`, which has the same value.
    """
    text = msgspec.json.encode(value).decode()
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_visible(c) else _escaped(c) for c in text)


def _is_visible(character: str) -> bool:
    return character.isprintable() and character not in _BLANK


def _escaped(character: str) -> str:
    """Return the escape sequence of JSON: one per UTF-16 code unit."""
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, whose plural ends in s: `1 peer`, `2 peers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def natural_key(text: str) -> tuple[tuple[tuple[str, int, str], ...], str]:
    """Return the key that sorts texts as people do: `host2` before `host10`.

    Upper and lower case are the same. Equal keys mean equal texts.
    """
    # Numbers are compared by their lengths first, because `int` limits its input.
    parts = _DIGITS.split(text.casefold())
    words, numbers = parts[::2], [part.lstrip("0") for part in parts[1::2]] + [""]
    return tuple(
        (word, len(number), number) for word, number in zip(words, numbers, strict=True)
    ), text


def one_line(text: str, limit: int = 300) -> str:
    """Return `text` as one printable line, with whitespace collapsed, cut at `limit`.

    An ellipsis marks the cut. Meant for quotations in an error line.
    """
    line = " ".join(text.split())
    return printable(line, limit) + ("…" if len(line) > limit else "")
