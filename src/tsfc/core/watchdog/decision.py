"""What a policy decides, as data."""

from __future__ import annotations

from msgspec import Struct

from tsfc.core.watchdog.memory import Memory
from tsfc.core.watchdog.remedy import Attempt, Remedy
from tsfc.core.watchdog.track import Verdict
from tsfc.core.watchdog.watch import Hold


class Due(Struct, frozen=True):
    """The next attempt, if every peer stays on its path."""

    at: int
    "Unix time of the first run that would make it."
    remedy: Remedy
    peer: str


class Decision(Struct, frozen=True):
    """What a policy decides about the peers that are on relay."""

    verdicts: tuple[Verdict, ...]
    lines: tuple[str, ...]
    "The documented lines, one at most for each peer, in the order of the names."
    attempt: Attempt | None = None
    due: Due | None = None
    hold: Hold | None = None
    "Why no remedy may be applied now."
    memory: Memory | None = None
    "What the policy remembers from now on; None if it changes nothing."
