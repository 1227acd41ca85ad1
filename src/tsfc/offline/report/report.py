"""The report of `replay` and `simulate`: one HTML file to look at.

It holds all that it needs and asks no network for anything, which its Content-Security-Policy enforces: the one style sheet and
the one script that it names by their digests are those beside this file in `page/`. Names come from other people's machines;
they are escaped, in the markup by Jinja and in the data by `_data`.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib import import_module
from importlib.resources import files
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct

from tsfc.core.evaluation.timeline import PATHS, REASONS, SHIFT, SIGHTS, Lane, Timeline
from tsfc.shell.atomic import atomic_write, write_all
from tsfc.shell.console import print_error

_PAGE = files("tsfc.offline.report") / "page"


class Table(Struct, frozen=True):
    """A table; the first cell of a row is its name, the others are numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Spread(Struct, frozen=True):
    """How a number is spread over many runs."""

    name: str
    median: int
    p5: int
    p95: int
    worst: int
    most: int
    "Of this number under all policies: the end of the scale."


class Distribution(Struct, frozen=True):
    """What many runs under one policy came to."""

    policy: str
    rows: Sequence[Spread]


class Drawing(Struct, frozen=True):
    """A timeline, and of what it is."""

    timeline: Timeline
    of: str
    peers: Sequence[str]
    "In the order of the lanes."


class Document(Struct, frozen=True):
    """All that a report says."""

    title: str
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()
    drawing: Drawing | None = None
    peers: Table | None = None
    comparison: Table | None = None
    distributions: Sequence[Distribution] = ()


def missing() -> str | None:
    """Returns, in one line, what is not installed of what a report takes; None for nothing. To be asked before the work is done."""
    try:
        import_module("jinja2")
    except ImportError:
        return "--report takes Jinja, which is not installed; install tsfc[report]"
    return None


def write(tool: str, path: str, document: Document) -> int:
    """Puts the report at `path`, as a whole or not at all; returns the exit status, having said in `tool`'s name what went wrong."""
    directory, name = os.path.split(os.path.abspath(path))
    try:
        with atomic_write(
            path, os.path.join(directory, f".{name}.{os.getpid()}.tmp"), 0o644
        ) as descriptor:
            write_all(descriptor, page(document).encode())
    except OSError as error:
        print_error(
            tool,
            f"writing {path}: {error.strerror}; give a --report that can be written, on a disk with room",
        )
        return 1
    return 0


def page(document: Document) -> str:
    """Returns the HTML. Jinja has to be installed."""
    jinja2: Any = import_module("jinja2")  # it is optional
    style, script = ((_PAGE / name).read_text("utf-8") for name in ("report.css", "report.js"))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((_PAGE / "report.html.j2").read_text("utf-8"))
    rendered: str = template.render(
        document=document,
        data=None if document.drawing is None else _data(document.drawing),
        style=style,
        script=script,
        style_digest=_digest(style),
        script_digest=_digest(script),
    )
    return rendered


def _data(drawing: Drawing) -> str:
    """Returns the timeline as JSON that may stand in a `script` element: nothing in it can end one."""
    timeline = drawing.timeline
    first = min(
        [lane.starts[0] for lane in (timeline.node, *timeline.peers.values()) if lane.starts],
        default=0,
    )
    data = {
        "from": first,
        "to": timeline.last or first,
        "resolution": timeline.resolution,
        "shift": SHIFT,
        "paths": PATHS,
        "reasons": REASONS,
        "sights": SIGHTS,
        "texts": timeline.texts,
        "node": _lane(timeline.node, first),
        "peers": [
            {"name": name, **_lane(timeline.peers.get(name, Lane()), first)}
            for name in drawing.peers
        ],
        "counters": timeline.counters,
    }
    text = msgspec.json.encode(data).decode()
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _lane(lane: Lane, first: int) -> dict[str, list[int]]:
    """Returns a lane with each start as seconds after the one before, the first after `first`: small numbers are short."""
    return {
        "starts": [later - earlier for earlier, later in pairwise([first, *lane.starts])],
        "values": lane.values,
    }


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
