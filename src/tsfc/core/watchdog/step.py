"""The watchdog's decision.

Rule 1: everything that decides whether a peer is stuck, and what is done about it, is
in this file, `track.py`, and the module of the policy.
Rule 2: none of them learns where a status came from: tailscaled, a capture, a
simulation.

Theory of operation
===================

A run is one `Observed` (or `Unobservable`, if no status could be read). If that decides
on an attempt, one `Asking` follows right before the command, and one `Performed` with
its outcome. Each event yields a new state, and effects in the order in which the shell
performs them.

`step` is: settle (bring the state of an earlier run into this one), track (what changed
under every policy alike), decide (by policy), and the effects of the decision.

For each watched peer, `d` being the whole seconds since its relay began, and the
cooldown holding while `now - last_restart < cooldown`:

    | path now | kept                      | verdict   | then          | counts    |
    |----------|---------------------------|-----------|---------------|-----------|
    | direct   | nothing                   | DIRECT    | nothing       |           |
    | on relay | nothing                   | DETECTED  | keep now      | detection |
    | on relay | since, d <= max           | WAITING   | keep          |           |
    | on relay | since, d > max, excluded  | EXCLUDED  | keep          |           |
    | on relay | since, d > max, cooldown  | COOLDOWN  | keep          |           |
    | on relay | since, d > max            | RESTART   | keep; restart | restart   |
    | direct   | since                     | RECOVERED | forget        | recovery  |
    | direct   | since, a restart cured it | RESTORED  | forget        |           |

If no peer could be observed, everything is kept.

"On relay" means, as documented, to have no direct address. That is also true of an idle
peer, so this policy needs the job `keepalive`. `paths.classify` could tell the two
apart; a policy that does is another member of `Policy`.

There is one attempt at most, and it is kept from the moment of the decision: the shell
makes the state durable before it acts. Whatever happens then, a crash, a hang, a
failure, there is no second attempt within the cooldown. An attempt has stages. DECIDED
is on the disk before any line is written, ASKED right before the command runs. A run
that dies in between leaves its stage to the next run: DECIDED is withdrawn, because the
command did not run; ASKED counts as done, because systemd finishes a job that it was
asked for, even if nobody waits for it.

"A restart cured it" means: the cooldown holds, and the peer was on relay when it began.
Relay is kept without a gap, so that is `since <= last_restart`.

Clocks. Instants are wall-clock time, because the files of the scripts hold that. If the
boot clock shows that the wall clock was set between two runs, all instants move with
it, so that a Raspberry Pi that learns the time after boot does not restart anything.
Without a boot clock (a capture) an instant in the future becomes now. Suspend and
reboot change nothing: both clocks count that time, or cannot be compared.
"""

from __future__ import annotations

from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant, step_between
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.status import Status
from tsfc.core.text import one_line
from tsfc.core.watchdog import threshold
from tsfc.core.watchdog.effects import Apply, Effect, Log, Warn
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed, Unobservable
from tsfc.core.watchdog.policy import Policy, ThresholdPolicy, cooldown_left
from tsfc.core.watchdog.remedy import AttemptResult, Done, Failed, Outcome, Stage
from tsfc.core.watchdog.state import State, pending, with_attempt
from tsfc.core.watchdog.threshold import Decision, Due
from tsfc.core.watchdog.track import Verdict, track


class Transition(Struct, frozen=True):
    """What an event leads to."""

    state: State
    effects: tuple[Effect, ...] = ()
    "To be performed in this order, once the state is durable."
    verdicts: tuple[Verdict, ...] | None = None
    "One for each watched peer, in the order of the names; None if none was observed."
    due: Due | None = None
    "The next attempt, if nothing changes; None if there is none, or it is unknown."


