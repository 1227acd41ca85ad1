"""Effects: what a decision asks the shell to do, as inert data, in order."""

from __future__ import annotations

from msgspec import Struct

from tsfc.core.watchdog.remedy import Attempt


class Log(Struct, frozen=True, tag=True):
    """Write one of the documented lines to standard output, which is the journal."""

    line: str


class Warn(Struct, frozen=True, tag=True):
    """Write to standard error that something is wrong with the run itself."""

    line: str


class Apply(Struct, frozen=True, tag=True):
    """Apply a remedy, and report its outcome as `Performed`.

    The state must be durable before, so that a crash never leads to a second attempt.
    """

    attempt: Attempt


Effect = Log | Warn | Apply
