"""Entry point of the program ``tsfc`` and of ``python -m tsfc``."""

from __future__ import annotations

import signal
from typing import NoReturn


def entry() -> NoReturn:
    """Run the program as a process, and exit.

    Until a command handles SIGINT, it has its default action: Python's own action is an
    exception, and a traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tsfc.cli import main  # noqa: PLC0415

    main.entry()


if __name__ == "__main__":
    entry()
