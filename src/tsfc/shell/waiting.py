"""Coroutines that wait for descriptors and for time.

All that a job waits for goes through here. A oneshot drives one coroutine with `run`;
an event loop can drive many. Neither needs a thread, nor asyncio, whose import costs
a third of a run.
"""

from __future__ import annotations

import math
import select
import selectors
import time
import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import NamedTuple, TypeAlias, TypeVar

from tsfc.shell.signals import LONGEST_WAIT_SECONDS

T = TypeVar("T")


class Wait(NamedTuple):
    """What a coroutine waits for: a descriptor, a moment, or whichever comes first."""

    descriptor: int | None
    "It is ready when it can be read, or has ended."
    deadline: float
    "Monotonic seconds."
    is_writing: bool = False
    "It is ready when it can be written instead."


Waiting: TypeAlias = Coroutine[Wait, bool, T]
"A coroutine of this module. It is sent whether the descriptor was ready in time."


async def until(wait: Wait) -> bool:
    """Wait; return whether the descriptor was ready before the deadline."""
    return await _yielded(wait)


async def sleep(seconds: float) -> None:
    """Wait for a time."""
    await until(Wait(None, time.monotonic() + seconds))


async def select_ready(
    selector: selectors.EpollSelector, deadline: float = math.inf
) -> list[selectors.SelectorKey]:
    """Wait for any descriptor of a selector; return the keys of all that are ready."""
    ready = selector.select(0)
    if not ready and await until(Wait(selector.fileno(), deadline)):
        ready = selector.select(0)
    return [key for key, _ in ready]


def run(waiting: Waiting[T]) -> T:
    """Run a coroutine to its end; nothing else runs while it waits."""
    step = waiting.__await__()
    try:
        wait = next(step)
        while True:
            wait = step.send(_wait(wait))
    except StopIteration as end:
        result: T = end.value
        return result


def run_until(
    is_over: Callable[[frozenset[int]], bool], waiting: Waiting[object], descriptors: Iterable[int]
) -> None:
    """Run a coroutine to its end, or until `is_over`, which closes it.

    `is_over` is called before the first wait, and then with those of `descriptors` that
    can be read, at least every `LONGEST_WAIT_SECONDS`.
    """
    step = waiting.__await__()
    own = frozenset(descriptors)
    ready: frozenset[int] = frozenset()
    try:
        wait = next(step)
        while not is_over(ready):
            readable = _poll(wait, own)
            ready = own & readable
            if wait.descriptor in readable:
                wait = step.send(True)
            elif time.monotonic() >= wait.deadline:
                wait = step.send(False)
    except StopIteration:
        return
    finally:
        step.close()


def _poll(wait: Wait, others: frozenset[int]) -> frozenset[int]:
    """Wait for any of these for one slice; return the descriptors that are ready."""
    poll = select.poll()
    for descriptor in others:
        poll.register(descriptor, select.POLLIN)
    if wait.descriptor is not None:
        poll.register(wait.descriptor, select.POLLOUT if wait.is_writing else select.POLLIN)
    left = max(0.0, min(wait.deadline - time.monotonic(), LONGEST_WAIT_SECONDS))
    return frozenset(descriptor for descriptor, _ in poll.poll(math.ceil(left * 1000)))


@types.coroutine
def _yielded(wait: Wait) -> Generator[Wait, bool, bool]:
    return (yield wait)


def _wait(wait: Wait) -> bool:
    """Block in slices, so that a signal is handled soon."""
    poll = select.poll()
    if wait.descriptor is not None:
        poll.register(wait.descriptor, select.POLLOUT if wait.is_writing else select.POLLIN)
    while (left := wait.deadline - time.monotonic()) > 0:
        if poll.poll(min(left, LONGEST_WAIT_SECONDS) * 1000):
            return True
    return False
