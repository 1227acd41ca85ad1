"""What the agent says about itself."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from tsfc.core.metrics.families import Family, Kind, Sample, counter, gauge


class Runs(Struct, frozen=True):
    """The runs of one job since the agent started."""

    done: int = 0
    failed: int = 0
    "Of those: with another exit status than 0."
    skipped: int = 0
    "Runs that did not start, because the run before had not ended."
    ended_at: float | None = None
    "When the last run has ended; as in `schedule`."


class Usage(Struct, frozen=True):
    """What the agent's process has used, and how late it was."""

    cpu_seconds: float
    resident_bytes: int
    lag_seconds: float
    "Longest time by which the agent woke up late, since the last metrics."


def with_end(runs: Runs, status: int, now: float) -> Runs:
    """Return the runs after one that has ended with an exit status."""
    return Runs(runs.done + 1, runs.failed + int(status != 0), runs.skipped, now)


def with_skip(runs: Runs) -> Runs:
    """Return the runs after one that did not start."""
    return Runs(runs.done, runs.failed, runs.skipped + 1, runs.ended_at)


def overdue(runs: Mapping[str, Runs], intervals: Mapping[str, float], now: float) -> dict[str, str]:
    """Return the jobs whose last run is too old, each with a clause that says so.

    A run is too old after three intervals. `now` is as in `schedule`.
    """
    found: dict[str, str] = {}
    for job, interval in intervals.items():
        ended_at = runs.get(job, Runs()).ended_at
        if ended_at is None:
            found[job] = "no run has ended yet"
        elif now - ended_at > OVERDUE_INTERVALS * interval:
            found[job] = f"its last run ended {now - ended_at:.0f} s ago"
    return found


OVERDUE_INTERVALS = 3


def metrics(runs: Mapping[str, Runs], usage: Usage) -> tuple[Family, ...]:
    """Return the metrics of the agent itself."""
    return (
        _by_job(
            "tailscale_agent_runs_total",
            "Runs of the job that have ended, since the agent started.",
            {job: of_job.done for job, of_job in runs.items()},
        ),
        _by_job(
            "tailscale_agent_run_failures_total",
            "Runs of the job that have failed, since the agent started.",
            {job: of_job.failed for job, of_job in runs.items()},
        ),
        _by_job(
            "tailscale_agent_skipped_runs_total",
            "Runs of the job that did not start, because the one before had not ended.",
            {job: of_job.skipped for job, of_job in runs.items()},
        ),
        counter(
            "tailscale_agent_cpu_seconds_total",
            "CPU time of the agent in seconds.",
            round(usage.cpu_seconds, 6),
        ),
        gauge(
            "tailscale_agent_resident_memory_bytes",
            "Resident memory of the agent in bytes.",
            usage.resident_bytes,
        ),
        gauge(
            "tailscale_agent_lag_seconds",
            "Longest time by which the agent woke up late, since the last metrics.",
            round(usage.lag_seconds, 6),
        ),
    )


def _by_job(name: str, text: str, counts: Mapping[str, int]) -> Family:
    samples = tuple(Sample({"command": job}, count) for job, count in sorted(counts.items()))
    return Family(name, Kind.COUNTER, text, samples)
