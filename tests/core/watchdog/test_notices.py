"""What a run tells people."""

from __future__ import annotations

import json

from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.watchdog.effects import Apply, Effect, Log, Warn
from tsfc.core.watchdog.notices import Notice, encode, notices
from tsfc.core.watchdog.remedy import Attempt, Remedy
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.state import State

T = 1_800_000_000
RUN = Run(Instant(T), State())
ATTEMPT = Apply(Attempt(Remedy.RESTART, "rpi3", T, T + 300))


def told(*effects: Effect) -> list[str]:
    return [notice.kind for notice in notices(replace(RUN, effects=effects))]


def test_lines_that_each_run_repeats_are_no_news() -> None:
    lines = (
        "DETECTED: rpi3 transitioned to relay",
        "WAITING: rpi3 on relay for 300s (threshold: 600s)",
        "COOLDOWN: rpi3 exceeded threshold but in cooldown (200s remaining)",
        "EXCLUDED: nas on relay for 650s, excluded from restarts",
        "HELD: nas on relay for 650s, not restarting: the control server cannot be reached",
        "CONFIRMING: nas on relay for 650s, restart in 60s if it stays",
        "RECOVERED: rpi3 back to direct",
        "OUTCOME: nas direct 12s after the restart: helped (3 of 4)",
    )
    assert told(*map(Log, lines)) == ["DETECTED", "RECOVERED", "OUTCOME"]


def test_a_remedy_that_failed_is_news_but_a_damaged_state_is_not() -> None:
    restart = Log("RESTART: rpi3 on relay for 601s, restarting tailscaled")
    assert told(Warn("a file is damaged"), restart, ATTEMPT, Warn("restarting: failed")) == [
        "RESTART",
        "FAILED",
    ]


def test_a_notice_is_a_line_of_json() -> None:
    notice = Notice(T, "RESTART", "RESTART: nas\nis stuck")
    first, second = encode((notice, notice)).splitlines()
    assert json.loads(first) == json.loads(second)
    assert json.loads(first) == {"at": T, "kind": "RESTART", "line": "RESTART: nas\nis stuck"}
