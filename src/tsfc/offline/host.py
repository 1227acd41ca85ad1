"""A host whose observations come from a capture or a simulation."""

from __future__ import annotations

from collections.abc import Callable

from returns.result import Failure, Result, Success

from tsfc.core.clock import Instant
from tsfc.core.faults import Down, Fault
from tsfc.core.tailscale.ping import ERROR, Ping, PingKind, PingResult
from tsfc.core.tailscale.status import Status
from tsfc.core.text import one_line
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.remedy import Attempt, Done, Outcome
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.state import State
from tsfc.shell import waiting
from tsfc.shell.jobs import watchdog
from tsfc.shell.statedir import CommitError
from tsfc.shell.tailscaled.pings import Round


def done(_: Attempt) -> Outcome:
    """Do nothing and succeed: a capture does not show the effect of a remedy."""
    return Done()


def unknown(_ip: str, _kind: PingKind) -> PingResult:
    """Give a result that proves nothing: a capture does not show pings."""
    return ERROR


class OfflineHost:
    """A host for the watchdog, and its store, in memory.

    A replay gives the same output as one oneshot run per observation, because it is the
    same job.
    """

    def __init__(
        self,
        apply: Callable[[Attempt], Outcome] = done,
        ping: Callable[[str, PingKind], PingResult] = unknown,
    ) -> None:
        self.state = State()
        self._apply = apply
        self._ping = ping
        self._observed: Result[Status, Fault] = Failure(Down("nothing was observed yet"))
        self._now = Instant(0)
        self._tailscaled_start: int | None = None
        self._lines: list[str] = []

    def run(
        self,
        observed: Result[Status, Fault],
        *,
        now: Instant,
        policy: Policy,
        tailscaled_start: int | None = None,
    ) -> tuple[Run, tuple[str, ...]]:
        """Run the watchdog on one observation; return the run and its journal lines."""
        self._observed, self._now, self._lines = observed, now, []
        self._tailscaled_start = tailscaled_start
        return waiting.run(watchdog.run(self, self, policy=policy)).unwrap(), tuple(self._lines)

    def unix_time(self) -> float:
        """See `Host`."""
        return self._now.unix

    def now(self) -> Instant:
        """See `Host`."""
        return self._now

    async def status(self) -> Result[Status, Fault]:
        """See `Host`."""
        if isinstance(self._observed, Success):
            for problem in self._observed.unwrap().problems:
                self.warn(one_line(problem))
        return self._observed

    def tailscaled_start(self) -> int | None:
        """See `Host`."""
        return self._tailscaled_start

    def is_paused(self, policy: Policy) -> bool:  # noqa: ARG002
        """See `Host`. A capture does not show it."""
        return False

    async def usermetrics(self) -> Result[bytes, Fault]:
        """See `Host`."""
        return Failure(Down("an observation has no metrics"))

    async def ping(
        self,
        pings: tuple[Ping, ...],
        *,
        count: int,
        timeout: float,  # noqa: ARG002
        kind: PingKind = PingKind.DISCO,
    ) -> Round:
        """See `Host`. It takes no time."""
        results = {
            ping.peer: tuple(self._ping(ping.ip, kind) for _ in range(count)) for ping in pings
        }
        return Round(results, None)

    async def apply(self, attempt: Attempt) -> Outcome:
        """See `Host`."""
        return self._apply(attempt)

    def log(self, line: str) -> None:
        """See `Host`."""
        self._lines.append(line)

    def warn(self, line: str) -> None:
        """See `Host`. In the journal, such a line begins with the name of the job."""
        self._lines.append(f"tsfc watchdog: {line}")

    def load(self, now: Instant) -> Result[tuple[State, tuple[str, ...]], str]:  # noqa: ARG002
        """See `Store`."""
        return Success((self.state, ()))

    def commit(self, state: State) -> Result[None, CommitError]:
        """See `Store`."""
        self.state = state
        return _COMMITTED

    def export(self, state: State) -> Result[None, str]:  # noqa: ARG002
        """See `Store`."""
        return _EXPORTED


_COMMITTED: Result[None, CommitError] = Success(None)
_EXPORTED: Result[None, str] = Success(None)
