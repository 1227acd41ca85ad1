"""Print the metrics reference, generated from the code: `make docs`."""

from __future__ import annotations

import sys

from tsfc.core import exporter, keepalive
from tsfc.core import native_metrics as native
from tsfc.core.agent import paths, pings, runs
from tsfc.core.clock import Instant
from tsfc.core.metrics.families import Family, duration
from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.peers import Hidden
from tsfc.core.tailscale.ping import PingOutcome, PingResult
from tsfc.core.tailscale.status import BACKEND_STATES, decode
from tsfc.core.watchdog import metrics as watchdog
from tsfc.core.watchdog.cause import Cause
from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
from tsfc.core.watchdog.remedy import RESULTS, Remedy
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.state import State, restart_at
from tsfc.core.watchdog.track import Outlook, Reason, Verdict

STATUS = b"""{"Version": "1.0", "BackendState": "Running",
"Self": {"KeyExpiry": "2030-01-01T00:00:00Z"},
"Peer": {"nodekey:1": {"DNSName": "nas.tail1.ts.net.", "LastHandshake": "2029-01-01T00:00:00Z"}}}"""
"A status with every field that makes a metric."
VALUES = {
    "state": BACKEND_STATES,
    "kind": tuple(Hidden),
    "path": tuple(Path),
    "result": tuple(PingOutcome),
    "reason": tuple(Reason),
    "remedy": tuple(Remedy),
    "outcome": RESULTS,
    "cause": tuple(Cause),
}
"Labels with a fixed set of values."
GUARDED = "watchdog with --policy guarded"
"Heading of the metrics that only the guarded policy has."
HEAD = """# Metrics

Generated from the code by `make docs`; do not edit.
`peer` is the name of the peer, unique on its node; see [how it is chosen](jobs.md#exporter).

| label | values |
|---|---|
"""
TAIL = """
The `native-metrics` job also passes on tailscaled's own metrics, `tailscaled_*`.
They are unchanged, except for `--label`.
[Tailscale's documentation](https://tailscale.com/kb/1482/client-metrics) describes them.
[jobs.md](jobs.md) and [policy.md](policy.md) say when and why metrics are absent.
The recording rules are in [rules.yaml](../src/tsfc/mixin/files/rules.yaml).
"""


def metrics() -> dict[str, tuple[Family, ...]]:
    """Return all metrics of each job, from a complete status and state."""
    now = Instant(unix=1_900_000_000)
    state = State(attempts=(restart_at(1),), last_success=Instant(1))
    outlook = Outlook(Remedy.RESTART, 1.0, 600)
    patient = Verdict("nas", Reason.PATIENT, 601, outlook=outlook, cause=Cause.UNKNOWN)
    dead = Verdict("tv", Reason.DIRECT, is_dead=True)
    run = Run(now, state, verdicts=(patient, dead))
    documented = watchdog.metrics(run, ThresholdPolicy())
    names = {family.name for family in documented}
    guarded = watchdog.metrics(run, GuardedPolicy())
    return {
        "exporter": exporter.metrics(
            decode(STATUS).unwrap(), now=now.unix, last_success=None, accept_health=("*",)
        ),
        "native-metrics": (native.up(is_up=True),),
        "keepalive": keepalive.metrics({"nas": (PingResult(PingOutcome.DIRECT, 0.01),)}),
        "watchdog": documented,
        GUARDED: tuple(family for family in guarded if family.name not in names),
        "agent": agent(now),
    }


def agent(now: Instant) -> tuple[Family, ...]:
    """Return the metrics that only the agent has."""
    round_ = {"nas": (PingResult(PingOutcome.DIRECT, 0.01),)}
    return (
        *paths.metrics(paths.with_status(paths.Paths(), decode(STATUS).unwrap(), now)),
        *pings.metrics(pings.with_round(pings.Pings(), round_)),
        *runs.metrics({"exporter": runs.Runs()}, runs.Usage(0.0, 0, 0.0)),
    )


def row(family: Family) -> str:
    """Return the table row of a metric."""
    labels = ",".join(label for label in family.samples[0].labels if label != "le")
    name = f"{family.name}{{{labels}}}" if labels else family.name
    return f"| `{name}` | {family.kind.value} | {family.help} |\n"


def reference() -> str:
    """Return the page."""
    text = HEAD + "".join(
        f"| `{label}` | {', '.join(f'`{value}`' for value in values)} |\n"
        for label, values in VALUES.items()
    )
    for job, families in metrics().items():
        text += f"\n## {job}\n\n| metric | type | meaning |\n|---|---|---|\n" + "".join(
            row(family) for family in (*families, *(() if job == GUARDED else (duration(job, 0),)))
        )
    return text + TAIL


if __name__ == "__main__":
    sys.stdout.write(reference())
