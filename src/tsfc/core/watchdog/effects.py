"""What the decision asks for: inert data, performed by the shell in the order given."""

from __future__ import annotations

from msgspec import Struct


class Log(Struct, frozen=True, tag=True):
    """Say a line of the documented forms on standard output, which is the journal."""

    line: str


class Warn(Struct, frozen=True, tag=True):
    """Say on standard error that the run itself is not as it should be."""

    line: str


class RestartTailscaled(Struct, frozen=True, tag=True):
    """Restart tailscaled. The state is to be durable before; what came of it comes back as `Performed`."""

    peer: str
    "The peer that is the cause."
    relay_seconds: int


Effect = Log | Warn | RestartTailscaled
