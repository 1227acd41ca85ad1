"""What a round of pings comes to, whichever way they are sent: all peers at once, none waits for another."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from contextlib import suppress

from msgspec import Struct

from tsfc.core.tailscale.ping import PingResult

_SPARE_DESCRIPTORS = 64


class Round(Struct, frozen=True):
    """What a round came to."""

    answers: Mapping[str, tuple[PingResult, ...]]
    "By the name of the peer."
    complaint: str | None
    "One line about pings that went wrong, for all of them; None where none did."


def summary(complaints: list[str], pinged: int) -> str | None:
    """Returns one line for all that went wrong; None where nothing did."""
    return (
        f"{len(complaints)} of {pinged} peers could not be pinged, the first because: {complaints[0]}"
        if complaints
        else None
    )


def allow_descriptors(peers: int) -> None:
    """Raises the limit on open files as far as it goes, where so many peers need it: the usual soft one is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = peers + _SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        with suppress(ValueError, OSError):
            resource.setrlimit(
                resource.RLIMIT_NOFILE,
                (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard),
            )
