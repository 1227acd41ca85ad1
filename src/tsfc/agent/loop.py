"""Many coroutines in one thread: resume each when what it waits for has come."""

from __future__ import annotations

import heapq
import itertools
import math
import selectors
import time
from collections.abc import Callable

from msgspec import Struct

from tsfc.shell.waiting import Wait, Waiting

Crashed = Callable[[str, Exception], None]
"Is told the name of a coroutine that ended with an error, and the error."


class _Task(Struct, eq=False):
    name: str
    coroutine: Waiting[None]
    wait: Wait | None = None


class Loop:
    """The coroutines that have not ended.

    Each waits for a descriptor, a deadline, or both. Deadlines are a heap of (time,
    serial number, task, wait); one is stale if the task waits for something else now.
    """

    def __init__(self, crashed: Crashed) -> None:
        self._crashed = crashed
        self._selector = selectors.EpollSelector()
        self._tasks: set[_Task] = set()
        self._deadlines: list[tuple[float, int, _Task, Wait]] = []
        self._serial = itertools.count()

    @property
    def running(self) -> frozenset[str]:
        """The names of the coroutines that have not ended."""
        return frozenset(task.name for task in self._tasks)

    def start(self, name: str, coroutine: Waiting[None]) -> None:
        """Run a coroutine up to its first wait, and from then on in `turn`."""
        task = _Task(name, coroutine)
        self._tasks.add(task)
        self._resume(task, is_ready=None)

    def turn(self, deadline: float) -> None:
        """Resume what is ready, or wait for it; return at the deadline (monotonic)."""
        if self._deadlines:
            deadline = min(deadline, self._deadlines[0][0])
        seconds = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        for key, _ in self._selector.select(seconds):
            self._wake(key.data, is_ready=True)
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, task, wait = heapq.heappop(self._deadlines)
            if task.wait is wait:
                self._wake(task, is_ready=False)

    def close(self) -> None:
        """End all coroutines where they wait, and run what they do at their ends."""
        for task in self._tasks:
            self._forget(task)
            task.coroutine.close()
        self._tasks.clear()
        self._selector.close()

    def _wake(self, task: _Task, *, is_ready: bool) -> None:
        self._forget(task)
        self._resume(task, is_ready=is_ready)

    def _forget(self, task: _Task) -> None:
        if task.wait is not None and task.wait.descriptor is not None:
            self._selector.unregister(task.wait.descriptor)
        task.wait = None

    def _resume(self, task: _Task, *, is_ready: bool | None) -> None:
        try:
            wait = task.coroutine.send(is_ready)  # type: ignore[arg-type] # None starts it
        except StopIteration:
            self._tasks.discard(task)
            return
        except Exception as error:  # noqa: BLE001 - a defect of one job must not end the others
            self._tasks.discard(task)
            self._crashed(task.name, error)
            return
        task.wait = wait
        if wait.descriptor is not None:
            event = selectors.EVENT_WRITE if wait.is_writing else selectors.EVENT_READ
            self._selector.register(wait.descriptor, event, task)
        if wait.deadline != math.inf:
            heapq.heappush(self._deadlines, (wait.deadline, next(self._serial), task, wait))
