"""The job `watchdog`: looks at all online peers, restarts tailscaled where one is stuck on relay, says what it saw and did."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.faults import exit_status
from tsfc.core.watchdog.effects import Effect, Log, RestartTailscaled, Warn
from tsfc.core.watchdog.events import Failed, Observed, Outcome, Performed, Unobservable
from tsfc.core.watchdog.metrics import metrics
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.state import from_files, is_state_file, to_files
from tsfc.core.watchdog.step import step
from tsfc.shell import statedir, systemd, textfile
from tsfc.shell.clocks import instant
from tsfc.shell.console import STDERR, STDOUT, print_error, say
from tsfc.shell.jobs.common import report
from tsfc.shell.tailscaled.observe import Common, observe

JOB = "watchdog"


class Options(Struct, frozen=True):
    """What the watchdog is told on the command line, beside what every job is told."""

    policy: Policy
    state_dir: str
    unit: str
    restart_socket: str | None
    "Where to ask for the restart, instead of by `systemctl`."


class Hands(Struct, frozen=True):
    """What a run may do to the world; a dry run has other hands."""

    commit: Callable[[Mapping[str, bytes | None], Mapping[str, str]], Result[None, str]]
    "Makes the state files that were loaded into those that are to be."
    restart: Callable[[], Outcome | None]
    "Restarts tailscaled and returns what came of it; None where it was not to be tried."


def run(common: Common, options: Options) -> int:
    """Does one run; does nothing where another one is at it."""
    locked = statedir.lock(options.state_dir)
    if isinstance(locked, Failure):
        problem: statedir.Locked | str = locked.failure()
        if isinstance(problem, statedir.Locked):
            print_error(
                JOB, f"another run holds the lock in {options.state_dir}: this one does nothing"
            )
            return 0
        print_error(JOB, problem)
        return 1
    hands = Hands(
        commit=lambda before, after: statedir.commit(options.state_dir, before, after),
        restart=lambda: (
            systemd.restart(options.unit)
            if options.restart_socket is None
            else systemd.ask_for_restart(options.unit, options.restart_socket)
        ),
    )
    return _run(common, options, hands)


def dry_run(common: Common, options: Options) -> int:
    """Decides and says what `run` would, from the state as it is; keeps nothing and restarts nothing."""

    def only_say() -> None:
        print_error(JOB, f"dry run: {options.unit} is not restarted")

    return _run(
        common, options, Hands(commit=lambda _before, _after: Success(None), restart=only_say)
    )


def _run(common: Common, options: Options, hands: Hands) -> int:
    started = time.monotonic()
    loaded = statedir.load(options.state_dir, is_state_file)
    if isinstance(loaded, Failure):
        print_error(JOB, loaded.failure())
        return 1
    observed = observe(common)
    fault = observed.failure() if isinstance(observed, Failure) else None
    now = instant(common.now)
    state, complaints = from_files(loaded.unwrap(), now=now)
    for complaint in complaints:
        print_error(JOB, complaint)

    seen = step(
        state,
        Observed(observed.unwrap()) if fault is None else Unobservable(fault),
        now=now,
        policy=options.policy,
    )
    files = to_files(seen.state)
    kept = hands.commit(loaded.unwrap(), files)
    if isinstance(kept, Failure):
        print_error(JOB, f"{kept.failure()}; nothing is restarted without it")
        return 1
    performed = _perform(seen.effects, hands, common)
    if performed is None:
        return report(
            JOB,
            common,
            metrics(seen.state, seen.verdicts, now=now, policy=options.policy),
            started=started,
        ) or exit_status(fault)

    told = step(seen.state, performed, now=now, policy=options.policy)
    kept = hands.commit({name: text.encode() for name, text in files.items()}, to_files(told.state))
    if isinstance(kept, Failure):
        print_error(JOB, kept.failure())
    _perform(told.effects, hands, common)
    has_failed = isinstance(kept, Failure) or isinstance(performed.outcome, Failed)
    return report(
        JOB,
        common,
        metrics(told.state, seen.verdicts, now=now, policy=options.policy),
        started=started,
    ) or int(has_failed)


def _perform(effects: tuple[Effect, ...], hands: Hands, common: Common) -> Performed | None:
    """Performs the effects in their order, and returns what came of the one whose outcome matters, if there was one."""
    performed = None
    for effect in effects:
        match effect:
            case Log(line=line):
                say(STDERR if common.metrics_path == textfile.STANDARD_OUTPUT else STDOUT, line)
            case Warn(line=line):
                print_error(JOB, line)
            case RestartTailscaled():
                outcome = hands.restart()
                performed = None if outcome is None else Performed(effect, outcome)
    return performed
