"""The parts of a page with a timeline: the files in `page/`.

The reports and the live page of the agent have the same markup, scripts and style for
it. Scripts and style are in the page; its Content-Security-Policy allows only those, by
their digests.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from string import Template

_PAGE = files("tsfc.offline.report") / "page"
_SCRIPTS = ("data.js", "view.js", "draw.js", "input.js", "print.js")


def read(name: str) -> str:
    """Return the text of a file."""
    return (_PAGE / name).read_text("utf-8")


def style() -> str:
    """Return the style of all pages."""
    return read("report.css")


def script(*more: str) -> str:
    """Return the scripts as one, inside a function so that no name is global.

    `more` names files that only this page needs. They come last.
    """
    return f'"use strict";\n(() => {{\n{"".join(map(read, (*_SCRIPTS, *more)))}}})();\n'


def timeline(caption: str) -> str:
    """Return the markup of the timeline and the counters."""
    return Template(read("timeline.html")).substitute(caption=escape(caption))


def program() -> str:
    """Return the name and the version of this program: `tsfc 1.2.3`.

    A copy that was not installed has no version.
    """
    try:
        return f"tsfc {version('tsfc')}"
    except PackageNotFoundError:
        return "tsfc"


def digest(text: str) -> str:
    """Return a text's source for a Content-Security-Policy."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
