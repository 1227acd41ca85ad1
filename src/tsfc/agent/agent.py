"""The agent: start each job when it is due, and give it what it asks for.

It has no rule about Tailscale. The jobs are the same coroutines that a oneshot runs;
`core.agent` decides when they run, and counts what they found.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.agent import clock_changes, pages, sight
from tsfc.agent.http import Answer, Server, text
from tsfc.agent.journal import Journal
from tsfc.agent.loop import Loop
from tsfc.agent.notify import notify, watchdog_seconds
from tsfc.core.agent import paths as path_counts
from tsfc.core.agent import pings as ping_counts
from tsfc.core.agent import runs as run_counts
from tsfc.core.agent import sessions
from tsfc.core.agent.paths import Paths
from tsfc.core.agent.pings import Pings
from tsfc.core.agent.runs import Runs, Usage
from tsfc.core.agent.schedule import Schedule, all_due, begin, plan
from tsfc.core.agent.sessions import Sessions
from tsfc.core.faults import Down, Fault
from tsfc.core.metrics.exposition import Renderer
from tsfc.core.metrics.families import Family
from tsfc.core.report import Report
from tsfc.core.tailscale.ping import Ping, PingKind, PingResult
from tsfc.core.tailscale.status import Status
from tsfc.core.text import PATH_LIMIT, printable
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.remedy import Attempt, Outcome, Withheld
from tsfc.core.watchdog.snapshot import decode as decode_snapshot
from tsfc.shell import runs
from tsfc.shell.console import error_line, print_error
from tsfc.shell.defaults import SOCKET
from tsfc.shell.host import Host
from tsfc.shell.signals import ENDING
from tsfc.shell.system import System
from tsfc.shell.tailscaled import observe
from tsfc.shell.tailscaled.localapi import Connections
from tsfc.shell.tailscaled.pings import Round
from tsfc.shell.tailscaled.source import LocalAPI, Source
from tsfc.shell.textfile import STANDARD_OUTPUT
from tsfc.shell.waiting import Wait, Waiting, sleep, until

if TYPE_CHECKING:  # for the live page only
    from tsfc.agent.live import Live
    from tsfc.core.watchdog.run import Run
    from tsfc.view.model import View

AGENT = "agent"
"Name of the agent among its jobs: it writes its own metrics like one."
MOMENT = "moment"
"Name of the coroutine that starts the jobs that are due."
OWN_SECONDS = 30.0
"Interval of its own metrics."
LOOK = "look"
"Name of the coroutine that looks at tailscaled after a restart."
LOOK_SECONDS = 30.0
"Time in which it tries; then the jobs have looked, too."
LOOK_RETRY_SECONDS = 1.0
KEEPALIVE = "keepalive"
SIGHT_SECONDS = 60.0
"Time that the agent runs at least if a directory is missing."
KEPT_CONNECTIONS = 64
"""Maximum number of idle connections: one for questions, the others for pings.

