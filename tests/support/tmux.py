"""Programs on a terminal of tmux, whose screen a test can read."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from support.processes import wait_until
from support.required import program

AFTER = "; status=$?; echo; echo status $status; stty -a | grep -Eo -- '-?(icanon|echo|isig)\\b' | xargs; exec cat"
"What the shell does after the program: print its exit status, and what a key does."
NORMAL = "isig icanon echo"


class Window(Struct, frozen=True):
    """A terminal, with a shell that runs a program."""

    tmux: tuple[str, ...]
    "The command line of the tmux server of this window."

    def call(self, *arguments: str) -> str:
        """Run a command of tmux and return its output."""
        return subprocess.run(
            (*self.tmux, *arguments), check=True, capture_output=True, text=True
        ).stdout

    def text(self) -> str:
        """Return what the screen shows."""
        return self.call("capture-pane", "-p")

    def colored(self) -> str:
        """Return what the screen shows, with escape sequences."""
        return self.call("capture-pane", "-p", "-e")

    def press(self, *keys: str) -> None:
        """Press keys, by their names in tmux."""
        self.call("send-keys", *keys)

    def wait_for(self, *texts: str) -> str:
        """Wait until the screen shows all these texts, and return what it shows."""
        screen = ""

        def is_shown() -> bool:
            nonlocal screen
            screen = self.text()
            return all(text in screen for text in texts)

        try:
            wait_until(is_shown, f"the screen shows {texts}")
        except AssertionError as error:
            error.add_note(screen)
            raise
        return screen

    def is_alternate(self) -> bool:
        """Whether a program uses the alternate screen."""
        return self.call("display-message", "-p", "#{alternate_on}").strip() == "1"

    def shows_cursor(self) -> bool:
        """Whether the cursor is visible."""
        return self.call("display-message", "-p", "#{cursor_flag}").strip() == "1"


@contextmanager
def window(
    directory: Path, command: Sequence[str], columns: int, lines: int
) -> Generator[Window, None, None]:
    """Run a program in a window of its own server; kill both when the block ends.

    The screen shows `before`, and after the program its exit status.
    """
    tmux = (program("tmux", "tmux"), "-S", str(directory / "tmux"), "-f", "/dev/null")
    shown = Window(tmux)
    script = f"echo before; {shlex.join(command)}{AFTER}"
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"NO_COLOR", "COLUMNS", "LINES", "TMUX"}
    }
    subprocess.run(
        (*tmux, "new-session", "-d", "-x", str(columns), "-y", str(lines), script),
        check=True,
        env=environment | {"LC_ALL": "C.UTF-8"},
    )
    try:
        yield shown
    finally:
        shown.call("kill-server")
