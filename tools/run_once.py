"""Runs all four jobs once and shows what they saw: on this machine's tailscaled where it answers, else on a recorded one.

Nothing outside `run/` is written, and the watchdog restarts nothing.
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
    """Runs the jobs one after the other, and ends with a table."""
    RUN.mkdir(exist_ok=True)
    if is_reachable(defaults.SOCKET):
        print(f"asking this machine's tailscaled, {defaults.SOCKET}")
        failed = run_jobs(defaults.SOCKET)
    else:
        print(
            f"no tailscaled answers at {defaults.SOCKET}: a stand-in plays a recorded one, {CAPTURE.relative_to(ROOT)}"
        )
        with stand_in() as socket:
            failed = run_jobs(socket)
    show()
    return failed


@contextmanager
def stand_in() -> Generator[str, None, None]:
    """Starts a stand-in and gives its socket, which has a directory of its own: the path of a checkout can be too long for one."""
    with tempfile.TemporaryDirectory(prefix="tsfc-") as directory:
        socket = f"{directory}/tailscaled.sock"
        playing = subprocess.Popen(
            (*TSFC, "stand-in", "--capture", str(CAPTURE), "--socket", socket),
            stdout=subprocess.PIPE,
        )
        try:
            if playing.stdout is None or not playing.stdout.readline():
                sys.exit("the stand-in did not start; it has said why")
            yield socket
        finally:
            playing.terminate()
            playing.wait()


def run_jobs(socket: str) -> int:
    """Runs each job as a process; 1 if one of them failed."""
    failed = 0
    for job, path in FILES.items():
        command = (
            "tsfc",
            job,
            "--socket",
            socket,
            "--metrics-path",
            str(path.relative_to(ROOT)),
            *EXTRA.get(job, ()),
        )
        print(f"$ {' '.join(command)}".replace(f"{ROOT}/", ""), flush=True)
        failed |= subprocess.run((*TSFC, *command[1:]), cwd=ROOT, check=False).returncode
    return int(failed != 0)


def show() -> None:
    """Prints what each job's file says."""
    rows = [("job", "saw", "file")]
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
        rows.append((job, SAW[job](samples), str(path.relative_to(ROOT))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    print()
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def saw_exporter(samples: list[Sample]) -> str:
    """Says which paths the peers are on."""
    if value(samples, "tailscale_up") != 1:
        return "tailscaled is not up"
    return f"{count(samples, 'tailscale_peer_online')} peers: {by_label(samples, 'tailscale_peer_path', 'path')}"


def saw_native_metrics(samples: list[Sample]) -> str:
    """Says how many samples tailscaled gave."""
    if value(samples, "tailscale_native_metrics_up") != 1:
        return "tailscaled gave no metrics"
    return f"{sum(sample.name.startswith('tailscaled_') for sample in samples)} samples of tailscaled's own"


def saw_keepalive(samples: list[Sample]) -> str:
    """Says what came of the pings."""
    return f"answers: {by_label(samples, 'tailscale_keepalive_peers', 'result') or 'none, there was nobody to ping'}"


def saw_watchdog(samples: list[Sample]) -> str:
    """Says what the watchdog thinks of the peers."""
    return f"verdicts: {by_label(samples, 'tailscale_watchdog_peers', 'reason') or 'none, tailscaled is not up'} (dry run)"


SAW = {
    "exporter": saw_exporter,
    "native-metrics": saw_native_metrics,
    "keepalive": saw_keepalive,
    "watchdog": saw_watchdog,
}


def value(samples: list[Sample], name: str) -> float | None:
    """Returns the value of a metric without labels."""
    return next((sample.value for sample in samples if sample.name == name), None)


def count(samples: list[Sample], name: str) -> int:
    """Returns the number of a metric's series."""
    return sum(sample.name == name for sample in samples)


def by_label(samples: list[Sample], name: str, label: str) -> str:
    """Returns a metric's values summed by a label, as in `2 direct, 1 derp`; zeros are left out."""
    sums: dict[str, float] = {}
    for sample in samples:
        if sample.name == name:
            sums[sample.labels[label]] = sums.get(sample.labels[label], 0) + sample.value
    return ", ".join(f"{total:g} {key}" for key, total in sums.items() if total)


if __name__ == "__main__":
    sys.exit(main())
