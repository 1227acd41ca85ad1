"""README and docs, and the commands that they show."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
ALL = "".join(PAGES.values())
PROGRAMS = (
    "df",
    "journalctl",
    "ls",
    "make",
    "pip",
    "pipx",
    "promtool",
    "python",
    "sudo",
    "systemctl",
    "tailscale",
    "tsfc",
)
"What a command in a line of text begins with."
NAMES = (
    "promtool test rules",
    "systemctl restart",
    "systemctl restart …",
    "tailscale ping",
    "tsfc stand-in",
    "tsfc units",
)
"What of that is the name of a command and not a whole one."
MEANT = {
    "PEER": "bravo",
    "HOST": "bravo",
    "JOB": "exporter",
    "<job>": "exporter",
    "FILE": "/var/lib/alloy/tailscale-peers.prom",
}
"What stands for something of the reader's own, and what it may be."
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def scripts(page: str) -> list[str]:
    """Returns the blocks of a page that are for a shell."""
    return [text for kind, text in BLOCK.findall(PAGES[page]) if kind == "sh"]


def sessions(page: str) -> list[tuple[str, str]]:
    """Returns the commands of a page that are shown with what they print, and that."""
    return [
        (match[1], match[2])
        for kind, text in BLOCK.findall(PAGES[page])
        if kind == "console" and (match := re.match(r"\$ (.*)\n((?:.*\n)*)", text))
    ]


def inline(page: str) -> list[str]:
    """Returns the commands of a page that are shown in a line of text."""
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", BLOCK.sub("", PAGES[page]))
    return [
        span for span in spans if " " in span and span.split()[0] in PROGRAMS and span not in NAMES
    ]


def shown() -> list[tuple[str, str]]:
    """Returns all commands that are shown, each with its page: those of a page in a row, what is in its lines last."""
    return [
        (page, command)
        for page in PAGES
        for command in (*scripts(page), *(command for command, _ in sessions(page)), *inline(page))
    ]


def filled_in(command: str) -> str:
    """Returns a command with something for all that is the reader's own."""
    for word, meant in MEANT.items():
        command = command.replace(word, meant)
    return command
