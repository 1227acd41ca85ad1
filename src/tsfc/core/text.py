"""Sanitizing of untrusted text.

Names, tags and error texts come from other machines. After sanitizing, they cannot
break out of a label, a log line or a file name.
"""

from __future__ import annotations

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"Replacement for an unprintable character."


def printable(text: str, limit: int) -> str:
    """Cut `text` to `limit` characters and replace the unprintable ones.

    Unprintable by Unicode (`str.isprintable`) are control characters, line and
    paragraph separators, direction marks and lone surrogates. So a newline cannot end a
    log line, and no escape sequence reaches a terminal.
    """
    text = text[:limit]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else REPLACEMENT for c in text)


def one_line(text: str, limit: int = 300) -> str:
    """Return `text` as one printable line, with whitespace collapsed, cut at `limit`.

    An ellipsis marks the cut. Meant for quotations in an error line.
    """
    line = " ".join(text.split())
    return printable(line, limit) + ("…" if len(line) > limit else "")
