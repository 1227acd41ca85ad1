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
    | on relay | since, d > max, held      | HELD      | keep          |           |
    | on relay | since, d > max            | RESTART   | keep; restart | restart   |
    | direct   | since                     | RECOVERED | forget        | recovery  |
    | direct   | since, a restart cured it | RESTORED  | forget        |           |

If no peer could be observed, everything is kept. Relay counts only while it is watched:
after a break (`watch.break_before`), the relay of each peer starts again.

A restart is held back while the node itself is cut off (`watch.hold`).

If tailscaled does not answer after a restart, the restart is repeated after each
cooldown until it does: what the watchdog has stopped, it must bring back.

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
Without a boot clock (a capture) an instant in the future becomes now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant, Seconds, step_between
from tsfc.core.faults import Down
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.naming import NOBODY, match
from tsfc.core.tailscale.peers import named
from tsfc.core.tailscale.status import PeerStatus
from tsfc.core.text import one_line
from tsfc.core.watchdog import guarded, memory, threshold
from tsfc.core.watchdog.decision import Decision, Due
from tsfc.core.watchdog.effects import Apply, Effect, Log, Warn
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed, Unobservable
from tsfc.core.watchdog.policy import (
    GuardedPolicy,
    Policy,
    ThresholdPolicy,
    cooldown_left,
    name,
)
from tsfc.core.watchdog.remedy import (
    Attempt,
    AttemptResult,
    Declined,
    Done,
    Failed,
    Outcome,
    Remedy,
    Stage,
)
from tsfc.core.watchdog.sight import Sight, by_address, by_evidence
from tsfc.core.watchdog.state import Relay, State, pending, plus_one, with_attempt
from tsfc.core.watchdog.track import Look, Tracked, Verdict, track
from tsfc.core.watchdog.watch import Hold, break_before, hold, is_other_start


class Transition(Struct, frozen=True):
    """What an event leads to."""

    state: State
    effects: tuple[Effect, ...] = ()
    "To be performed in this order, once the state is durable."
    verdicts: tuple[Verdict, ...] | None = None
    "One for each watched peer, in the order of the names; None if none was observed."
    due: Due | None = None
    "The next attempt, if nothing changes; None if there is none, or it is unknown."
    hold: Hold | None = None
    "Why no remedy may be applied now."
    is_after_break: bool = False
    "Relay was not watched for a time before this run, so it starts again."
    unmatched: tuple[str, ...] = ()
    "Excluded names that mean no peer."


