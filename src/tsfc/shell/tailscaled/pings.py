"""Result of a round of pings, whether over the LocalAPI or with the `tailscale` CLI.

Over the LocalAPI all peers are pinged concurrently, with the CLI a limited number.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from contextlib import suppress

from msgspec import Struct

from tsfc.core.tailscale.ping import PingResult

_SPARE_DESCRIPTORS = 64


class Round(Struct, frozen=True):
    """Results of a round of pings."""

    results: Mapping[str, tuple[PingResult, ...]]
    "Results by name of the peer."
    error: str | None
    "One line that summarizes all errors; None if there were none."


def summary(errors: list[str], peers: int) -> str | None:
    """Return one line that summarizes all errors; None if there are none."""
    return (
        f"{len(errors)} of {peers} peers could not be pinged, the first because: {errors[0]}"
        if errors
        else None
    )


def allow_descriptors(peers: int) -> None:
    """Raise the soft limit on open files if this many peers need more.

    The soft limit is usually 1024. The hard limit stays as it is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = peers + _SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        with suppress(ValueError, OSError):
            resource.setrlimit(
                resource.RLIMIT_NOFILE,
                (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard),
            )
