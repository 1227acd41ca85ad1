"""`tsfc peers --watch` on a terminal: ask, draw, and react to keys.

The clock goes on and keys work while tailscaled does not answer.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable

from msgspec.structs import replace
from returns.result import Failure, Result
from rich.console import ConsoleDimensions
from rich.live import Live

from tsfc.shell import clocks, signals, terminal, waiting
from tsfc.shell.console import STDOUT
from tsfc.shell.waiting import Waiting
from tsfc.view import keys, table
from tsfc.view.keys import Key
from tsfc.view.screen import Answer, Screen, draw

TICK_SECONDS = 1.0
"Longest time between two screens."


def watch(
    ask: Callable[[], Waiting[Result[Answer, str]]],
    screen: Screen,
    *,
    now: float | None,
) -> int:
    """Show the answers of `ask` until the user quits, and return the exit status.

    `now` is as for `clocks.unix_time`.
    """
    signals.end_quietly_on_interrupt()
    try:
        _watch(ask, screen, now=now)
    except OSError as error:
        if error.errno != errno.EIO:  # the terminal is gone
            raise
        return 1
    return 0


def _watch(
    ask: Callable[[], Waiting[Result[Answer, str]]],
    screen: Screen,
    *,
    now: float | None,
) -> None:
    rest, drawn_at = b"", -math.inf

    def show(key: Key | None = None) -> None:
        nonlocal screen, drawn_at
        drawn_at = time.monotonic()
        live.console.size = ConsoleDimensions(*terminal.size())
        clock = clocks.time_of_day(clocks.unix_time(now))
        drawn, first = draw(screen, live.console, now=drawn_at, clock=clock, key=key)
        screen = replace(screen, first=first)
        live.update(drawn, refresh=True)

    async def ask_forever() -> None:
        nonlocal screen
        while True:
            made = await ask()
            at = time.monotonic()
            screen = (
                replace(screen, failure=made.failure())
                if isinstance(made, Failure)
                else replace(screen, answer=made.unwrap(), failure="", answered=at)
            )
            show()
            await waiting.sleep(screen.interval)

    def is_over(ready: frozenset[int]) -> bool:
        nonlocal rest
        if changes in ready:
            terminal.read(changes)
        if changes in ready or time.monotonic() - drawn_at >= TICK_SECONDS:
            show()
        if keyboard is None or keyboard not in ready:
            return False
        typed = terminal.read(keyboard)
        pressed, rest = keys.decode(rest + typed)
        for key in pressed:
            show(key)
        return not typed or Key.QUIT in pressed

    with (
        open(STDOUT, "w", encoding="utf-8", newline="", closefd=False) as file,
        terminal.wake_ups() as changes,
        terminal.single_keys() as keyboard,
        signals.cleaning_up(terminal.leave_screen),  # Live leaves it in all other cases
        Live(
            console=table.console(file, is_terminal=True),
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as live,
    ):
        read = [changes, *([] if keyboard is None else [keyboard])]
        waiting.run_until(is_over, ask_forever(), read)
