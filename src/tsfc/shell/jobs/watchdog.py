"""The job `watchdog`: restart tailscaled when a peer is stuck on relay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, assert_never

from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.clock import Instant
from tsfc.core.faults import exit_status
from tsfc.core.report import Report
from tsfc.core.tailscale.ping import PingKind
from tsfc.core.tailscale.status import Status
from tsfc.core.watchdog import dataplane, snapshot
from tsfc.core.watchdog.dataplane import Probe
from tsfc.core.watchdog.effects import Apply, Effect, Log, Warn
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed, Unobservable
from tsfc.core.watchdog.metrics import metrics
from tsfc.core.watchdog.policy import GuardedPolicy, Policy
from tsfc.core.watchdog.remedy import Attempt, Failed, Withheld
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import step
from tsfc.shell.host import Host
from tsfc.shell.statedir import CommitError


class Store(Protocol):
    """Where the state is kept from run to run."""

    def load(self, now: Instant) -> Result[tuple[State, tuple[str, ...]], str]:
        """The state, and a line for each damaged part of it."""
        ...

    def commit(self, state: State) -> Result[None, CommitError]:
        """Replace the state in one step, durably."""
        ...

    def export(self, state: State) -> Result[None, str]:
        """Write the state for programs that read the files of the shell scripts."""
        ...


async def run(host: Host, store: Store, *, policy: Policy) -> Result[Run, str]:
    """One run. Fails with one line if the state cannot be read or written."""
    # Gather.
    observed = await host.status()
    now = host.now()
    loaded = store.load(now)
    if isinstance(loaded, Failure):
        return Failure(loaded.failure())
    before, damage = loaded.unwrap()
    for line in damage:
        host.warn(line)

    # Decide.
    fault = observed.failure() if isinstance(observed, Failure) else None
    is_paused = host.is_paused(policy)
    event: Event = (
        Unobservable(fault, is_paused)
        if fault is not None
        else await _look(
            host, before, observed.unwrap(), now=now, is_paused=is_paused, policy=policy
        )
    )
    decided = step(before, event, now=now, policy=policy)

    # Persist before acting: a crash after this costs one restart, never makes two.
    committed = store.commit(decided.state)
    if isinstance(committed, Failure):
        return Failure(f"{committed.failure().detail}; nothing is restarted without it")
    _export(host, store, decided.state)

    # Say, then act.
    run_ = Run(
        now,
        decided.state,
        is_after_break=decided.is_after_break,
        unmatched=decided.unmatched,
        verdicts=decided.verdicts,
        effects=decided.effects,
        fault=fault,
    )
    attempt = _perform(host, decided.effects)
    if attempt is None:
        return Success(run_)
    return await _apply(host, store, replace(run_, attempt=attempt), attempt, policy=policy)


def report(run: Run, policy: Policy) -> Report:
    """The metrics and the snapshot of a run."""
    return Report(
        metrics(run, policy),
        snapshot=snapshot.encode(Snapshot(run.now, policy, run.state)),
        exit_status=1 if run.has_failed else exit_status(run.fault),
    )


async def _look(
    host: Host, state: State, status: Status, *, now: Instant, is_paused: bool, policy: Policy
) -> Observed:
    """The status, and what else the policy wants to know."""
    start = host.tailscaled_start()
    observed = Observed(status, start, is_paused)
    # Without a start, the status is not that of a tailscaled that could be asked now.
    if not isinstance(policy, GuardedPolicy) or start is None:
        return observed
    return replace(observed, probes=await _probes(host, state, status, now))


async def _probes(host: Host, state: State, status: Status, now: Instant) -> Mapping[str, Probe]:
    """Ping the peers whose data plane may be dead."""
    pings = dataplane.suspects(state.memory, status, now.unix)
    if not pings:
        return {}
    timeout = dataplane.TSMP_TIMEOUT_SECONDS
    tsmp = await host.ping(pings, count=dataplane.TSMP_COUNT, timeout=timeout, kind=PingKind.TSMP)
    disco = await host.ping(pings, count=1, timeout=timeout)
    return {
        ping.peer: Probe(tsmp.results.get(ping.peer, ()), disco.results.get(ping.peer, ()))
        for ping in pings
    }


async def _apply(
    host: Host, store: Store, run: Run, attempt: Attempt, *, policy: Policy
) -> Result[Run, str]:
    """Apply the remedy of a run, and keep its outcome."""
    # What is not on the disk as asked for is not asked for, and so never miscounted.
    asking = step(run.state, Asking(attempt), now=run.now, policy=policy)
    committed = store.commit(asking.state)
    if isinstance(committed, Failure) and not committed.failure().is_replaced:
        return Failure(f"{committed.failure().detail}; nothing is restarted without it")

    outcome = await host.apply(attempt)
    if isinstance(outcome, Withheld):
        return Success(run)

    performed = step(asking.state, Performed(attempt, outcome), now=run.now, policy=policy)
    committed = store.commit(performed.state)
    if isinstance(committed, Failure):
        host.warn(committed.failure().detail)
    else:
        _export(host, store, performed.state)
    _perform(host, performed.effects)
    has_failed = isinstance(committed, Failure) or isinstance(outcome, Failed)
    effects = (*run.effects, *performed.effects)
    return Success(replace(run, state=performed.state, effects=effects, has_failed=has_failed))


def _perform(host: Host, effects: tuple[Effect, ...]) -> Attempt | None:
    """Write the lines in order; return the attempt to make, if there is one."""
    attempt: Attempt | None = None
    for effect in effects:
        match effect:
            case Log(line=line):
                host.log(line)
            case Warn(line=line):
                host.warn(line)
            case Apply():
                attempt = effect.attempt
            case _ as never:
                assert_never(never)
    return attempt


def _export(host: Host, store: Store, state: State) -> None:
    exported = store.export(state)
    if isinstance(exported, Failure):
        host.warn(exported.failure())
