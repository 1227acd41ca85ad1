"""What the watchdog remembers, read from its metrics: the way back from `families`.

The state itself is root's. The metrics are everybody's, and have all of it that a next run would go by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.clock import MAX_NUMBER, Instant
from tsfc.core.metrics.families import Sample
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.state import State


class Memory(Struct, frozen=True):
    """What a run of the watchdog left behind."""

    state: State
    policy: ThresholdPolicy
    "That it ran under; of the peers that are excluded, those that it saw."
    saw_peers: bool
    "It could see the peers. Where it could not, its metrics name none, and since when one is on relay is not known."


def remembered(samples: Mapping[str, tuple[Sample, ...]]) -> Result[Memory, str]:
    """Reads the samples of a watchdog's exposition, by the name of their metric. Fails, in one line, where they are not of one, or of one that is too old."""
    numbers = {
        name.removeprefix("tailscale_watchdog_"): _whole(found[0].value)
        for name, found in samples.items()
        if found and not found[0].labels
    }
    last_run, max_relay, cooldown = (
        numbers.get(name)
        for name in ("last_run_timestamp_seconds", "max_relay_seconds", "cooldown_seconds")
    )
    if last_run is None or max_relay is None or cooldown is None:
        return Failure("it is not what this release's watchdog writes")
    on_relay = {
        sample.labels["peer"]
        for sample in samples.get("tailscale_watchdog_peer_state", ())
        if sample.value == 1 and "peer" in sample.labels
    }
    durations = {
        sample.labels.get("peer", ""): _whole(sample.value) or 0
        for sample in samples.get("tailscale_watchdog_peer_relay_duration_seconds", ())
    }
    excluded = {
        sample.labels["peer"]
        for sample in samples.get("tailscale_watchdog_peer_excluded", ())
        if sample.value == 1 and "peer" in sample.labels
    }
    state = State(
        relay_since={name: last_run - durations.get(name, 0) for name in sorted(on_relay)},
        last_restart=numbers.get("last_restart_timestamp_seconds"),
        restarts=numbers.get("restarts_total") or 0,
        restart_failures=numbers.get("restart_failures_total") or 0,
        detections=numbers.get("relay_detections_total") or 0,
        recoveries=numbers.get("recoveries_total") or 0,
        last_success=numbers.get("last_success_timestamp_seconds"),
        last_run=Instant(last_run),
    )
    return Success(
        Memory(
            state,
            ThresholdPolicy(max_relay, cooldown, frozenset(excluded)),
            "tailscale_watchdog_peers" in samples,
        )
    )


def _whole(value: float) -> int | None:
    return int(value) if math.isfinite(value) and 0 <= value <= MAX_NUMBER else None
