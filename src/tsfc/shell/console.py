"""Standard output and standard error."""

from __future__ import annotations

import os
import sys

from tsfc.core.text import printable
from tsfc.shell.atomic import write_all

STDIN, STDOUT, STDERR = 0, 1, 2
_LINE_LIMIT = 10_000
"Characters of an error line. A path has at most 4,096 bytes."


def print_error(job: str, line: str) -> None:
    """Print an error or a warning of a job, as one printable line on standard error.

    Paths and names from the command line can have any characters.
    """
    say(STDERR, f"tsfc {job}: {printable(line, _LINE_LIMIT)}")


def say(descriptor: int, line: str) -> None:
    """Print a line; ignore errors.

    A run continues if its output is full or closed: a full journal must not keep a peer
    on relay.
    """
    try:
        write_all(descriptor, os.fsencode(line + "\n"))
    except OSError:
        return


def write_out(text: str | bytes) -> None:
    """Write to standard output; exit with status 1 if that fails.

    No message is printed if the reader has closed the pipe (`| head`).
    """
    try:
        write_all(STDOUT, text.encode() if isinstance(text, str) else text)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        say(STDERR, f"tsfc: writing to standard output: {error.strerror}; check disk space")
        sys.exit(1)
