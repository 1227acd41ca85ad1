"""A run that is killed at any step loses nothing and repeats nothing."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shell.test_restart_socket import send, serving
from support.processes import Completed, Forked, error_lines, run, series
from support.programs import calls, program
from support.statuses import encoded, peer
from tsfc.core.watchdog.state import decode

T = 1_800_000_000
KILLED = -9
OUTCOME_UNKNOWN = (
    "the run that restarted tailscaled ended before it knew the outcome: counted as done"
)
NEVER_ASKED = "the run that decided to restart tailscaled ended before it did: not counted"

HISTORY = {
    "peer_slow": f"{T - 700}\n",
    "peer_cured": f"{T - 100}\n",
    ".last_restart": f"{T - 5000}\n",
    ".restart_count": "3\n",
    ".detection_count": "5\n",
    ".recovery_count": "7\n",
}
"State directory of the shell scripts."


class Host:
    """A host with three peers.

    `slow` is on relay for longer than the threshold, `cured` is direct again, and
    `fresh` is newly on relay.
    """

    def __init__(self, box: Path, forks: Forked, systemctl: str) -> None:
        self.box = box
        self.state = box / "state"
        self.metrics = box / "watchdog.prom"
        self._forks = forks
        self._systemctl = systemctl
        self._programs = box / "bin"
        (box / "status.json").write_bytes(
            encoded(peer("slow", "derp"), peer("cured"), peer("fresh", "derp"))
        )

    def reset(self, history: dict[str, str] | None) -> None:
        """Restore the host as it was before the first run."""
        for directory in (self.state, self._programs):
            shutil.rmtree(directory, ignore_errors=True)
        self._programs.mkdir()
        program(self._programs, "systemctl", self._systemctl)
        if history is not None:
            self.state.mkdir()
            for name, text in history.items():
                (self.state / name).write_text(text)

    def watchdog(
        self, now: int, *, kill_at: int | None = None, log: Path | None = None
    ) -> Completed:
        """Run the watchdog once."""
        options = (
            "--now",
            str(now),
            "--status-file",
            str(self.box / "status.json"),
            "--state-dir",
            str(self.state),
            "--metrics-path",
            str(self.metrics),
        )
        return self._forks.run(
            "watchdog", *options, programs=self._programs, kill_at=kill_at, log=log
        )

    def restarts(self) -> list[str]:
        """Arguments of each call of systemctl."""
        return calls(self._programs, "systemctl")

    def files(self) -> dict[str, str]:
        """Content of each file in the state directory."""
        return {path.name: path.read_text() for path in self.state.iterdir()}

    def count(self, name: str) -> int:
        """Value of a counter in its exported file."""
        return int((self.state / f".{name}_count").read_text())


def _until_a_run_completes(killed_run: Callable[[int], Completed]) -> Iterator[int]:
    for step in itertools.count():
        result = killed_run(step)
        assert result.status in {KILLED, 0, 1}, result
        yield step
        if result.status != KILLED:
            return


@pytest.mark.parametrize(
    "kills", [pytest.param(1, id="once"), pytest.param(2, id="twice at the same step")]
)
def test_a_kill_at_any_step_costs_at_most_one_restart_and_no_count(
    box: Path, forks: Forked, kills: int
) -> None:
    """If a run is killed before it stores ASKED, the next run decides again.

    Only a kill between that and the start of systemctl costs a restart: nothing was
    restarted, but one restart is counted.
    """
    host = Host(box, forks, "exit 0")
    without_restart: list[int] = []

    def killed_run(step: int) -> Completed:
        host.reset(HISTORY)
        for again in range(kills - 1):
            host.watchdog(T + again, kill_at=step)
        return host.watchdog(T + kills - 1, kill_at=step)

    # After each kill, the next run completes the work of the killed one.
    steps = 0
    for step in _until_a_run_completes(killed_run):
        steps += 1
        result = host.watchdog(T + 60)
        assert result.status == 0, (step, result)
        assert len(host.restarts()) <= 1, step
        if not host.restarts():
            without_restart.append(step)
            assert host.files()[".last_restart"] != f"{T + 60}\n"
        assert set(error_lines("watchdog", result)) <= {OUTCOME_UNKNOWN, NEVER_ASKED}
        assert (
            host.count("restart"),
            host.count("restart_failure"),
            host.count("detection"),
            host.count("recovery"),
        ) == (4, 0, 6, 8), step
        assert set(host.files()) == {
            ".lock",
            "state.json",
            ".last_restart",
            ".restart_count",
            ".restart_failure_count",
            ".detection_count",
            ".recovery_count",
            "peer_slow",
            "peer_fresh",
        }
        assert host.files()["peer_slow"] == HISTORY["peer_slow"]
        exported = series(host.metrics.read_text())
        assert exported["tailscale_watchdog_restarts_total"] == 4
        assert exported["tailscale_watchdog_relay_detections_total"] == 6
        assert exported["tailscale_watchdog_recoveries_total"] == 8

    # The steps that cost a restart are consecutive: a window. Two killed runs have two
    # windows, since only the first one reads the files of the shell scripts.
    assert steps > 40
    windows = 1 + sum(later - step > 1 for step, later in itertools.pairwise(without_restart))
    assert windows == kills, "each run has one window in which a kill costs a restart"


def test_a_kill_at_any_step_of_a_failing_restart_causes_no_second_try_in_the_cooldown(
    box: Path, forks: Forked
) -> None:
    host = Host(box, forks, "echo 'Unit not found.' >&2; exit 5")

    def killed_run(step: int) -> Completed:
        host.reset(HISTORY)
        return host.watchdog(T, kill_at=step)

    for step in _until_a_run_completes(killed_run):
        host.watchdog(T + 60)
        assert len(host.restarts()) <= 1, step
        assert host.count("restart") + host.count("restart_failure") == 4, step
        assert (host.count("detection"), host.count("recovery")) == (6, 8), step


def test_after_a_kill_at_any_step_of_the_first_run_the_next_run_succeeds(
    box: Path, forks: Forked
) -> None:
    host = Host(box, forks, "exit 0")

    def killed_run(step: int) -> Completed:
        host.reset(None)
        return host.watchdog(T, kill_at=step)

    for step in _until_a_run_completes(killed_run):
        assert host.watchdog(T + 60).status == 0, step
        assert host.count("detection") == 2, step
        assert ".tmp" not in host.files(), step


def test_the_state_is_durable_before_systemctl_starts(box: Path, forks: Forked) -> None:
    """`state.json` is synced before each rename, and the directory after the last one."""
    host = Host(box, forks, "exit 0")
    host.reset(HISTORY)
    assert host.watchdog(T, log=box / "steps").status == 0
    steps = (box / "steps").read_text().splitlines()
    before = steps[
        : next(number for number, step in enumerate(steps) if step.startswith("subprocess.Popen"))
    ]
    renames = [
        number
        for number, step in enumerate(before)
        if step.startswith("os.rename") and "state.json" in step
    ]
    assert renames
    for number in renames:
        assert before[number - 1] == f"fsync {host.state}/.tmp"
    last = len(before) - 1 - before[::-1].index(f"fsync {host.state}")
    assert last > renames[-1]


def test_a_watchdog_killed_while_systemctl_runs_counts_the_restart_once(box: Path) -> None:
    """Systemd does the restart even if its client dies, so it counts as done."""
    binaries, state = box / "bin", box / "state"
    for directory in (binaries, state):
        directory.mkdir()
    for name, text in HISTORY.items():
        (state / name).write_text(text)
    program(binaries, "systemctl", 'kill -KILL "$PPID"')
    (box / "status.json").write_bytes(
        encoded(peer("slow", "derp"), peer("cured"), peer("fresh", "derp"))
    )
    options = (
        "--status-file",
        str(box / "status.json"),
        "--state-dir",
        str(state),
        "--metrics-path",
        str(box / "watchdog.prom"),
    )

    assert run("watchdog", "--now", str(T), *options, programs=binaries).status == KILLED
    result = run("watchdog", "--now", str(T + 60), *options, programs=binaries)

    assert error_lines("watchdog", result) == [OUTCOME_UNKNOWN]
    assert (
        result.stdout == "WAITING: fresh on relay for 60s (threshold: 600s)\n"
        "COOLDOWN: slow exceeded threshold but in cooldown (540s remaining)\n"
    )
    assert result.status == 0
    assert calls(binaries, "systemctl") == ["restart tailscaled.service"]
    assert series((box / "watchdog.prom").read_text())["tailscale_watchdog_restarts_total"] == 4


@pytest.mark.parametrize("job", ["exporter", "watchdog"])
def test_a_kill_at_any_step_leaves_the_old_metrics_or_the_new(
    box: Path, forks: Forked, job: str
) -> None:
    """A textfile collector must not read a temporary file that a killed run left."""
    metrics, status, state = box / "out" / "a.prom", box / "status.json", box / "state"
    status.write_bytes(encoded(peer("a", "derp")))
    arguments = [job, "--now", str(T), "--status-file", str(status), "--metrics-path", str(metrics)]
    if job == "watchdog":
        arguments += ["--state-dir", str(state)]
    metrics.parent.mkdir()
    assert forks.run(*arguments).status == 0
    new, old = metrics.read_text(), "# the old file\n"

    def killed_run(step: int) -> Completed:
        metrics.write_text(old)
        shutil.rmtree(state, ignore_errors=True)
        return forks.run(*arguments, kill_at=step)

    contents = {text for _ in _until_a_run_completes(killed_run) if (text := metrics.read_text())}
    assert contents == {old, new}
    assert [path.name for path in metrics.parent.iterdir() if path.name.endswith(".prom")] == [
        "a.prom"
    ]


@pytest.mark.parametrize("job", ["exporter", "watchdog"])
def test_temporary_files_are_in_the_directory_of_the_final_file(
    box: Path, forks: Forked, job: str
) -> None:
    """A rename is atomic only within a file system."""
    (box / "out").mkdir()
    (box / "status.json").write_bytes(encoded(peer("a", "derp")))
    arguments = [
        job,
        "--now",
        str(T),
        "--status-file",
        str(box / "status.json"),
        "--metrics-path",
        str(box / "out" / "a.prom"),
    ]
    if job == "watchdog":
        arguments += ["--state-dir", str(box / "state")]
    assert forks.run(*arguments, log=box / "steps").status == 0
    paths = {
        Path(step.split()[1])
        for step in (box / "steps").read_text().splitlines()
        if step.startswith(("write", "os.rename"))
    }
    directories = {path.parent for path in paths if path.name not in {"stdout", "stderr"}}
    assert directories == {box / "out", *([box / "state"] if job == "watchdog" else [])}


EXPERIMENT = (
    (0, "direct"),
    (60, "derp"),
    (700, "derp"),
    (1100, "derp"),
    (2100, "derp"),
    (2200, "direct"),
    (2300, "direct"),
)
"""Time and path of each run of an experiment under the guarded policy.

