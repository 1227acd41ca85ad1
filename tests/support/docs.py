"""The pages of README and docs, and the commands on them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [
        ROOT / "README.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted((ROOT / "src/tsfc/mixin").rglob("*.md")),
    ]
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
"First words of the commands in running text."
NAMES = (
    "promtool test rules",
    "systemctl restart",
    "systemctl restart …",
    "tailscale ping",
    "tsfc capture",
    "tsfc mixin",
    "tsfc replay",
    "tsfc report-bug",
    "tsfc simulate",
    "tsfc stand-in",
    "tsfc units",
)
"Names of commands that are not complete commands."
EXAMPLES = {
    "PEER": "bravo",
    "HOST": "bravo",
    "JOB": "exporter",
    "<job>": "exporter",
    "FILE": "/var/lib/alloy/tailscale-peers.prom",
}
"Value for each placeholder."
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def scripts(page: str) -> list[str]:
    """Shell scripts of a page."""
    return [text for kind, text in BLOCK.findall(PAGES[page]) if kind == "sh"]


def sessions(page: str) -> list[tuple[str, str]]:
    """Commands of a page with the output that the page shows."""
    return [
        (match[1], match[2])
        for kind, text in BLOCK.findall(PAGES[page])
        if kind == "console" and (match := re.match(r"\$ (.*)\n((?:.*\n)*)", text))
    ]


def inline(page: str) -> list[str]:
    """Commands in the running text of a page."""
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", BLOCK.sub("", PAGES[page]))
    return [
        span for span in spans if " " in span and span.split()[0] in PROGRAMS and span not in NAMES
    ]


def commands() -> list[tuple[str, str]]:
    """All commands with their pages, page by page; those in running text last."""
    return [
        (page, command)
        for page in PAGES
        for command in (*scripts(page), *(command for command, _ in sessions(page)), *inline(page))
    ]


def fill_in(command: str) -> str:
    """Replace the placeholders of a command."""
    for placeholder, value in EXAMPLES.items():
        command = command.replace(placeholder, value)
    return command
