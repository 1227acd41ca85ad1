"""The terminal of a program that fills the screen and reads keys.

Whatever ends the program, the terminal is then as it was before.
"""

from __future__ import annotations

import os
import select
import signal
import termios
from collections.abc import Generator
from contextlib import contextmanager, suppress

from tsfc.shell import signals
from tsfc.shell.console import STDIN, STDOUT

_LEAVE_SCREEN = b"\x1b[?1049l\x1b[?25h"
"Private modes 1049 and 25 of xterm."
_PATIENCE_MILLISECONDS = 100
"Time that a terminal has to accept them; Ctrl-S stops its output."
_DISABLED = b"\0"
"Linux's `_POSIX_VDISABLE`: no key has this function."


def can_fill_screen() -> bool:
    """Whether standard output is a terminal that understands escape sequences."""
    return os.isatty(STDOUT) and os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}


def size() -> tuple[int, int]:
    """Return the columns and lines of the terminal."""
    columns, lines = os.get_terminal_size(STDOUT)
    return columns or 80, lines or 24


def leave_screen() -> None:
    """Show the normal screen and the cursor, unless the terminal accepts no output."""
    poll = select.poll()
    poll.register(STDOUT, select.POLLOUT)
    if poll.poll(_PATIENCE_MILLISECONDS):
        os.write(STDOUT, _LEAVE_SCREEN)


@contextmanager
def single_keys() -> Generator[int | None, None, None]:
    r"""Let standard input deliver each key at once, and do not show it.

    Ctrl-C still sends SIGINT. Ctrl-Z and Ctrl-\ do nothing: both would keep the screen.
    Yields the descriptor to read; None if standard input is not a terminal.
    """
    if not os.isatty(STDIN):
        yield None
        return
    before = termios.tcgetattr(STDIN)

    def restore() -> None:
        with suppress(termios.error):
            termios.tcsetattr(STDIN, termios.TCSANOW, before)

    changed = termios.tcgetattr(STDIN)
    changed[3] &= ~(termios.ICANON | termios.ECHO)
    for key in (termios.VSUSP, termios.VQUIT):
        changed[6][key] = _DISABLED
    with signals.cleaning_up(restore):
        try:
            # A process in the background is stopped here until it is in the foreground.
            termios.tcsetattr(STDIN, termios.TCSANOW, changed)
            # From now on, it must restore the terminal from the background, too.
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            yield STDIN
        finally:
            restore()


@contextmanager
def wake_ups() -> Generator[int, None, None]:
    """Yield a descriptor that is readable after the window or the process changed.

    These are a new size, and the continuation of a stopped process.
    """
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    numbers = (signal.SIGWINCH, signal.SIGCONT)
    before = [signal.signal(number, _do_nothing) for number in numbers]
    old = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    try:
        yield ours
    finally:
        signal.set_wakeup_fd(old)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.close(ours)
        os.close(theirs)


def read(descriptor: int) -> bytes:
    """Return what can be read now; nothing if the terminal is gone."""
    try:
        return os.read(descriptor, 4096)
    except OSError:  # EIO: the terminal is gone
        return b""


def _do_nothing(*_: object) -> None:
    """Handle a signal by its byte in the pipe."""
