"""Run all four jobs once and summarize their metrics: `make run`.

The jobs use this machine's tailscaled, or a stand-in with a recorded status if it is
unavailable. They write to `run/` only, and the watchdog makes a dry run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tsfc.shell import defaults
from tsfc.shell.tailscaled.localapi import is_reachable

ROOT = Path(__file__).parents[1]
CAPTURE = ROOT / "tests/fixtures/timeline.ndjson"
RUN = ROOT / "run"
TSFC = (sys.executable, "-m", "tsfc")

FILES = {
    "exporter": RUN / "tailscale-peers.prom",
    "native-metrics": RUN / "tailscale-native.prom",
    "keepalive": RUN / "tailscale-keepalive.prom",
    "watchdog": RUN / "tailscale-watchdog.prom",
}
EXTRA = {"watchdog": ("--state-dir", str(RUN / "watchdog-state"), "--dry-run")}


def main() -> int:
    """Run the jobs, print the summary, and return the exit status."""
    RUN.mkdir(exist_ok=True)
    if is_reachable(defaults.SOCKET):
        print(f"using this machine's tailscaled at {defaults.SOCKET}")
        failed = run_jobs(defaults.SOCKET)
    else:
        print(
            f"no tailscaled at {defaults.SOCKET}: using a stand-in with {CAPTURE.relative_to(ROOT)}"
        )
        with stand_in() as socket:
            failed = run_jobs(socket)
    print_summary()
    return failed


@contextmanager
def stand_in() -> Generator[str, None, None]:
    """Run a stand-in for tailscaled, and yield the path of its socket.

    The socket is in a temporary directory, because the path of a checkout can be too
    long.
    """
    with tempfile.TemporaryDirectory(prefix="tsfc-") as directory:
        socket = f"{directory}/tailscaled.sock"
        process = subprocess.Popen(
            (*TSFC, "stand-in", "--capture", str(CAPTURE), "--socket", socket),
            stdout=subprocess.PIPE,
        )
        try:
            if process.stdout is None or not process.stdout.readline():
                sys.exit("starting the stand-in: it failed; see its error above")
            yield socket
        finally:
            process.terminate()
            process.wait()


def run_jobs(socket: str) -> int:
    """Run each job as a process; return 1 if one of them failed, else 0."""
    failed = 0
    for job, path in FILES.items():
        metrics = ("--metrics-path", str(path.relative_to(ROOT)))
        arguments = (job, "--socket", socket, *metrics, *EXTRA.get(job, ()))
        print(f"$ tsfc {' '.join(arguments)}".replace(f"{ROOT}/", ""), flush=True)
        failed |= subprocess.run((*TSFC, *arguments), cwd=ROOT, check=False).returncode
    return int(failed != 0)


def print_summary() -> None:
    """Print a summary of the metrics of each job."""
    rows = [("job", "summary", "file")]
    for job, path in FILES.items():
        samples = (
            [
                sample
                for family in text_string_to_metric_families(path.read_text())
                for sample in family.samples
            ]
            if path.exists()
            else []
        )
        rows.append((job, SUMMARY[job](samples), str(path.relative_to(ROOT))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    print()
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def summarize_exporter(samples: list[Sample]) -> str:
    """Number of peers, by path."""
    if value(samples, "tailscale_up") != 1:
        return "tailscaled is not up"
    paths = by_label(samples, "tailscale_peer_path", "path")
    return f"{count(samples, 'tailscale_peer_online')} peers: {paths}"


def summarize_native_metrics(samples: list[Sample]) -> str:
    """Number of samples from tailscaled."""
    if value(samples, "tailscale_native_metrics_up") != 1:
        return "no metrics from tailscaled"
    native = sum(sample.name.startswith("tailscaled_") for sample in samples)
    return f"{native} samples from tailscaled"


def summarize_keepalive(samples: list[Sample]) -> str:
    """Number of peers, by result of the pings."""
    results = by_label(samples, "tailscale_keepalive_peers", "result")
    return f"pinged: {results or 'no reachable peer'}"


def summarize_watchdog(samples: list[Sample]) -> str:
    """Number of peers, by reason of the verdict."""
    reasons = by_label(samples, "tailscale_watchdog_peers", "reason")
    return f"verdicts: {reasons or 'none, tailscaled is not up'} (dry run)"


SUMMARY = {
    "exporter": summarize_exporter,
    "native-metrics": summarize_native_metrics,
    "keepalive": summarize_keepalive,
    "watchdog": summarize_watchdog,
}


def value(samples: list[Sample], name: str) -> float | None:
    """Return the value of a metric without labels."""
    return next((sample.value for sample in samples if sample.name == name), None)


def count(samples: list[Sample], name: str) -> int:
    """Return the number of series of a metric."""
    return sum(sample.name == name for sample in samples)


def by_label(samples: list[Sample], name: str, label: str) -> str:
    """Return the nonzero sums of a metric by a label, as in `2 direct, 1 derp`."""
    sums: dict[str, float] = {}
    for sample in samples:
        if sample.name == name:
            sums[sample.labels[label]] = sums.get(sample.labels[label], 0) + sample.value
    return ", ".join(f"{total:g} {key}" for key, total in sums.items() if total)


if __name__ == "__main__":
    sys.exit(main())
