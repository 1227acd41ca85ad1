"""Many coroutines in one thread."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

from tsfc.agent.loop import Loop
from tsfc.shell.waiting import Wait, sleep, until

SOON = 0.02


def _turn_until(loop: Loop, is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        loop.turn(deadline)


def _no_crash(name: str, error: Exception) -> None:
    raise AssertionError(name) from error


def test_coroutines_wait_at_the_same_time() -> None:
    ended: list[str] = []

    async def nap(name: str, seconds: float) -> None:
        await sleep(seconds)
        ended.append(name)

    loop = Loop(_no_crash)
    loop.start("long", nap("long", 2 * SOON))
    loop.start("short", nap("short", SOON))
    assert loop.running == {"long", "short"}
    _turn_until(loop, lambda: not loop.running)
    assert ended == ["short", "long"]
    loop.close()


def test_a_descriptor_resumes_its_coroutine_alone() -> None:
    receiver, sender = os.pipe()
    got: list[bool] = []

    async def reader(deadline: float) -> None:
        got.append(await until(Wait(receiver, deadline)))

    loop = Loop(_no_crash)
    loop.start("late", reader(time.monotonic() + SOON))
    _turn_until(loop, lambda: not loop.running)
    loop.start("in time", reader(math.inf))
    os.write(sender, b"x")
    _turn_until(loop, lambda: not loop.running)
    assert got == [False, True]
    loop.close()
    os.close(receiver)
    os.close(sender)


def test_a_turn_returns_at_its_deadline() -> None:
    loop = Loop(_no_crash)
    started = time.monotonic()
    loop.turn(started + SOON)
    assert SOON <= time.monotonic() - started < 30
    loop.close()


def test_a_defect_ends_one_coroutine_and_is_reported() -> None:
    crashes: list[tuple[str, str]] = []
    ended: list[str] = []

    async def wrong() -> None:
        await sleep(0)
        raise ValueError("its text")

    async def right() -> None:
        await sleep(SOON)
        ended.append("right")

    loop = Loop(lambda name, error: crashes.append((name, str(error))))
    loop.start("wrong", wrong())
    loop.start("right", right())
    _turn_until(loop, lambda: not loop.running)
    assert crashes == [("wrong", "its text")]
    assert ended == ["right"]
    loop.close()


def test_the_end_of_the_loop_ends_each_coroutine_where_it_waits() -> None:
    receiver, sender = os.pipe()
    cleaned: list[str] = []

    async def task(name: str, wait: Wait) -> None:
        try:
            await until(wait)
        finally:
            cleaned.append(name)

    loop = Loop(_no_crash)
    loop.start("a", task("a", Wait(receiver, math.inf)))
    loop.start("b", task("b", Wait(None, time.monotonic() + 3600)))
    loop.close()
    assert sorted(cleaned) == ["a", "b"]
    os.close(receiver)
    os.close(sender)


def test_a_deadline_that_was_not_needed_does_not_wake_anybody() -> None:
    """The coroutine waits for something else by then."""
    receiver, sender = os.pipe()
    got: list[bool] = []

    async def twice() -> None:
        got.append(await until(Wait(receiver, time.monotonic() + SOON)))
        os.read(receiver, 1)
        got.append(await until(Wait(receiver, math.inf)))

    loop = Loop(_no_crash)
    loop.start("twice", twice())
    os.write(sender, b"x")
    _turn_until(loop, lambda: got)
    for _ in range(3):
        loop.turn(time.monotonic() + SOON)
    assert got == [True]
    os.write(sender, b"x")
    _turn_until(loop, lambda: not loop.running)
    assert got == [True, True]
    loop.close()
    os.close(receiver)
    os.close(sender)
