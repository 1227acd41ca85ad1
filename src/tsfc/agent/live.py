"""The live page of the agent: what it saw in the last day, as it happens.

The page asks for `/api/history` when a job may have looked at the peers, and for
`/api/table` after a change or 15 seconds. It shows texts from other people's machines:
scripts set them as text only, and its Content-Security-Policy allows only the style and
the script of this package, and requests to this server.
"""

from __future__ import annotations

from functools import cache
from html import escape
from math import ceil
from string import Template

import msgspec
from returns.result import Result

from tsfc.agent.http import Answer
from tsfc.agent.pages import JSON
from tsfc.core.agent.history import DAY_SECONDS, History, order, record_look, record_run
from tsfc.core.agent.paths import LONGEST_SECONDS
from tsfc.core.agent.runs import OVERDUE_INTERVALS
from tsfc.core.clock import Instant
from tsfc.core.faults import Fault
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.run import Run
from tsfc.offline.report import assets, drawing
from tsfc.offline.report.document import Drawing
from tsfc.view import cells
from tsfc.view.model import View

HTML = "text/html; charset=utf-8"
CAPTION = "The last 24 hours, since the agent started. Rapid changes are merged into the worst."


class Live:
    """The history, and the responses about it."""

    def __init__(self, look_seconds: float) -> None:
        """`look_seconds` is the usual time between two looks."""
        longest = max(LONGEST_SECONDS, int(OVERDUE_INTERVALS * look_seconds))
        self._history = History(longest_seconds=longest)
        self._data: bytes | None = None
        "The history as JSON. None after a change, so that only one client pays for it."

    def look(self, observed: Result[Status, Fault], now: Instant) -> None:
        """Add a look at all peers."""
        record_look(self._history, observed, now)
        self._data = None

    def run(self, run: Run) -> None:
        """Add a run of the watchdog."""
        record_run(self._history, run)
        self._data = None

    def history(self, quiet_seconds: float) -> Answer:
        """Return the last day as JSON.

        `quiet_seconds` is the time in which nothing changes; `Retry-After` has it.
        """
        return Answer(200, JSON, self._drawn(), (f"Retry-After: {ceil(quiet_seconds)}",))

    def page(self) -> Answer:
        """Return the page."""
        template, policy = _page()
        data = drawing.for_script(self._drawn())
        return Answer(200, HTML, template.substitute(data=data).encode(), (policy,))

    def table(self, view: View) -> Answer:
        """Return the texts of `tsfc peers` as JSON, and what the watchdog did."""
        columns = cells.columns(view)
        document = {
            "at": view.at,
            "look_seconds": self._history.longest_seconds,
            "node": view.name,
            "lines": cells.header_lines(view),
            "columns": [
                {"title": column.title, "is_number": column.is_number} for column in columns
            ],
            "rows": [[column.cell(view, row) for column in columns] for row in view.rows],
            "attempts": [
                {"at": at, "text": text} for at, text in cells.attempts(view, DAY_SECONDS)
            ],
        }
        return Answer(200, JSON, msgspec.json.encode(document))

    def _drawn(self) -> bytes:
        if self._data is None:
            self._data = drawing.data(Drawing(self._history.timeline, "", order(self._history)))
        return self._data


@cache
def _page() -> tuple[Template, str]:
    """Return the page without its data, and the header with its policy."""
    style, script = assets.style(), assets.script("live.js")
    page = Template(assets.read("live.html")).substitute(
        style=_fixed(style),
        program=_fixed(escape(assets.program())),
        timeline=_fixed(assets.timeline(CAPTION)),
        script=_fixed(script),
        data="$data",
    )
    policy = (
        "Content-Security-Policy: default-src 'none'; "
        f"style-src '{assets.digest(style)}'; script-src '{assets.digest(script)}'; "
        "connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Template(page), policy


def _fixed(text: str) -> str:
    """Return text that stays the same in a template."""
    return text.replace("$", "$$")
