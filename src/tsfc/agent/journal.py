"""The lines of each job in the journal, under the identifier of its unit.

A stream to journald is a Unix socket that begins with seven lines, as `sd_journal_
stream_fd` of systemd sends them: identifier, unit, priority, and four switches.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

JOURNAL = "/run/systemd/journal/stdout"
NOTICE = 5
"Priority of the lines, as `SyslogLevel=notice` of the units."


class Journal:
    """A stream of lines, which never blocks."""

    def __init__(self, identifier: str) -> None:
        self.dropped = 0
        "Lines that are missing because journald did not take them in time."
        self._identifier = identifier
        self._connection: socket.socket | None = None

    def write(self, line: str) -> bool:
        """Write a line; return whether journald was there."""
        connection = self._connection or self._connect()
        if connection is None:
            return False
        data = os.fsencode(line + "\n")
        try:
            sent = connection.send(data)
        except BlockingIOError:
            self.dropped += 1
            return True
        except OSError:  # journald was restarted; the next line connects again
            self.close()
            return False
        if sent < len(data):
            # The rest cannot follow later, between other lines.
            self.dropped += 1
            self.close()
        return True

    def close(self) -> None:
        """Close the stream."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        head = f"{self._identifier}\n\n{NOTICE}\n0\n0\n0\n0\n"
        try:
            connection.connect(JOURNAL)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
            connection.send(head.encode())
        except OSError:
            connection.close()
            return None
        self._connection = connection
        return connection