def step(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
    """Decide. Total: returns for every state, event, instant and policy."""
    match event:
        case Observed():
            return _observed(state, event, now=now, policy=policy)
        case Unobservable():
            return _unobservable(state, event, now=now, policy=policy)
        case Asking():
            # From here on tailscaled may be down, or have another start.
            asked = _with_stage(state, Stage.ASKED)
            return Transition(replace(asked, has_answered=False, tailscaled_start=None))
        case Performed(outcome=outcome):
            return _performed(state, outcome)
        case _ as never:
            assert_never(never)


def _observed(state: State, event: Observed, *, now: Instant, policy: Policy) -> Transition:
    status = event.status
    settled, warnings = _settle(state, now)
    settled = _with_port(settled, event.tailscaled_start)
    if isinstance(policy, GuardedPolicy):
        settled = _with_harm(settled, event.tailscaled_start)
    if not statuses.is_running(status):
        backend = one_line(status.backend_state, 40)
        detail = f"tailscaled is {backend}, not Running: no peer can be judged, the state is kept"
        blind = replace(_blind(settled, now), has_answered=True)
        return Transition(blind, (*warnings, Warn(detail)))

    # Look at the peers.
    why_broken = break_before(settled, now, event.tailscaled_start, name(policy))
    if why_broken is not None and settled.relays:
        settled = replace(settled, relays={})
        warnings.append(Warn(f"relay starts again for every peer: {why_broken}"))
    peers = named(status)
    matches = match(peers, status.self_, policy.excluded) if policy.excluded else NOBODY
    look = Look(peers, status.self_.tailscale_ips or (), matches.peers, _sight(policy))
    cooldown = cooldown_left(policy, settled, now)
    tracked = track(settled, look, now=now, is_cooling=cooldown > 0)
    after, offline = _with_success(tracked, look, now, event.tailscaled_start, policy)

    # Decide.
    tracked = replace(tracked, state=after)
    decision = _decide(tracked, look, cooldown, event, now=now, policy=policy)
    effects: list[Effect] = [*warnings, *map(_unmatched, matches.unmatched), *offline]
    effects += map(Log, decision.lines)
    if decision.memory is not None:
        after = replace(after, memory=decision.memory)
    if decision.attempt is not None:
        after = replace(after, attempts=with_attempt(after.attempts, decision.attempt))
        effects.append(Apply(decision.attempt))
    return Transition(
        after,
        tuple(effects),
        decision.verdicts,
        decision.due,
        decision.hold,
        why_broken is not None,
        matches.unmatched,
    )


def _unobservable(state: State, event: Unobservable, *, now: Instant, policy: Policy) -> Transition:
    fault = event.fault
    settled, warnings = _settle(state, now)
    settled = _blind(settled, now)
    effects: list[Effect] = [*warnings, Warn(fault.detail)]
    last = settled.attempts[-1] if settled.attempts else None
    if (
        last is None
        or not isinstance(fault, Down)
        or not _has_left_tailscaled_down(settled, last)
        or cooldown_left(policy, settled, now) > 0
    ):
        return Transition(settled, tuple(effects))

    ago = now.unix - last.at
    down = f"tailscaled down since the restart {ago}s ago"
    if event.is_paused and isinstance(policy, GuardedPolicy):
        why = guarded.paused_by(policy)
        return Transition(settled, (*effects, Log(f"HELD: {down}, not restarting: {why}")))
    line = f"RESTART: {down}, restarting tailscaled"
    judge_at = now.unix + last.judge_at - last.at
    again = Attempt(
        Remedy.RESTART,
        last.peer,
        now.unix,
        judge_at,
        peer_id=last.peer_id,
        cooldown_seconds=last.cooldown_seconds,
    )
    settled = replace(settled, attempts=with_attempt(settled.attempts, again))
    return Transition(settled, (*effects, Log(line), Apply(again)))


def _has_left_tailscaled_down(state: State, attempt: Attempt) -> bool:
    """Whether tailscaled has not answered since an attempt that may have stopped it."""
    return not state.has_answered and attempt.stage in {Stage.DONE, Stage.FAILED}


def _blind(state: State, now: Instant) -> State:
    """The state after a run that could not observe peers.

    It saw no reason to hold back, and none to go ahead, so the node is not steady.
    """
    since = now.unix if state.blind_since is None else state.blind_since
    unsteady = replace(state.memory, steady_since=None)
    return replace(state, blind_since=since, memory=unsteady)


def _with_harm(state: State, tailscaled_start: Seconds | None) -> State:
    """The state that says whether a command that failed left tailscaled running."""
    last = state.attempts[-1] if state.attempts else None
    if last is None or last.stage is not Stage.FAILED or tailscaled_start is None:
        return state
    is_harmless = tailscaled_start < last.at
    if is_harmless is last.is_harmless:
        return state
    after = replace(last, is_harmless=is_harmless)
    return replace(state, attempts=(*state.attempts[:-1], after))


def _with_port(state: State, tailscaled_start: Seconds | None) -> State:
    """The state that says whether somebody else has started tailscaled on its port."""
    if not is_other_start(state, tailscaled_start):
        return state
    attempts = tuple(
        replace(attempt, is_undone=True) if attempt.remedy is Remedy.OTHER_PORT else attempt
        for attempt in state.attempts
    )
    return replace(state, attempts=attempts)


def _with_success(
    tracked: Tracked,
    look: Look,
    now: Instant,
    tailscaled_start: Seconds | None,
    policy: Policy,
) -> tuple[State, tuple[Warn, ...]]:
    """The state after a run that observed peers; a line if all have gone offline."""
    state = tracked.state
    offline = 0 if tracked.verdicts else sum(map(look.is_offline, look.peers))
    offline_since = state.all_offline_since
    warnings: tuple[Warn, ...] = ()
    if not offline:
        offline_since = None
    elif offline_since is None:
        offline_since = now.unix
        warnings = (
            Warn(
                f"all peers are offline ({offline}); if this node's own network works, see "
                "`tailscale status`, and try `systemctl restart tailscaled`"
            ),
        )
    return replace(
        state,
        last_success=now,
        blind_since=None,
        has_answered=True,
        tailscaled_start=tailscaled_start,
        all_offline_since=offline_since,
        policy=name(policy),
    ), warnings


def _unmatched(name: str) -> Warn:
    return Warn(f"--exclude-peer {one_line(name, 80)}: no peer has that name; see `tsfc peers`")


def _sight(policy: Policy) -> Callable[[PeerStatus], Sight]:
    match policy:
        case ThresholdPolicy():
            return by_address
        case GuardedPolicy():
            return by_evidence
        case _ as never:
            assert_never(never)


def _decide(
    tracked: Tracked,
    look: Look,
    cooldown: int,
    event: Observed,
    *,
    now: Instant,
    policy: Policy,
) -> Decision:
    held = hold(event.status, now)
    match policy:
        case ThresholdPolicy():
            return threshold.decide(
                tracked.verdicts, tracked.state, cooldown, held, now=now, policy=policy
            )
        case GuardedPolicy():
            return guarded.decide(tracked, look, cooldown, held, event, now=now, policy=policy)
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

    def moved_or_none(instant: int | None) -> int | None:
        return None if instant is None else moved(instant)

    seen = state.last_success
    # The memory is large, and no time in it is after the last run.
    is_set = bool(clock_step) or (state.last_run is not None and now.unix < state.last_run.unix)
    return replace(
        state,
        relays={
            name: relay
            if moved(relay.since) == relay.since
            else Relay(moved(relay.since), relay.id)
            for name, relay in state.relays.items()
        },
        attempts=attempts,
        last_success=None if seen is None else Instant(moved(seen.unix), seen.boot),
        blind_since=moved_or_none(state.blind_since),
        memory=memory.moved(state.memory, moved) if is_set else state.memory,
        all_offline_since=moved_or_none(state.all_offline_since),
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
    done = replace(_with_stage(state, Stage.DONE), restarts=plus_one(state.restarts))
    return done, [Warn(why)]


def _performed(state: State, outcome: Outcome) -> Transition:
    match outcome:
        case Done():
            return Transition(
                replace(_with_stage(state, Stage.DONE), restarts=plus_one(state.restarts))
            )
        case Failed(detail=detail):
            return Transition(
                replace(
                    _with_stage(state, Stage.FAILED),
                    restart_failures=plus_one(state.restart_failures),
                ),
                (Warn(detail),),
            )
        case Declined(detail=detail):
            return Transition(_with_stage(state, Stage.DECLINED), (Warn(detail),))
        case _ as never:
            assert_never(never)


def _with_stage(state: State, stage: Stage) -> State:
    """The state in which the pending attempt has reached a stage."""
    attempt = pending(state)
    if attempt is None:
        return state
    after = replace(attempt, stage=stage)
    if stage in {Stage.FAILED, Stage.DECLINED}:
        after = replace(after, result=AttemptResult.UNCONFIRMED, subjects=())
    return replace(state, attempts=(*state.attempts[:-1], after))
