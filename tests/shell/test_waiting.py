"""Coroutines that wait, driven to their ends."""

from __future__ import annotations

import math
import os
import selectors
import time

import pytest

from tsfc.shell import waiting
from tsfc.shell.waiting import Wait, until

SOON = 0.02


def test_a_descriptor_that_is_ready_ends_the_wait() -> None:
    receiver, sender = os.pipe()
    os.write(sender, b"x")
    try:
        assert waiting.run(until(Wait(receiver, math.inf)))
    finally:
        os.close(receiver)
        os.close(sender)


def test_a_descriptor_that_has_ended_is_ready() -> None:
    receiver, sender = os.pipe()
    os.close(sender)
    try:
        assert waiting.run(until(Wait(receiver, math.inf)))
    finally:
        os.close(receiver)


@pytest.mark.parametrize("has_descriptor", [True, False])
def test_the_deadline_ends_the_wait(*, has_descriptor: bool) -> None:
    receiver, sender = os.pipe()
    started = time.monotonic()
    try:
        wait = Wait(receiver if has_descriptor else None, started + SOON)
        assert not waiting.run(until(wait))
    finally:
        os.close(receiver)
        os.close(sender)
    assert time.monotonic() - started >= SOON


def test_a_selector_waits_for_any_of_its_descriptors() -> None:
    receiver, sender = os.pipe()
    with selectors.EpollSelector() as selector:
        selector.register(receiver, selectors.EVENT_READ, "data")
        assert waiting.run(waiting.select_ready(selector, time.monotonic() + SOON)) == []
        os.write(sender, b"x")
        (key,) = waiting.run(waiting.select_ready(selector))
        assert key.data == "data"
    os.close(receiver)
    os.close(sender)


def test_a_coroutine_returns_its_result_and_raises_its_error() -> None:
    async def wrong() -> None:
        await waiting.sleep(0)
        raise LookupError

    async def right() -> str:
        await waiting.sleep(0)
        return "result"

    assert waiting.run(right()) == "result"
    with pytest.raises(LookupError):
        waiting.run(wrong())


def test_others_are_served_while_a_coroutine_waits() -> None:
    """And at its end or theirs, it is closed."""
    receiver, sender = os.pipe()
    seen: list[frozenset[int]] = []
    closed: list[str] = []

    async def forever() -> None:
        try:
            await waiting.sleep(3600)
        finally:
            closed.append("forever")

    def is_over(ready: frozenset[int]) -> bool:
        seen.append(ready)
        os.write(sender, b"x")
        return receiver in ready

    waiting.run_until(is_over, forever(), [receiver])
    assert (seen, closed) == ([frozenset(), frozenset({receiver})], ["forever"])
    os.close(receiver)
    os.close(sender)


def test_a_coroutine_goes_on_while_others_have_nothing() -> None:
    receiver, sender = os.pipe()
    steps: list[bool] = []

    async def two_steps() -> None:
        os.write(sender, b"x")
        steps.append(await until(Wait(receiver, math.inf)))
        os.read(receiver, 1)
        steps.append(await until(Wait(receiver, time.monotonic() + SOON)))

    waiting.run_until(lambda _: False, two_steps(), [])
    assert steps == [True, False]
    os.close(receiver)
    os.close(sender)
