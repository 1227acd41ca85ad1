"""Lines for people: standard output and standard error."""

from __future__ import annotations

import os
import sys

from tsfc.shell.atomic import write_all

STDIN, STDOUT, STDERR = 0, 1, 2


def print_error(job: str, line: str) -> None:
    """Says what is wrong, as one line on standard error."""
    say(STDERR, f"tsfc {job}: {line}")


def say(descriptor: int, line: str) -> None:
    """Says a line. A run goes on if nobody listens: a full or closed journal must not keep a peer on relay."""
    try:
        write_all(descriptor, os.fsencode(line + "\n"))
    except OSError:
        return


def write_out(text: str | bytes) -> None:
    """Writes to standard output; where nobody reads it any more (`| head`), or it is full, that is the end."""
    try:
        write_all(STDOUT, text.encode() if isinstance(text, str) else text)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        say(STDERR, f"tsfc: writing to standard output: {error.strerror}; see to the disk")
        sys.exit(1)
