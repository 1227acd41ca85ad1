"""Faults: why no status or metrics could be read from tailscaled or a capture."""

from __future__ import annotations

from msgspec import Struct


class Down(Struct, frozen=True, tag=True):
    """tailscaled did not respond: it is stopped, starting or hangs.

    This is a finding about the node, not an error of the run.
    """

    detail: str
    "One line: what failed, why, and what to do."


class Unusable(Struct, frozen=True, tag=True):
    """The response cannot be used, or the request was blocked.

    For example: refused, truncated, not JSON, too large.
    """

    detail: str
    "One line: what failed, why, and what to do."


Fault = Down | Unusable


def exit_status(fault: Fault | None) -> int:
    """Return the exit status of a run with this fault.

    1 if the response was unusable, else 0: a job that finds tailscaled down has
    succeeded.
    """
    return 1 if isinstance(fault, Unusable) else 0