def step(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
    """Decide. Total: returns for every state, event, instant and policy."""
    match event:
        case Observed(status=status):
            return _observed(state, status, now=now, policy=policy)
        case Unobservable(fault=fault):
            settled, warnings = _settle(state, now)
            return Transition(settled, (*warnings, Warn(fault.detail)))
        case Asking():
            return Transition(_with_stage(state, Stage.ASKED))
        case Performed(outcome=outcome):
            return _performed(state, outcome)
        case _ as never:
            assert_never(never)


def _observed(state: State, status: Status, *, now: Instant, policy: Policy) -> Transition:
    settled, warnings = _settle(state, now)
    if not statuses.is_running(status):
        backend = one_line(status.backend_state, 40)
        detail = f"tailscaled is {backend}, not Running: no peer can be judged, the state is kept"
        return Transition(settled, (*warnings, Warn(detail)))

    cooldown = cooldown_left(policy, settled, now)
    tracked, verdicts = track(settled, status, now=now, is_cooling=cooldown > 0)
    decision = _decide(verdicts, tracked, cooldown, now=now, policy=policy)

    effects: list[Effect] = [*warnings, *map(Log, decision.lines)]
    if decision.attempt is not None:
        attempts = with_attempt(tracked.attempts, decision.attempt)
        tracked = replace(tracked, attempts=attempts)
        effects.append(Apply(decision.attempt))
    return Transition(tracked, tuple(effects), decision.verdicts, decision.due)


def _decide(
    verdicts: list[Verdict], state: State, cooldown: int, *, now: Instant, policy: Policy
) -> Decision:
    match policy:
        case ThresholdPolicy():
            return threshold.decide(verdicts, state, cooldown, now=now, policy=policy)
        case _ as never:
            assert_never(never)


def _settle(state: State, now: Instant) -> tuple[State, list[Warn]]:
    """Bring the state of an earlier run into this one: its clock, a pending attempt."""
    clock_step = step_between(state.last_run, now)
    settled, warnings = _with_attempt_settled(_with_clock(state, now, clock_step))
    if not clock_step:
        return settled, warnings
    moved = f"the clock was set by {clock_step:+d}s since the last run: all times moved with it"
    return settled, [Warn(moved), *warnings]


def _with_clock(state: State, now: Instant, clock_step: int) -> State:
    """The state with its instants moved by `clock_step` seconds, none in the future."""

    def moved(instant: int) -> int:
        return min(now.unix, max(0, instant + clock_step))

    attempts = state.attempts
    if attempts and moved(attempts[-1].at) != attempts[-1].at:
        attempts = tuple(
            replace(
                attempt,
                at=moved(attempt.at),
                judge_at=moved(attempt.at) + attempt.judge_at - attempt.at,
            )
            for attempt in attempts
        )
    return replace(
        state,
        relay_since={name: moved(since) for name, since in state.relay_since.items()},
        attempts=attempts,
        last_success=None if state.last_success is None else moved(state.last_success),
        last_run=now,
    )


def _with_attempt_settled(state: State) -> tuple[State, list[Warn]]:
    """The state without a pending attempt: a run that died left it at its stage."""
    attempt = pending(state)
    if attempt is None:
        return state, []
    if attempt.stage is Stage.DECIDED:
        why = "the run that decided to restart tailscaled ended before it did: not counted"
        return replace(state, attempts=state.attempts[:-1]), [Warn(why)]
    why = "the run that restarted tailscaled ended before it knew the outcome: counted as done"
    done = replace(_with_stage(state, Stage.DONE), restarts=state.restarts + 1)
    return done, [Warn(why)]


def _performed(state: State, outcome: Outcome) -> Transition:
    match outcome:
        case Done():
            return Transition(replace(_with_stage(state, Stage.DONE), restarts=state.restarts + 1))
        case Failed(detail=detail):
            return Transition(
                replace(
                    _with_stage(state, Stage.FAILED), restart_failures=state.restart_failures + 1
                ),
                (Warn(detail),),
            )
        case _ as never:
            assert_never(never)


def _with_stage(state: State, stage: Stage) -> State:
    """The state in which the pending attempt has reached a stage."""
    attempt = pending(state)
    if attempt is None:
        return state
    result = AttemptResult.UNKNOWN if stage is Stage.FAILED else attempt.result
    return replace(
        state, attempts=(*state.attempts[:-1], replace(attempt, stage=stage, result=result))
    )
