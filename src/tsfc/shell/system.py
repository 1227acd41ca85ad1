"""The real surroundings of a job."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, assert_never

from msgspec import Struct
from returns.result import Result, Success

from tsfc.core.clock import Instant
from tsfc.core.faults import Fault
from tsfc.core.tailscale.ping import PingKind
from tsfc.core.tailscale.status import Status
from tsfc.core.text import one_line
from tsfc.shell import clocks, textfile
from tsfc.shell.console import STDERR, STDOUT, print_error, say
from tsfc.shell.tailscaled import observe
from tsfc.shell.tailscaled.observe import RunOptions
from tsfc.shell.tailscaled.source import Cli, LocalAPI, Source

if TYPE_CHECKING:  # a start is most of a run's cost: a job imports only what it needs
    from tsfc.core.metrics.families import Family
    from tsfc.core.tailscale.ping import Ping
    from tsfc.core.watchdog.policy import Policy
    from tsfc.core.watchdog.remedy import Attempt, Outcome, Withheld
    from tsfc.core.watchdog.run import Run
    from tsfc.shell.tailscaled.pings import Round


class System(Struct, frozen=True):
    """The real surroundings."""

    job: str
    options: RunOptions
    unit: str = ""
    "The systemd unit of tailscaled."
    restart_socket: str | None = None
    "Socket of the privileged helper that restarts the unit; None to run systemctl."
    is_dry_run: bool = False
    "No remedy is applied."

    def source(self) -> Source:
        """Return what the options select to ask tailscaled."""
        return observe.source(self.options)

    async def observe(self) -> Result[Status, Fault]:
        """Return the status of tailscaled, or of the status file."""
        return await observe.observe(self.options, self.source)

    def unix_time(self) -> float:
        """See `Host`."""
        return clocks.unix_time(self.options.now)

    def now(self) -> Instant:
        """See `Host`."""
        return clocks.instant(self.options.now)

    async def status(self) -> Result[Status, Fault]:
        """See `Host`."""
        observed = await self.observe()
        if isinstance(observed, Success):
            for problem in observed.unwrap().problems:
                self.warn(one_line(problem))
        return observed

    def tailscaled_start(self) -> int | None:
        """See `Host`. Unknown if the status or the time is not the present one."""
        if self.options.status_file is not None or self.options.now is not None:
            return None
        return observe.tailscaled_start(self.options)

    def is_paused(self, policy: Policy) -> bool:
        """See `Host`."""
        from tsfc.core.watchdog.policy import pause_file  # noqa: PLC0415 - for the watchdog only

        file = pause_file(policy)
        return file is not None and os.path.lexists(file)

    async def usermetrics(self) -> Result[bytes, Fault]:
        """See `Host`."""
        return await observe.raw_usermetrics(self.options, self.source)

    async def ping(
        self,
        pings: tuple[Ping, ...],
        *,
        count: int,
        timeout: float,
        kind: PingKind = PingKind.DISCO,
    ) -> Round:
        """See `Host`. The pings go the way of all requests to tailscaled."""
        match self.source():
            case LocalAPI(connections=connections):
                from tsfc.shell.tailscaled import localapi_pings  # noqa: PLC0415

                return await localapi_pings.ping_all(
                    connections, pings, count=count, timeout=timeout, kind=kind
                )
            case Cli() as source:
                from tsfc.shell.tailscaled import cli_pings  # noqa: PLC0415

                return await cli_pings.ping_all(
                    source, pings, count=count, timeout=timeout, kind=kind
                )
            case _ as never:
                assert_never(never)

    async def apply(self, attempt: Attempt) -> Outcome | Withheld:
        """See `Host`."""
        from tsfc.core.watchdog.remedy import Remedy, Withheld  # noqa: PLC0415
        from tsfc.shell import systemd  # noqa: PLC0415 - most runs apply nothing

        if self.is_dry_run:
            self.warn(f"dry run: {self.unit} is not restarted")
            return Withheld()
        match attempt.remedy:
            case Remedy.RESTART if self.restart_socket is not None:
                return await systemd.ask_for_restart(self.unit, self.restart_socket)
            case Remedy.RESTART:
                return await systemd.restart(self.unit)
            case Remedy.OTHER_PORT if self.restart_socket is not None:
                return await systemd.ask_for_other_port(self.unit, self.restart_socket)
            case Remedy.OTHER_PORT:
                return await systemd.restart_on_other_port(self.unit)
            case _ as never:
                assert_never(never)

    def render(self, families: Iterable[Family]) -> str:
        """Return metrics as text."""
        from tsfc.core.metrics.exposition import render  # noqa: PLC0415

        return render(families)

    @property
    def keeps_metrics(self) -> bool:
        """Whether somebody wants metrics that have no file."""
        return False

    def keep(self, text: str, snapshot: str) -> None:
        """Take the metrics of a run, and its snapshot."""

    def keep_run(self, run: Run) -> None:
        """Take what a run of the watchdog observed, decided and did."""

    def log(self, line: str) -> None:
        """See `Host`. Standard output is the journal, unless it has the metrics."""
        has_metrics = self.options.metrics_path == textfile.STANDARD_OUTPUT
        say(STDERR if has_metrics else STDOUT, line)

    def warn(self, line: str) -> None:
        """See `Host`."""
        print_error(self.job, line)
