"""What the last run left, for everyone: the state itself is readable by root only."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.clock import Instant
from tsfc.core.text import one_line
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.state import State


class Snapshot(Struct, frozen=True):
    """The state after a run, and the policy that it ran under."""

    at: Instant
    policy: Policy
    state: State

    @property
    def saw_peers(self) -> bool:
        """Whether that run observed peers. If not, the state is from an earlier run."""
        return self.state.last_success is not None and self.state.last_success.unix == self.at.unix


_DECODER = msgspec.json.Decoder(Snapshot)


def encode(snapshot: Snapshot) -> str:
    """The snapshot as a line of JSON."""
    return msgspec.json.encode(snapshot, order="sorted").decode() + "\n"


def decode(raw: bytes) -> Result[Snapshot, str]:
    """Read a snapshot. Fails with one line if it is not one of this release."""
    try:
        return Success(_DECODER.decode(raw))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"not a snapshot of this release: {one_line(str(error), 80)}")
