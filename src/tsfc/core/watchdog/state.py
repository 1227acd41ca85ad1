"""What the watchdog keeps from run to run, and its file `state.json`.

`state.json` is the only truth. `files` exports parts of it under the names that the
shell scripts use.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.clock import MAX_NUMBER, Instant, Seconds
from tsfc.core.text import one_line
from tsfc.core.watchdog.memory import DAY_SECONDS, Memory
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy, Stage

VERSION = 1
"Version of the document. A change that an older tsfc would misread increments it."

ATTEMPT_LIMIT = 24
"Number of newest attempts to keep, which bounds the budget of a day."


class Relay(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A peer that was on relay when last observed."""

    since: Seconds
    "When its relay was detected."
    id: str = ""
    "StableNodeID; empty if unknown, as in the files of the scripts."


class State(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that is kept. Instants are Unix time in whole seconds."""

    relays: Mapping[str, Relay] = {}
    """By the name that the peer had.

    A name can change when another peer joins; the StableNodeID identifies the peer.
    """
    attempts: tuple[Attempt, ...] = ()
    "Newest last."
    restarts: Seconds = 0
    restart_failures: Seconds = 0
    detections: Seconds = 0
    recoveries: Seconds = 0
    last_success: Instant | None = None
    "The last run that observed peers."
    blind_since: Seconds | None = None
    "The first run after that which could not observe peers, if there was one."
    has_answered: bool = True
    "tailscaled has answered since the last attempt, whatever its backend state."
    tailscaled_start: Seconds | None = None
    """When tailscaled had started at `last_success`.

    None if unknown, and after each attempt of the watchdog.
    """
    all_offline_since: Seconds | None = None
    "The first of the latest runs that observed every peer offline, if there is one."
    last_run: Instant | None = None
    policy: str = "documented"
    "The policy of the last run that observed peers."
    memory: Memory = Memory()
    """What `GuardedPolicy` remembers.

    Other policies leave it as it is. Under each policy, a run that cannot observe peers
    ends `steady_since`.
    """


class _Document(Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    state: State


class _Version(Struct, frozen=True):
    version: int


_DECODER = msgspec.json.Decoder(_Document)
_VERSION_DECODER = msgspec.json.Decoder(_Version)


def last_restart(state: State) -> int | None:
    """When the last restart was decided, successful or not: the cooldown's start."""
    return state.attempts[-1].at if state.attempts else None


def pending(state: State) -> Attempt | None:
    """The attempt whose outcome is unknown, if there is one."""
    if state.attempts and state.attempts[-1].stage in {Stage.DECIDED, Stage.ASKED}:
        return state.attempts[-1]
    return None


def with_attempt(attempts: tuple[Attempt, ...], attempt: Attempt) -> tuple[Attempt, ...]:
    """The attempts with a new one at their end, and the least useful dropped.

    That is the oldest that costs no budget today, else the oldest. So failures in a row
    outlast what is older than a day.
    """
    if len(attempts) < ATTEMPT_LIMIT:
        return (*attempts, attempt)
    free = (
        number
        for number, earlier in enumerate(attempts)
        if attempt.at - earlier.at >= DAY_SECONDS or not costs_budget(earlier)
    )
    dropped = next(free, 0)
    return (*attempts[:dropped], *attempts[dropped + 1 :], attempt)


def plus_one(count: int) -> int:
    """A counter after one more event.

    It stays at the largest number that can be read back: after it, `state.json` would
    be damaged. Only a file that somebody has written can bring a counter there.
    """
    return count if count >= MAX_NUMBER else count + 1


def costs_budget(attempt: Attempt) -> bool:
    """Whether an attempt did not help, as far as is known, and may have done harm."""
    is_without_effect = attempt.stage is Stage.DECLINED or attempt.is_harmless
    return not is_without_effect and attempt.result is not AttemptResult.HELPED


def spent(state: State, now: int) -> int:
    """Number of attempts in the last 24 hours that cost budget."""
    return sum(
        now - attempt.at < DAY_SECONDS and costs_budget(attempt) for attempt in state.attempts
    )


def restart_at(unix: int) -> Attempt:
    """A restart of which only the time is known."""
    return Attempt(Remedy.RESTART, "", unix, unix, Stage.DONE, AttemptResult.UNCONFIRMED)


def encode(state: State) -> bytes:
    """The content of `state.json`."""
    in_order = msgspec.structs.replace(state, relays=dict(sorted(state.relays.items())))
    return msgspec.json.encode(_Document(VERSION, in_order)) + b"\n"


def decode(raw: bytes) -> Result[State, str]:
    """Read `state.json`. Fails with a phrase that says what is wrong with it."""
    try:
        version = _VERSION_DECODER.decode(raw).version
        if version != VERSION:
            return Failure(f"has version {version}, and this tsfc reads version {VERSION}")
        return Success(_DECODER.decode(raw).state)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"is damaged ({one_line(str(error), 80)})")
