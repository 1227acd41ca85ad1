"""Reads `ExecStart=` as systemd does, independently of the code that writes it."""

from __future__ import annotations

import re

ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "s": " ",
}
HEX = {"x": 2, "u": 4, "U": 8}


def exec_arguments(line: str) -> tuple[str, ...]:
    """Return the arguments in an `ExecStart=` line.

    See "Quoting" in systemd.syntax(7) and "Command Lines" in systemd.service(5). Fails
    for specifiers (`%n`), variables (`$HOME`), two commands (`;`) and invalid lines.
    """
    name, _, command = line.partition("=")
    assert name == "ExecStart"
    assert not set(command) & set("\n\r\0"), "the line ends early"
    assert not command.endswith("\\"), "the next line is the same line"
    words: list[str] = []
    rest = command.strip(" \t")
    while rest:
        word, rest = _word(rest)
        words.append(word)
        rest = rest.lstrip(" \t")
    assert words[0][0] not in "@-:+!|", "a prefix"
    return (
        _unescaped(words[0], "%"),
        *(_unescaped(_unescaped(word, "%"), "$") for word in words[1:]),
    )


def _word(text: str) -> tuple[str, str]:
    """Return the first word and the rest."""
    word, quote, at = "", "", 0
    assert text.split(maxsplit=1)[0] not in {";", "\\;"}, "the next command"
    while at < len(text) and (quote or text[at] not in " \t"):
        char = text[at]
        at += 1
        if char == "\\":
            escaped, at = _escape(text, at)
            word += escaped
        elif quote:
            word, quote = (word, "") if char == quote else (word + char, quote)
        elif char in "\"'":
            assert at == 1, "a quote inside of a word"
            quote = char
        else:
            word += char
    assert not quote, "a quote that is not closed"
    return word, text[at:]


def _escape(text: str, at: int) -> tuple[str, int]:
    """Return the character of an escape and its end; `at` is behind the backslash."""
    if text[at] in ESCAPES:
        return ESCAPES[text[at]], at + 1
    digits = HEX[text[at]]
    number = int(text[at + 1 : at + 1 + digits], 16)
    assert number, "systemd takes no NUL"
    return chr(number), at + 1 + digits


def _unescaped(word: str, sign: str) -> str:
    parts = word.split(sign * 2)
    assert not any(sign in part for part in parts), f"{word} has a {sign} with a special meaning"
    return sign.join(parts)


def joined(text: str) -> str:
    """Return the text of a unit without comments, one line per directive.

    A backslash at the end of a line continues it; comments between are ignored.
    """
    lines = [line for line in text.split("\n") if not re.match(r"[ \t]*[#;]", line)]
    return "\n".join(lines).replace("\\\n", " ")


def command(text: str) -> tuple[str, ...]:
    """Return the arguments in the only command line of a unit."""
    (line,) = [line for line in joined(text).split("\n") if line.startswith("ExecStart=")]
    return exec_arguments(line)
