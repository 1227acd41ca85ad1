"""When relay was watched without a break, and when a restart must be held back.

Both hold under every policy.
"""

from __future__ import annotations

from enum import StrEnum

from tsfc.core.clock import Instant, Seconds, suspended_between
from tsfc.core.tailscale.status import Status, key_expiry
from tsfc.core.watchdog.state import State

BLIND_SECONDS = 300
"Longest time without observed peers, in seconds, over which relay counts on."
SUSPEND_SECONDS = 60
"Shortest suspend, in seconds, that is a break."


class Hold(StrEnum):
    """Why no remedy is applied, although one is due: the node itself is cut off."""

    NO_CONTROL = "the control server cannot be reached"
    """A restart would make it worse.

    Without the control server, a tailscaled that starts gets no peers (measured,
    v1.78.3 and v1.102.3).
    """
    EXPIRED_KEY = "this node's key has expired"
    NO_RELAY = "a relay server cannot be reached"
    """Only under `GuardedPolicy`, as all that follow.

    In such an outage tailscaled itself switches between direct and relay (measured).
    """
    STARTING = "tailscaled started less than 5 minutes ago"
    PAUSED = "paused"
    "An operator has created the pause file of the policy."
    NO_BUDGET = "the budget of 24 hours is used up"


def hold(status: Status, now: Instant) -> Hold | None:
    """Return why no remedy may be applied now; None if one may."""
    if status.self_.online is False:
        return Hold.NO_CONTROL
    expiry = key_expiry(status.self_)
    if status.self_.expired or (expiry is not None and expiry <= now.unix):
        return Hold.EXPIRED_KEY
    return None


def break_before(
    state: State, now: Instant, tailscaled_start: Seconds | None, policy: str
) -> str | None:
    """Return why relay was not watched until now, so that it starts again.

    The text is a clause. None if relay was watched since the last run that observed
    peers, as far as is known. A pause between two runs is no break: timers have any
    interval. `policy` is the name of the policy: another one counted something else.
    """
    seen = state.last_success
    if seen is None:
        return None
    if state.policy != policy:
        return f"the policy is {policy} now"
    if state.blind_since is not None and now.unix - state.blind_since > BLIND_SECONDS:
        return f"no peer could be observed for {now.unix - state.blind_since}s"
    if seen.boot is not None and now.boot is not None and seen.boot.id != now.boot.id:
        return "the host was rebooted"
    suspended = suspended_between(seen, now)
    if suspended is not None and suspended > SUSPEND_SECONDS:
        return f"the host was suspended for {suspended}s"
    if suspended is None and _may_have_suspended(seen, now):
        return "the host may have been suspended"
    if is_other_start(state, tailscaled_start):
        return "tailscaled was started, and not by the watchdog"
    return None


def is_other_start(state: State, tailscaled_start: Seconds | None) -> bool:
    """Whether somebody else has started tailscaled since it was last observed.

    False if either start is unknown, as right after a restart by the watchdog.
    """
    return None not in {state.tailscaled_start, tailscaled_start} and (
        tailscaled_start != state.tailscaled_start
    )


def _may_have_suspended(seen: Instant, now: Instant) -> bool:
    """Whether a long pause may be a suspend, in a capture without `CLOCK_MONOTONIC`."""
    if seen.boot is None or now.boot is None:
        return False
    return now.boot.seconds - seen.boot.seconds > BLIND_SECONDS
