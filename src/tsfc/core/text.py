"""Text from elsewhere, made safe to show.

Names, tags and error texts come from other people's machines. Whatever they hold, they stay inside the label, the log
line or the file name they are put into.
"""

from __future__ import annotations

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"What stands for a character that cannot be shown."


def printable(text: str, limit: int) -> str:
    """Returns `text` with every unprintable character replaced, and at most `limit` characters of it.

    Unprintable is what Unicode says (`str.isprintable`): control characters, line and paragraph separators, direction
    marks, lone surrogates. A newline cannot end a log line, an escape sequence cannot reach a terminal.
    """
    text = text[:limit]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else REPLACEMENT for c in text)


def one_line(text: str, limit: int = 300) -> str:
    """Returns `text` as one printable line, for the middle of an error line: white space folded, cut at `limit`."""
    folded = " ".join(text.split())
    shown = printable(folded, limit)
    return shown if len(folded) <= limit else shown + "…"