A tailnet with fewer peers opens fewer.
"""


class AgentJob(Struct, frozen=True):
    """A job that the agent runs."""

    surroundings: System
    "Those of a oneshot."
    interval: float
    "Seconds between the starts of two runs."
    run: Callable[[System], Waiting[int]]
    "Runs the job once and returns its exit status."
    status_age: float | None = 0.0
    """Age in seconds up to which a status is good enough.

    0 for one of the moment at which the job is due; None if the job needs none.
    """
    state_dir: str | None = None
    "Directory in which the job keeps state; None if it keeps none."

    @property
    def name(self) -> str:
        """The name of the job."""
        return self.surroundings.job


class _Look(Struct, frozen=True):
    """A status, or why there is none."""

    observed: Result[Status, Fault]
    at: float
    "Monotonic seconds at which tailscaled was asked."


_NO_LOOK = _Look(
    Failure(Down("tailscaled was not asked yet since it or the agent started")), -math.inf
)


class _Host(System, frozen=True, kw_only=True):
    """The surroundings of a job in the agent: the real ones, but shared by all jobs."""

    agent: Agent
    journal: Journal | None
    renderer: Renderer

    def source(self) -> Source:
        """See `System`. Connections are kept."""
        if self.options.source != "cli" and self.agent.connections.has_idle:
            return LocalAPI(self.agent.connections)
        source = super().source()
        return LocalAPI(self.agent.connections) if isinstance(source, LocalAPI) else source

    async def observe(self) -> Result[Status, Fault]:
        """See `System`. All jobs of a moment see the same status."""
        if self.agent.look is _NO_LOOK:
            await self.agent.see()
        return self.agent.look.observed

    async def ping(
        self,
        pings: tuple[Ping, ...],
        *,
        count: int,
        timeout: float,
        kind: PingKind = PingKind.DISCO,
    ) -> Round:
        """See `Host`. Pings of keepalive are counted, or left out if not needed."""
        if self.job != KEEPALIVE:
            return await super().ping(pings, count=count, timeout=timeout, kind=kind)
        started = _now()
        due = self.agent.due(pings, self.tailscaled_start(), started)
        round_ = await super().ping(due, count=count, timeout=timeout, kind=kind)
        return Round(self.agent.count(pings, round_.results, started), round_.error)

    async def apply(self, attempt: Attempt) -> Outcome | Withheld:
        """See `Host`. What was observed before a restart says nothing after it."""
        outcome = await super().apply(attempt)
        if not isinstance(outcome, Withheld):
            self.agent.look_again()
        return outcome

    def render(self, families: Iterable[Family]) -> str:
        """See `System`. What was rendered of unchanged series is kept."""
        return self.renderer.render(families)

    @property
    def keeps_metrics(self) -> bool:
        """See `System`. Clients can ask for them."""
        return self.agent.live is not None

    def keep(self, text: str, snapshot: str) -> None:
        """See `System`."""
        if self.agent.live is not None:
            self.agent.texts[self.job] = text
            self.agent.snapshot = snapshot or self.agent.snapshot

    def keep_run(self, run: Run) -> None:
        """See `System`."""
        if self.agent.live is not None:
            self.agent.live.run(run)

    def log(self, line: str) -> None:
        """See `Host`."""
        if self.journal is None or not self.journal.write(line):
            super().log(line)

    def warn(self, line: str) -> None:
        """See `Host`."""
        if self.journal is None or not self.journal.write(error_line(self.job, line)):
            super().warn(line)


class Agent:
    """What the agent knows, and its life, `run`."""

    def __init__(
        self,
        jobs: Sequence[AgentJob],
        own: System,
        listener: socket.socket | None = None,
        instance: str | None = None,
        *,
        is_adaptive: bool = False,
    ) -> None:
        self._suffix = "" if instance is None else f"-{instance}"
        "End of the identifiers of the jobs in the journal."
        self.connections = Connections(own.options.socket or SOCKET, KEPT_CONNECTIONS)
        self.look = _NO_LOOK
        self._pings = Pings()
        self._sessions = Sessions()
        self._is_adaptive = is_adaptive
        "Whether keepalive leaves out the pings that no path needs."
        self.texts: dict[str, str] = {}
        "The metrics of each job's last run."
        self.snapshot = ""
        "The last one of the watchdog."
        self.live = None if listener is None else _live(jobs)
        self._listener = listener
        own_job = AgentJob(own, OWN_SECONDS, self._run_own, status_age=None)
        self._own = self._hosted(own)
        self._jobs = {
            job.name: replace(job, surroundings=self._hosted(job.surroundings))
            for job in (*jobs, own_job)
        }
        self._runs = {job.name: Runs() for job in jobs}
        self._paths = Paths()
        self._schedule: Schedule = ()
        self._waiting: set[str] = set()
        "Jobs that are due and wait for a status."
        self._lag = 0.0
        self._is_stopping = False
        self._started = time.monotonic()
        self._directories = _directories(self._jobs.values())
        "Those that the agent needs, and other programs may replace."
        self._loop = Loop(_report_crash)

    def run(self) -> int:
        """Run the jobs until a signal ends the agent; return the exit status.

        The status is `EX_TEMPFAIL` if only a new process can see a needed directory.
        """
        gc.enable()
        gc.freeze()
        with _caught_signals() as signals, clock_changes.descriptor() as clock:
            self._loop.start("signals", self._wait_for_signal(signals))
            self._loop.start("clock", self._watch_clock(clock))
            if self._listener is not None:
                server = Server(self._loop, self._listener, self._page, self._hosts)
                self._loop.start("server", server.run())
            self._schedule = begin({job.name: job.interval for job in self._jobs.values()}, _now())
            notify("READY=1")
            try:
                return self._turn()
            finally:
                notify("STOPPING=1")
                self._loop.close()
                self.connections.close()

    def _turn(self) -> int:
        limit = watchdog_seconds()
        notify_at = math.inf if limit is None else 0.0
        while not self._is_stopping:
            next_ = plan(self._schedule, _now(), self._loop.running | self._waiting)
            self._schedule = next_.schedule
            for job in next_.skipped:
                if job in self._runs:
                    self._runs[job] = run_counts.with_skip(self._runs[job])
            hidden = self._hidden_directory() if next_.due else None
            if hidden is not None:
                print_error(
                    AGENT,
                    f"{hidden} was replaced or is missing, and a sandbox shows a new one "
                    "only to new processes; the agent ends, so that systemd starts it again",
                )
                return os.EX_TEMPFAIL
            if next_.due:
                self._loop.start(MOMENT, self._moment(next_.due))
            if limit is not None and time.monotonic() >= notify_at:
                notify("WATCHDOG=1")
                notify_at = time.monotonic() + limit / 2
            left = next_.wake - _now()
            self._loop.turn(min(time.monotonic() + left, notify_at))
            self._lag = max(self._lag, _now() - next_.wake)
        return 0

    def _hidden_directory(self) -> str | None:
        """Return a directory that only a new process can see; None while a job runs.

        While tailscaled is stopped, its directory may be missing for days. The agent
        then goes on for a while, so that its jobs report that tailscaled is down.
        """
        if self._loop.running & {*self._jobs, MOMENT}:
            return None
        is_old = time.monotonic() - self._started >= SIGHT_SECONDS
        hidden = (
            directory
            for directory in self._directories
            if sight.is_deleted(directory) or (is_old and sight.cannot_appear(directory))
        )
        return next(hidden, None)

    async def _moment(self, due: Sequence[str]) -> None:
        """Start the jobs that are due; if one needs a new status, ask for it once."""
        asking = [name for name in due if self._jobs[name].status_age is not None]
        is_needed = not all(self._is_served(self._jobs[name]) for name in asking)
        waiting = asking if is_needed else []
        for name in due:
            if name not in waiting:
                self._start(name)
        if not waiting:
            return
        self._waiting.update(waiting)
        try:
            await self.see()
        finally:
            self._waiting.difference_update(waiting)
        for name in waiting:
            self._start(name)

    def _is_served(self, job: AgentJob) -> bool:
        """Whether the last status is good enough for a job."""
        if job.status_age is None or isinstance(self.look.observed, Failure):
            return False
        return time.monotonic() - self.look.at < job.status_age

    def look_again(self) -> None:
        """Forget the last status, and look until tailscaled answers."""
        self.look = _NO_LOOK
        if LOOK not in self._loop.running:
            self._loop.start(LOOK, self._look_until_answer())

    async def _look_until_answer(self) -> None:
        """Fill the pages soon after a restart; no job uses what is seen here.

        At first, tailscaled may not know its peers, and keepalive would not ping them.
        """
        last = time.monotonic() + LOOK_SECONDS
        while True:
            await self.see()
            self.look = replace(self.look, at=-math.inf)
            if isinstance(self.look.observed, Success) or time.monotonic() >= last:
                return
            await sleep(LOOK_RETRY_SECONDS)

    async def see(self) -> None:
        """Ask for a status, for all jobs."""
        at = time.monotonic()
        observed = await observe.observe(self._own.options, self._own.source)
        self.look = _Look(observed, at)
        now = self._own.now()
        if self.live is not None:
            self.live.look(observed, now)
        if isinstance(observed, Failure):
            self._paths = path_counts.without_status(self._paths)
            notify(f"STATUS={_detail(observed.failure())}")
        else:
            self._paths = path_counts.with_status(self._paths, observed.unwrap(), now)
            notify(f"STATUS={path_counts.summary(self._paths)}")

    def due(
        self, pings: tuple[Ping, ...], tailscaled_start: int | None, now: float
    ) -> tuple[Ping, ...]:
        """Return those of the pings of keepalive that are needed now."""
        if not self._is_adaptive or isinstance(self.look.observed, Failure):
            return pings
        self._sessions = sessions.of_tailscaled(self._sessions, tailscaled_start)
        return sessions.due(
            self._sessions,
            pings,
            self.look.observed.unwrap(),
            now=now,
            interval=self._jobs[KEEPALIVE].interval,
        )

    def count(
        self,
        pings: tuple[Ping, ...],
        results: Mapping[str, tuple[PingResult, ...]],
        started: float,
    ) -> Mapping[str, tuple[PingResult, ...]]:
        """Count the results of a round of keepalive; return the last of each peer."""
        self._sessions = sessions.with_round(self._sessions, pings, results, started)
        self._pings = ping_counts.with_round(
            self._pings, {ping.peer: results.get(ping.peer, ()) for ping in pings}
        )
        return {ping.peer: pinged.results for ping, pinged in self._sessions.peers.items()}

    def _start(self, name: str) -> None:
        self._loop.start(name, self._run(self._jobs[name]))

    async def _run(self, job: AgentJob) -> None:
        status = 1
        try:
            status = await job.run(job.surroundings)
        finally:
            if job.name in self._runs:
                self._runs[job.name] = run_counts.with_end(self._runs[job.name], status, _now())

    async def _run_own(self, host: System) -> int:
        return await runs.run(host, self._report)

    async def _report(self, _: Host) -> Report:
        lag, self._lag = self._lag, 0.0
        usage = Usage(time.process_time(), _resident_bytes(), lag)
        return Report(
            (
                *path_counts.metrics(self._paths),
                *ping_counts.metrics(self._pings),
                *run_counts.metrics(self._runs, usage),
            )
        )

    def _page(self, path: str) -> Answer:
        match path:
            case "/metrics":
                return pages.metrics(self.texts[job] for job in self._jobs if job in self.texts)
            case "/healthz":
                intervals = {job: self._jobs[job].interval for job in self._runs}
                return pages.health(run_counts.overdue(self._runs, intervals, _now()))
            case "/api/peers":
                return self._with_view(pages.peers)
            case "/api/table" if self.live is not None:
                return self._with_view(self.live.table)
            case "/api/history" if self.live is not None:
                return self.live.history(self._quiet_seconds())
            case "/" if self.live is not None:
                return self.live.page()
            case _:
                return text(404, "there are /, /metrics, /healthz, /api/peers and /api/history")

    def _quiet_seconds(self) -> float:
        """Return the time until the next job starts; 0 while one runs."""
        if self._loop.running & {*self._jobs, MOMENT}:
            return 0.0
        return max(0.0, min(entry.due for entry in self._schedule) - _now())

    def _with_view(self, page: Callable[[View], Answer]) -> Answer:
        """Return a page about the peers; 503 if the last look has shown nothing."""
        observed = self.look.observed
        if isinstance(observed, Failure):
            return text(503, _detail(observed.failure()))
        snapshot = decode_snapshot(self.snapshot.encode()).value_or(None)
        seen = Observed(
            observed.unwrap(),
            self._own.tailscaled_start(),
            is_paused=snapshot is not None and self._own.is_paused(snapshot.policy),
        )
        return page(pages.view(seen, snapshot, self._own.now()))

    def _hosts(self) -> frozenset[str]:
        return pages.hosts(self.look.observed)

    async def _wait_for_signal(self, descriptor: int) -> None:
        await until(Wait(descriptor, math.inf))
        self._is_stopping = True

    async def _watch_clock(self, descriptor: int | None) -> None:
        """Look at everything at once after the clock was set, or after a suspend."""
        while descriptor is not None:
            await until(Wait(descriptor, math.inf))
            clock_changes.arm(descriptor)
            self._schedule = all_due(self._schedule, _now())

    def _hosted(self, system: System) -> _Host:
        identifier = f"tailscale-{system.job}{self._suffix}"
        journal = Journal(identifier) if "JOURNAL_STREAM" in os.environ else None
        return _Host(
            system.job,
            system.options,
            system.unit,
            system.restart_socket,
            system.is_dry_run,
            agent=self,
            journal=journal,
            renderer=Renderer(),
        )


def _directories(jobs: Iterable[AgentJob]) -> tuple[str, ...]:
    """Return the directories of the socket, of the metrics and of the state."""
    found: list[str] = []
    for job in jobs:
        options = job.surroundings.options
        found.append(os.path.dirname(options.socket or SOCKET))
        path = options.metrics_path
        if path is not None and path != STANDARD_OUTPUT:
            found.append(os.path.dirname(os.path.abspath(path)))
        if job.state_dir is not None:
            found.append(job.state_dir)
    return tuple(dict.fromkeys(found))


def _live(jobs: Sequence[AgentJob]) -> Live:
    """Return an empty history. Without clients, it and its imports would be a waste."""
    from tsfc.agent.live import Live  # noqa: PLC0415

    intervals = [max(job.interval, age) for job in jobs if (age := job.status_age) is not None]
    return Live(min(intervals, default=0.0))


@contextmanager
def _caught_signals() -> Generator[int]:
    """Yield a descriptor that can be read after SIGTERM or SIGINT; ignore SIGHUP."""
    readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.getsignal(number) for number in ENDING}
    for number in (signal.SIGTERM, signal.SIGINT):
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, _ignore)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    try:
        yield readable
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)


def _detail(fault: Fault) -> str:
    """Return why there is no status as one printable line. Paths can be any bytes."""
    return printable(fault.detail, 2 * PATH_LIMIT)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the descriptor tells of the signal."""


def _report_crash(name: str, error: Exception) -> None:
    """Print the error that ended a job. The other jobs go on."""
    print_error(AGENT, f"{name} ended with a defect of tsfc, please report it:")
    for line in "".join(traceback.format_exception(error)).splitlines():
        print_error(AGENT, line)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
