"""The live page of the agent: what it saw in the last day."""

from __future__ import annotations

from returns.result import Result

from tsfc.agent.http import Answer
from tsfc.agent.pages import JSON
from tsfc.core.agent.history import History, order, record_look, record_run
from tsfc.core.clock import Instant
from tsfc.core.faults import Fault
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog.run import Run
from tsfc.offline.report import drawing
from tsfc.offline.report.document import Drawing


class Live:
    """The history, and the responses about it."""

    def __init__(self) -> None:
        self._history = History()
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

    def history(self) -> Answer:
        """Return the last day as JSON."""
        if self._data is None:
            self._data = drawing.data(Drawing(self._history.timeline, "", order(self._history)))
        return Answer(200, JSON, self._data)
