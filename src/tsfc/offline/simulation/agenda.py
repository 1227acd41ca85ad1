"""The clock of a simulation, its queue of callbacks, and its random numbers.

Random numbers come from `random.Random(text)` by `.random()` alone, which gives the
same numbers on every platform. Each subject has its own stream, so that one subject
does not change the numbers of another.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections.abc import Callable, Iterator
from functools import partial

from tsfc.offline.simulation.spans import Range

NEVER = float("inf")
"An instant that does not come. Its negative is an instant that never was."


class Agenda:
    """Callbacks in the order of their time. The clock only goes forward."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self._seed = seed
        self._streams: dict[str, random.Random] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0

    def draw(self, subject: str, span: Range) -> float:
        """Draw a number of seconds from a subject's stream, to the millisecond."""
        stream = self._streams.get(subject)
        if stream is None:
            stream = random.Random(f"{self._seed}/{subject}")  # noqa: S311 - reproducible
            self._streams[subject] = stream
        return round(span.min + stream.random() * (span.max - span.min), 3)

    def coin(self, subject: str, seconds: float) -> bool:
        """Toss a subject's coin: one result in each period of some seconds.

        Unlike `draw`, it does not depend on how often it is asked.
        """
        return bool(zlib.crc32(f"{self._seed}/{subject}/{self.now // seconds}".encode()) & 1)

    def at(self, at: float, callback: Callable[[], None]) -> None:
        """Schedule a callback. Callbacks of one millisecond run first in, first out."""
        self._scheduled += 1
        heapq.heappush(self._queue, (round(at, 3), self._scheduled, callback))

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Schedule a callback some seconds from now."""
        self.at(self.now + seconds, callback)

    def start(self, process: Iterator[float]) -> None:
        """Run a process until it ends. It yields the seconds until it continues."""
        for seconds in process:
            self.after(seconds, partial(self.start, process))
            return

    def advance(self, to: float) -> None:
        """Call everything up to and including an instant, and set the clock to it."""
        while self._queue and self._queue[0][0] <= to:
            at, _, callback = heapq.heappop(self._queue)
            self.now = max(self.now, at)
            callback()
        self.now = max(self.now, to)

    def next_at(self) -> float:
        """Return the time of the next callback; `NEVER` if there is none."""
        return self._queue[0][0] if self._queue else NEVER
