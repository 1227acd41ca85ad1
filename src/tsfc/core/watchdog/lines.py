"""The documented lines about a peer, which both policies write."""

from __future__ import annotations

from typing import assert_never

from tsfc.core.watchdog.track import Reason, Verdict
from tsfc.core.watchdog.watch import Hold


def line(
    verdict: Verdict, *, cooldown_seconds: int, hold: Hold | None, threshold_seconds: int
) -> str | None:
    """The documented log line about a peer; None if there is nothing to say."""
    peer, seconds = verdict.peer, verdict.relay_seconds
    match verdict.reason:
        case (
            Reason.DIRECT
            | Reason.UNKNOWN
            | Reason.NEVER_DIRECT
            | Reason.PATIENT
            | Reason.CONFIRMING
        ):
            return None  # about some of them, `guarded` has lines of its own
        case Reason.DETECTED:
            return f"DETECTED: {peer} transitioned to relay"
        case Reason.WAITING:
            return f"WAITING: {peer} on relay for {seconds}s (threshold: {threshold_seconds}s)"
        case Reason.EXCLUDED:
            return f"EXCLUDED: {peer} on relay for {seconds}s, excluded from restarts"
        case Reason.COOLDOWN:
            left = f"{cooldown_seconds}s remaining"
            return f"COOLDOWN: {peer} exceeded threshold but in cooldown ({left})"
        case Reason.HELD:
            return f"HELD: {peer} on relay for {seconds}s, not restarting: {hold}"
        case Reason.RESTART:
            return f"RESTART: {peer} on relay for {seconds}s, restarting tailscaled"
        case Reason.RECOVERED | Reason.RESTORED:
            return f"RECOVERED: {peer} back to direct"
        case _ as never:
            assert_never(never)
