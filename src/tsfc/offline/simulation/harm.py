"""The harm of remedies: time without the direct paths that they interrupted."""

from __future__ import annotations

from msgspec import Struct

from tsfc.offline.simulation.link import Link


class _Cut(Struct, frozen=True):
    """A direct path that a remedy interrupted. Times are those of the simulation."""

    at: float
    idle_from: float
    "When the path would have ended anyway, because nothing more was sent."


class Harm:
    """Peer-seconds of direct path that remedies cost.

    They count from the remedy until the peer is direct again, or would not have been
    direct anyway. The world calls `settle` before each change of a link.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._cuts: dict[str, _Cut] = {}

    def begin(self, link: Link, now: float, idle_from: float) -> None:
        """Record that a remedy has just interrupted a direct path."""
        self._cuts[link.name] = _Cut(now, idle_from)

    def settle(self, link: Link, now: float, *, is_over: bool = False) -> None:
        """Count what is over until now.

        `is_over` says that without the remedy the path would end now.
        """
        cut = self._cuts.get(link.name)
        if cut is None:
            return
        end = min(now, link.direct_from, cut.idle_from)
        if end < now or is_over:
            self.seconds += end - cut.at
            del self._cuts[link.name]
