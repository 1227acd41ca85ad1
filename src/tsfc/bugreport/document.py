"""The report as a text that a person can read and check before sending it."""

from __future__ import annotations

from msgspec import Struct

from tsfc.core.text import counted

REDACTED = (
    "names of nodes and peers, IP addresses, keys, IDs, users, tags, domains, tailnets, "
    "instances of units, and every word that tsfc does not know"
)
KEPT = (
    "times, byte counts, ports in the status, versions, operating systems, public DERP regions, "
    "and the words of tsfc's own messages"
)
STATUS = "status"
"Title of the section that `tsfc replay` can read."


class Section(Struct, frozen=True):
    """A part of the report, already redacted."""

    title: str
    lines: tuple[str, ...]
    omitted: int = 0
    "Number of lines that were left out because there were too many."


def render(sections: tuple[Section, ...]) -> str:
    """Return the text of the report."""
    return "".join(
        (
            "Report for a bug of tsfc, written by `tsfc report-bug`.\n",
            "A node or peer has the same pseudonym in each section.\n",
            f"Replaced: {REDACTED}.\n",
            f"Kept: {KEPT}.\n",
            *(_section(section) for section in sections),
        )
    )


def contents(sections: tuple[Section, ...], missing: tuple[str, ...]) -> str:
    """Return the table of contents, for the person who decides whether to send it."""
    width = max((len(section.title) for section in sections), default=0)
    rows = (
        f"  {section.title:{width}}  {counted(len(section.lines), 'line')}{_omitted(section)}\n"
        for section in sections
    )
    return "".join(
        (
            "It has these sections:\n",
            *rows,
            *(f"Missing: {line}\n" for line in missing),
            f"Replaced by pseudonyms: {REDACTED}.\n",
            f"Kept: {KEPT}.\n",
            "Nothing was sent. Read the file before you attach it to an issue.\n",
        )
    )


def _section(section: Section) -> str:
    rest = (f"… {counted(section.omitted, 'line')} left out",) if section.omitted else ()
    return "\n".join((f"\n== {section.title} ==", *section.lines, *rest, ""))


def _omitted(section: Section) -> str:
    return f", {section.omitted} left out" if section.omitted else ""
