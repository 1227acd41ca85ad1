"""Why tailscaled, or a recording of it, told nothing."""

from __future__ import annotations

from msgspec import Struct


class Down(Struct, frozen=True, tag=True):
    """Nobody answered: tailscaled is stopped, starting, or hangs. That is a finding about the node, not an error of ours."""

    detail: str
    "One line: what was tried, what went wrong, what to do."


class Unusable(Struct, frozen=True, tag=True):
    """There was an answer, or something that blocked the question, and it cannot be used: refused, cut off, not JSON, too large."""

    detail: str
    "One line: what was tried, what went wrong, what to do."


Fault = Down | Unusable


def exit_status(fault: Fault | None) -> int:
    """Returns the exit status of a run: 0 where the job did its work, and to find tailscaled down is its work; else 1."""
    return 1 if isinstance(fault, Unusable) else 0
