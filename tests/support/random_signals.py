"""Runs of a job that get a random signal at a random moment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from support.processes import (
    DEADLINE_SECONDS,
    Completed,
    Forked,
    have_ended,
    noted_processes,
    pids_in,
    series,
    wait_until,
)
from support.programs import calls, program
from support.servers import DIRECT_PONG, serving, tailscaled
from support.statuses import encoded, peer

T = 1_800_000_000
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MARGIN = 1.1
"Moments are random up to this multiple of the time of a run without a signal."
USUAL_RUNS = 5
"Runs whose median time is that of a run without a signal."
HISTORY = {
    "peer_slow": f"{T - 700}\n",
    "peer_cured": f"{T - 100}\n",
    ".last_restart": f"{T - 5000}\n",
    ".restart_count": "3\n",
    ".detection_count": "5\n",
    ".recovery_count": "7\n",
}
"State of a watchdog that restarts tailscaled because of `slow`, in the first run."
COUNTERS = {"restart": 4, "restart_failure": 0, "detection": 6, "recovery": 8}
"Counters after that, however often the run was interrupted and repeated."


class Machine:
    """A directory with a fake tailscaled, CLI and systemctl, and one job."""

    def __init__(self, box: Path, forks: Forked, job: str, source: str) -> None:
        self._box = box
        self._forks = forks
        self._job = job
        self._source = source
        self._out, self._state, self._programs = box / "out", box / "state", box / "bin"
        self._pids = box / "pids"
        self._programs.mkdir(exist_ok=True)
        note = f"echo $$ >> {self._pids}"
        (box / "status.json").write_bytes(STATUS)
        (box / "usermetrics").write_bytes(USERMETRICS)
        cli = f"{note}\ncase $* in *status*) cat {box}/status.json;; *metrics*) "
        cli += f'cat {box}/usermetrics;; *) echo "pong from a (100.64.0.2) via 192.0.2.7:41641 in 1ms";; esac'
        program(self._programs, "tailscale", cli)
        program(self._programs, "systemctl", f"{note}; sleep 0.02")

    def reset(self) -> None:
        """Restore the files that were there before the run."""
        shutil.rmtree(self._out, ignore_errors=True)
        self._out.mkdir()
        self._pids.write_text("")
        if self._job == "watchdog":
            shutil.rmtree(self._state, ignore_errors=True)
            self._state.mkdir()
            for name, text in HISTORY.items():
                (self._state / name).write_text(text)
            (self._programs / "systemctl.calls").unlink(missing_ok=True)

    def run(self, moments: tuple[tuple[float, signal.Signals], ...] = ()) -> Completed:
        """Run the job, and send signals, each so many seconds after the one before."""
        with subprocess.Popen(
            [sys.executable, "-m", "tsfc", *self._arguments(T)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PATH": str(self._programs)},
            cwd="/",
        ) as process:
            try:
                for seconds, number in moments:
                    time.sleep(seconds)
                    process.send_signal(number)
                out, err = process.communicate(timeout=DEADLINE_SECONDS)
            finally:
                process.kill()
        return Completed(process.returncode, out.decode(), err.decode())

    def temporary_files(self) -> list[str]:
        """Return the names of temporary files that a run left."""
        directories = [path for path in (self._out, self._state) if path.exists()]
        names = [path.name for directory in directories for path in directory.iterdir()]
        return [name for name in names if name.endswith(".tmp")]

    def check(self) -> None:
        """Check that no file is torn, no child is left, and no count is lost."""
        for path in self._out.glob("*.prom"):
            assert series(path.read_text())
        if pids_in(self._pids):
            wait_until(lambda: have_ended(self._pids), "all children have ended")
        if self._job == "watchdog":
            self._check_next_run()

    def _check_next_run(self) -> None:
        ran = self._forks.run(*self._arguments(T + 60), programs=self._programs)
        assert ran.status == 0, ran
        assert len(calls(self._programs, "systemctl")) <= 1
        exported = {
            name: int((self._state / f".{name}_count").read_text().strip()) for name in COUNTERS
        }
        assert exported == COUNTERS, ran
        metrics = series((self._out / "a.prom").read_text())
        assert metrics["tailscale_watchdog_restarts_total"] == COUNTERS["restart"]
        assert metrics["tailscale_watchdog_relay_detections_total"] == COUNTERS["detection"]
        assert metrics["tailscale_watchdog_recoveries_total"] == COUNTERS["recovery"]

    def _arguments(self, now: int) -> list[str]:
        watchdog = ["--state-dir", str(self._state), "--unit=tailscaled.service"]
        return [
            *(self._job, "--source", self._source, "--socket", f"{self._box}/s"),
            *("--metrics-path", f"{self._out}/a.prom", "--now", str(now)),
            *(watchdog if self._job == "watchdog" else []),
        ]


STATUS = encoded(peer("slow", "derp"), peer("cured"), peer("fresh", "derp"))
USERMETRICS = b"# TYPE tailscaled_health_messages gauge\ntailscaled_health_messages 0\n"
CASES = (
    ("exporter", "localapi"),
    ("exporter", "cli"),
    ("native-metrics", "localapi"),
    ("native-metrics", "cli"),
    ("keepalive", "localapi"),
    ("keepalive", "cli"),
    ("watchdog", "localapi"),
    ("watchdog", "cli"),
)
"Each job with each way to ask tailscaled."


@contextmanager
def machine(box: Path, forks: Forked, job: str, source: str) -> Generator[Machine]:
    """Start the fake tailscaled."""
    respond = tailscaled(STATUS, lambda _: DIRECT_PONG, USERMETRICS)
    with serving(box / "s", respond), noted_processes(box):
        yield Machine(box, forks, job, source)


def outcome(ran: Completed, numbers: tuple[signal.Signals, ...]) -> str:
    """Return how a run ended; fail if that is not allowed."""
    if _is_in_start_of_python(ran, numbers):
        return "KeyboardInterrupt while Python starts"
    for number in numbers:
        line = f"tsfc: ended by {number.name} before it was done\n"
        if (ran.status, ran.stderr) == (128 + number, line):
            return f"{number.name}: status {ran.status}"
        # The line is missing if a second signal ended the clean-up.
        if ran.status == -number and ran.stderr in {"", line}:
            return f"{number.name}: by the signal"
    assert (ran.status, ran.stderr) == (0, ""), ran
    return "completed"


def _is_in_start_of_python(ran: Completed, numbers: tuple[signal.Signals, ...]) -> bool:
    """Whether SIGINT arrived before the first line of tsfc could be executed.

    Until then, Python's own handler raises an exception, and nothing can change that.
    """
    # A second signal can end the process before it has printed the whole traceback.
    frames = [line for line in ran.stderr.splitlines() if "/tsfc/" in line]
    is_interrupted = "KeyboardInterrupt" in ran.stderr or "init_import_site" in ran.stderr
    is_cut_off = len(numbers) > 1 and ran.stderr.startswith("Traceback")
    return (
        signal.SIGINT in numbers
        and (is_interrupted or (is_cut_off and "race condition" not in ran.stderr))
        and all("/tsfc/__main__.py" in line or "/tsfc/__init__.py" in line for line in frames)
    )


def soak(
    machine: Machine, number: int, *, seed: int, second: float, say: Callable[[str], None]
) -> Counter[str]:
    """Run a job `number` times, each with a random signal at a random moment.

    A second signal follows with the probability `second`.
    """
    say(f"seed {seed}")
    rng = random.Random(seed)  # noqa: S311
    usual = _usual_seconds(machine)
    outcomes: Counter[str] = Counter()
    for index in range(number):
        moments = [(rng.uniform(0, usual * MARGIN), rng.choice(NUMBERS))]
        if rng.random() < second:
            moments.append((rng.uniform(0, 0.005), rng.choice(NUMBERS)))
        machine.reset()
        ran = machine.run(tuple(moments))
        where = f"seed {seed}, run {index}, {moments}: {ran}"
        try:
            outcomes[outcome(ran, tuple(signals for _, signals in moments))] += 1
            assert len(moments) > 1 or not machine.temporary_files()
            machine.check()
        except AssertionError as error:
            error.add_note(where)
            raise
    for name, count in sorted(outcomes.items()):
        say(f"{count:6} {name}")
    return outcomes


def _usual_seconds(machine: Machine) -> float:
    """Seconds of a run without a signal."""
    times: list[float] = []
    for _ in range(USUAL_RUNS):
        machine.reset()
        started = time.monotonic()
        ran = machine.run()
        times.append(time.monotonic() - started)
        assert (ran.status, ran.stderr) == (0, ""), ran
        machine.check()
    return sorted(times)[USUAL_RUNS // 2]
