"""The watchdog's decision.

Rule 1: everything that decides whether a peer is stuck, and what is done about it, lives in this file.
Rule 2: this file does not learn where a status came from: a daemon, a recording, a simulation.

Theory of operation
===================

A run is one `Observed` (or `Unobservable`, when nothing could be seen) and, if that asked for a restart, one
`Performed` that says what came of it. Each yields a new state, and effects in the order in which they are to be
performed.

For each watched peer, `d` being the whole seconds since its relay began and the cooldown holding while
`now - last_restart < cooldown`:

    | seen now | remembered                     | verdict   | then                | counts    |
    |----------|--------------------------------|-----------|---------------------|-----------|
    | direct   | nothing                        | DIRECT    | nothing             |           |
    | on relay | nothing                        | DETECTED  | remember now        | detection |
    | on relay | since, d <= max                | WAITING   | keep                |           |
    | on relay | since, d > max, excluded       | EXCLUDED  | keep                |           |
    | on relay | since, d > max, cooldown holds | COOLDOWN  | keep                |           |
    | on relay | since, d > max, no cooldown    | RESTART   | keep; restart       | restart   |
    | direct   | since                          | RECOVERED | forget              | recovery  |
    | direct   | since, and a restart cured it  | RESTORED  | forget              |           |

A peer that is remembered and not watched any more (offline, gone, expired) is forgotten without a word, so that it
does not come back with its old start. Where nothing could be seen, all is kept.

"On relay" is, as documented, to have no direct address. That is true of an idle peer, too, so the policy wants the job
`keepalive` beside it. `paths.classify` could tell them apart; a policy that does is another member of `Policy`.

One restart at most. Of all peers with the verdict RESTART the one that is longest on relay keeps it (ties: the first
by name), the others get COOLDOWN with the whole cooldown before them, for that is what the restart begins.

The restart is remembered when it is decided, before it is tried: the shell makes the state durable first. So whatever
happens then, a crash, a hang, a failure, there is no second one within the cooldown. It is counted when its outcome
is known. If the run dies before that, `restart_pending` is still set at the next one, and the restart counts as done:
systemd finishes a job that was asked for, whether or not somebody waits for it.

"A restart cured it" is: the cooldown holds, and the peer was on relay when it began. Relay is remembered without a gap,
so that is `since <= last_restart`, and needs no memory of its own.

Clocks. Remembered instants are wall-clock time, because the files that hold them are. Where the boot clock shows that
the wall clock was set between two runs, all of them are moved by as much, so that a Raspberry Pi that learns the time
after boot does not restart anything for it. Without a boot clock (a recording) there is still: an instant in the
future becomes now. Suspend and reboot change nothing: both clocks count the time, or cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant, step_between
from tsfc.core.tailscale import status as statuses
from tsfc.core.tailscale.paths import has_direct_address
from tsfc.core.tailscale.peers import Peer, is_watched, named
from tsfc.core.tailscale.status import Status
from tsfc.core.text import one_line
from tsfc.core.watchdog.effects import Effect, Log, RestartTailscaled, Warn
from tsfc.core.watchdog.events import (
    Done,
    Event,
    Failed,
    Observed,
    Outcome,
    Performed,
    Unobservable,
)
from tsfc.core.watchdog.policy import Policy, ThresholdPolicy, is_excluded
from tsfc.core.watchdog.state import State


class Reason(StrEnum):
    """Why a peer is treated as it is: its row of the table, its log line, and the label `reason` of a metric."""

    DIRECT = "direct"
    DETECTED = "detected"
    WAITING = "waiting"
    EXCLUDED = "excluded"
    COOLDOWN = "cooldown"
    RESTART = "restart"
    RECOVERED = "recovered"
    RESTORED = "restored"
    "Direct again, and a restart did it; the line is that of RECOVERED."


DIRECT = frozenset({Reason.DIRECT, Reason.RECOVERED, Reason.RESTORED})
"Reasons of peers that have a direct address now."


class Verdict(Struct, frozen=True):
    """What was decided about one watched peer."""

    peer: str
    reason: Reason
    relay_seconds: int = 0
    "Whole seconds on relay, rounded down; 0 for a direct peer."


class Transition(Struct, frozen=True):
    """What an event leads to."""

    state: State
    effects: tuple[Effect, ...] = ()
    "To be performed in this order, after the state was made durable."
    verdicts: tuple[Verdict, ...] | None = None
    "One for each watched peer, in the order of the names; None where no peer could be seen."


def step(state: State, event: Event, *, now: Instant, policy: Policy) -> Transition:
    """Decides. Total: it returns for every state, event, instant and policy, and never raises."""
    match event:
        case Observed(status=status) if statuses.is_running(status):
            settled, warnings = _settle(state, now)
            return _observed(settled, status, warnings, now=now, policy=policy)
        case Observed(status=status):
            settled, warnings = _settle(state, now)
            seen = f"tailscaled is {one_line(status.backend_state, 40)}, not Running: no peer can be judged, all is kept as it was"
            return Transition(settled, (*warnings, Warn(seen)))
        case Unobservable(fault=fault):
            settled, warnings = _settle(state, now)
            return Transition(settled, (*warnings, Warn(fault.detail)))
        case Performed(outcome=outcome):
            return _performed(replace(state, restart_pending=False), outcome)
        case _ as never:
            assert_never(never)


def line(verdict: Verdict, *, cooldown_remaining: int, policy: Policy) -> str | None:
    """Returns what is said of a peer; None for nothing. Seconds are whole."""
    peer, seconds = verdict.peer, verdict.relay_seconds
    match verdict.reason:
        case Reason.DIRECT:
            return None
        case Reason.DETECTED:
            return f"DETECTED: {peer} transitioned to relay"
        case Reason.WAITING:
            return (
                f"WAITING: {peer} on relay for {seconds}s (threshold: {policy.max_relay_seconds}s)"
            )
        case Reason.EXCLUDED:
            return f"EXCLUDED: {peer} on relay for {seconds}s, excluded from restarts"
        case Reason.COOLDOWN:
            return f"COOLDOWN: {peer} exceeded threshold but in cooldown ({cooldown_remaining}s remaining)"
        case Reason.RESTART:
            return f"RESTART: {peer} on relay for {seconds}s, restarting tailscaled"
        case Reason.RECOVERED | Reason.RESTORED:
            return f"RECOVERED: {peer} back to direct"
        case _ as never:
            assert_never(never)


def _settle(state: State, now: Instant) -> tuple[State, tuple[Warn, ...]]:
    """Brings a state that was written by an earlier run into this one: clocks, and a restart of unknown outcome."""
    clock_step = step_between(state.last_run, now)

    def settled(instant: int) -> int:
        return min(now.unix, max(0, instant + clock_step))

    warnings: list[Warn] = []
    if clock_step:
        warnings.append(
            Warn(
                f"the clock was set by {clock_step:+d}s since the last run: all that is remembered was moved with it"
            )
        )
    if state.restart_pending:
        warnings.append(
            Warn(
                "the run that restarted tailscaled ended before it knew the outcome: counted as done"
            )
        )
    return replace(
        state,
        relay_since={name: settled(since) for name, since in state.relay_since.items()},
        last_restart=None if state.last_restart is None else settled(state.last_restart),
        last_success=None if state.last_success is None else settled(state.last_success),
        restarts=state.restarts + int(state.restart_pending),
        restart_pending=False,
        last_run=now,
    ), tuple(warnings)


def _observed(
    state: State,
    status: Status,
    warnings: tuple[Warn, ...],
    *,
    now: Instant,
    policy: ThresholdPolicy,
) -> Transition:
    peers = [peer for peer in named(status) if is_watched(peer.status)]
    cooldown_remaining = cooldown_left(state, now, policy)
    verdicts = [_judge(peer, state, cooldown_remaining, now=now, policy=policy) for peer in peers]
    restart = _longest_on_relay(verdicts)
    if restart is not None:
        verdicts = [_yield_to(restart, verdict) for verdict in verdicts]
        cooldown_remaining = policy.cooldown_seconds
    lines = [
        line(verdict, cooldown_remaining=cooldown_remaining, policy=policy) for verdict in verdicts
    ]
    reasons = [verdict.reason for verdict in verdicts]
    return Transition(
        state=replace(
            state,
            relay_since=_remember(verdicts, state.relay_since, now),
            last_restart=state.last_restart if restart is None else now.unix,
            restart_pending=restart is not None,
            detections=state.detections + reasons.count(Reason.DETECTED),
            recoveries=state.recoveries + reasons.count(Reason.RECOVERED),
            last_success=now.unix,
        ),
        effects=(
            *warnings,
            *(Log(said) for said in lines if said is not None),
            *(() if restart is None else (RestartTailscaled(restart.peer, restart.relay_seconds),)),
        ),
        verdicts=tuple(verdicts),
    )


def _performed(state: State, outcome: Outcome) -> Transition:
    match outcome:
        case Done():
            return Transition(replace(state, restarts=state.restarts + 1))
        case Failed(detail=detail):
            return Transition(
                replace(state, restart_failures=state.restart_failures + 1), (Warn(detail),)
            )
        case _ as never:
            assert_never(never)


def cooldown_left(state: State, now: Instant, policy: ThresholdPolicy) -> int:
    """Returns for how many seconds the cooldown still holds; 0 where it does not."""
    if state.last_restart is None:
        return 0
    return max(0, policy.cooldown_seconds - (now.unix - state.last_restart))


def _judge(
    peer: Peer, state: State, cooldown_remaining: int, *, now: Instant, policy: ThresholdPolicy
) -> Verdict:
    """Returns the peer's row of the table, as if it were the only one."""
    since = state.relay_since.get(peer.name)
    if has_direct_address(peer.status):
        if since is None:
            return Verdict(peer.name, Reason.DIRECT)
        was_restarted = (
            cooldown_remaining > 0
            and state.last_restart is not None
            and since <= state.last_restart
        )
        return Verdict(peer.name, Reason.RESTORED if was_restarted else Reason.RECOVERED)
    if since is None:
        return Verdict(peer.name, Reason.DETECTED)
    seconds = now.unix - since
    if seconds <= policy.max_relay_seconds:
        return Verdict(peer.name, Reason.WAITING, seconds)
    if is_excluded(policy, peer.name):
        return Verdict(peer.name, Reason.EXCLUDED, seconds)
    if cooldown_remaining > 0:
        return Verdict(peer.name, Reason.COOLDOWN, seconds)
    return Verdict(peer.name, Reason.RESTART, seconds)


def _longest_on_relay(verdicts: list[Verdict]) -> Verdict | None:
    """Returns the verdict that causes the restart: of several the longest on relay, of equals the first by name; None without any."""
    return max(
        (verdict for verdict in verdicts if verdict.reason is Reason.RESTART),
        key=lambda verdict: verdict.relay_seconds,
        default=None,
    )


def _yield_to(restart: Verdict, verdict: Verdict) -> Verdict:
    """Returns the verdict on a peer in a run in which `restart` is the cause: over the threshold like it, it has to wait."""
    if verdict.reason is Reason.RESTART and verdict.peer != restart.peer:
        return replace(verdict, reason=Reason.COOLDOWN)
    return verdict


def _remember(
    verdicts: list[Verdict], relay_since: Mapping[str, int], now: Instant
) -> dict[str, int]:
    """Returns since when each peer is on relay that is; whoever was not seen on relay is forgotten."""
    return {
        verdict.peer: relay_since.get(verdict.peer, now.unix)
        for verdict in verdicts
        if verdict.reason not in DIRECT
    }
