"""What a job may ask of its surroundings.

A job is a function of a host. The real host, a dry run, a replay and a simulation are
hosts, so they all run the same job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from returns.result import Result

from tsfc.core.clock import Instant
from tsfc.core.faults import Fault
from tsfc.core.tailscale.ping import PingKind
from tsfc.core.tailscale.status import Status

if TYPE_CHECKING:  # a start is most of a run's cost: a job imports only what it needs
    from tsfc.core.tailscale.ping import Ping
    from tsfc.core.watchdog.policy import Policy
    from tsfc.core.watchdog.remedy import Attempt, Outcome, Withheld
    from tsfc.shell.tailscaled.pings import Round


class Host(Protocol):
    """The surroundings of a job."""

    def unix_time(self) -> float:
        """Unix time in seconds."""
        ...

    def now(self) -> Instant:
        """The time in whole seconds, with the boot clock if there is one."""
        ...

    async def status(self) -> Result[Status, Fault]:
        """Return the status of tailscaled."""
        ...

    def tailscaled_start(self) -> int | None:
        """Return the Unix time when tailscaled started; None if it is unknown."""
        ...

    def is_paused(self, policy: Policy) -> bool:
        """Whether the watchdog is paused: the pause file of its policy exists."""
        ...

    async def usermetrics(self) -> Result[bytes, Fault]:
        """Return tailscaled's own metrics, an exposition."""
        ...

    async def ping(
        self,
        pings: tuple[Ping, ...],
        *,
        count: int,
        timeout: float,
        kind: PingKind = PingKind.DISCO,
    ) -> Round:
        """Ping each peer at most `count` times, each with a timeout in seconds."""
        ...

    async def apply(self, attempt: Attempt) -> Outcome | Withheld:
        """Run the command of an attempt."""
        ...

    def log(self, line: str) -> None:
        """Write a documented line, at once: a remedy may cut off who reads it."""
        ...

    def warn(self, line: str) -> None:
        """Write that something is wrong with the run itself."""
        ...