The third one restarts tailscaled, the fourth sees that this did not help, the fifth
changes the port, and the sixth sees that this helped.
"""
NO_EFFECT = {"restart/no_effect": 1}
BOTH = {**NO_EFFECT, "other-port/helped": 1}


@pytest.mark.parametrize(
    ("killed", "request_", "outcomes"),
    [
        pytest.param(2, b"", NO_EFFECT, id="restart"),
        pytest.param(3, b"other-port\n", NO_EFFECT, id="judgement"),
        pytest.param(4, b"other-port\n", BOTH, id="other port"),
        pytest.param(5, None, BOTH, id="success"),
    ],
)
def test_a_kill_at_any_step_of_an_experiment_costs_at_most_one_remedy_and_no_count(
    box: Path, forks: Forked, killed: int, request_: bytes | None, outcomes: dict[str, int]
) -> None:
    """The next run goes on where the killed one was; `request_` is that of both.

    Only a kill between the storing of ASKED and the request to the helper costs a
    remedy, which is counted all the same.
    """
    state, metrics, helper_socket = box / "state", box / "watchdog.prom", box / "helper"
    options = (
        *("--policy", "guarded", "--remedies", "restart,other-port"),
        *("--pause", str(box / "pause"), "--restart-socket", str(helper_socket)),
        *("--status-file", str(box / "status.json"), "--state-dir", str(state)),
        *("--metrics-path", str(metrics)),
    )

    def watchdog(number: int, late: int = 0, kill_at: int | None = None) -> Completed:
        at, path = EXPERIMENT[number]
        (box / "status.json").write_bytes(encoded(peer("slow", path)))
        return forks.run("watchdog", *options, "--now", str(T + at + late), kill_at=kill_at)

    # Run the experiment up to the run that is killed.
    with serving(helper_socket, send(b"done\n")):
        for number in range(killed):
            assert watchdog(number).status == 0
    helper_socket.unlink()
    shutil.copytree(state, box / "before")

    steps, without_request = 0, list[int]()
    for step in itertools.count():
        steps += 1
        shutil.rmtree(state)
        shutil.copytree(box / "before", state)
        with serving(helper_socket, send(b"done\n")) as helper:
            result = watchdog(killed, kill_at=step)
            assert result.status in {KILLED, 0}, result
            again, following = watchdog(killed, late=60), watchdog(killed + 1)
        helper_socket.unlink()

        assert (again.status, following.status, following.stderr) == (0, 0, ""), step
        assert set(error_lines("watchdog", again)) <= {OUTCOME_UNKNOWN, NEVER_ASKED}, step
        assert helper.requests in ([] if request_ is None else [request_], []), step
        if not helper.requests:
            without_request.append(step)
        assert decode((state / "state.json").read_bytes()).unwrap().memory.outcomes == outcomes
        exported = series(metrics.read_text())
        assert exported["tailscale_watchdog_restarts_total"] == (1 if killed == 2 else 2), step
        assert exported["tailscale_watchdog_restart_failures_total"] == 0, step
        if result.status != KILLED:
            break

    # Only the runs that act have a window in which a kill costs the remedy.
    assert steps > 20
    assert bool(without_request) == (killed in {2, 4} or request_ is None)
    assert all(later - step == 1 for step, later in itertools.pairwise(without_request))
