"""The job `watchdog` as a process: its files, restarts, lock and log lines."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import (
    UNPRIVILEGED,
    Completed,
    Forked,
    ended,
    error_lines,
    have_ended,
    interrupt,
    noted_processes,
    pids_in,
    run,
    series,
    started,
    tree,
    wait_until,
)
from support.programs import calls, program
from support.servers import serving
from support.statuses import encoded, peer
from tsfc.core.watchdog.remedy import Stage
from tsfc.core.watchdog.state import decode
from tsfc.shell import systemd, waiting

T = 1_800_000_000
LONG_ON_RELAY = {"peer_rpi3": f"{T - 650}\n"}
RESTART_LINE = "RESTART: rpi3 on relay for 650s, restarting tailscaled\n"
COUNTERS = {
    ".restart_count": "0\n",
    ".restart_failure_count": "0\n",
    ".detection_count": "0\n",
    ".recovery_count": "0\n",
}


class Host:
    """A host with a `systemctl` on PATH, and a peer `rpi3` on relay."""

    def __init__(self, box: Path, forks: Forked, systemctl: str = "exit 0") -> None:
        self._forks = forks
        self.box = box
        self.state = box / "state"
        self.metrics = box / "a.prom"
        self.programs = box / "bin"
        self.programs.mkdir()
        program(self.programs, "systemctl", systemctl)
        self.set_status(encoded(peer("rpi3", "derp")))

    def set_status(self, status: bytes) -> None:
        """Set the status that later runs read."""
        (self.box / "status.json").write_bytes(status)

    def write_state(self, files: dict[str, str]) -> None:
        """Write files into the state directory, as an earlier run would."""
        self.state.mkdir(exist_ok=True)
        for name, text in files.items():
            (self.state / name).write_text(text)

    def options(self, *, now: int = T) -> list[str]:
        """Options of a run."""
        files = [
            "--status-file",
            str(self.box / "status.json"),
            "--state-dir",
            str(self.state),
            "--metrics-path",
            str(self.metrics),
        ]
        return ["watchdog", "--now", str(now), *files]

    def run(self, *options: str, now: int = T, around: str | None = None) -> Completed:
        """Run the watchdog once: in a fork, or with `around` in a new process."""
        if around is None:
            return self._forks.run(*self.options(now=now), *options, programs=self.programs)
        return run(*self.options(now=now), *options, programs=self.programs, around=around)

    def restarts(self) -> list[str]:
        """Arguments of each call of systemctl."""
        return calls(self.programs, "systemctl")

    def files(self) -> dict[str, str]:
        """Content of the exported files in the state directory."""
        return {
            path.name: path.read_text()
            for path in self.state.iterdir()
            if path.name not in {".lock", "state.json"}
        }

    def exported(self) -> dict[str, float]:
        """Value of each series, without the common prefix."""
        return {
            name.removeprefix("tailscale_watchdog_"): value
            for name, value in series(self.metrics.read_text()).items()
        }


def test_the_documented_cycle_is_the_same_to_the_byte(box: Path, forks: Forked) -> None:
    """Each run is its own process and knows of the others only from the files."""
    host = Host(box, forks)
    on_relay, direct = encoded(peer("rpi3", "derp")), encoded(peer("rpi3"))
    runs: list[tuple[int, str, dict[str, str]]] = []
    for now, status in [
        (0, on_relay),
        (300, on_relay),
        (600, on_relay),
        (650, on_relay),
        (1050, on_relay),
        (1051, direct),
        (2000, on_relay),
        (2060, direct),
        (2061, direct),
    ]:
        host.set_status(status)
        result = host.run(now=T + now)
        assert (result.status, result.stderr) == (0, "")
        runs.append((now, result.stdout, host.files()))

    detected = {
        ".restart_count": "0\n",
        ".restart_failure_count": "0\n",
        ".detection_count": "1\n",
        ".recovery_count": "0\n",
        "peer_rpi3": f"{T}\n",
    }
    restarted = detected | {".restart_count": "1\n", ".last_restart": f"{T + 650}\n"}
    direct_again = {name: text for name, text in restarted.items() if name != "peer_rpi3"}
    assert runs == [
        (0, "DETECTED: rpi3 transitioned to relay\n", detected),
        (300, "WAITING: rpi3 on relay for 300s (threshold: 600s)\n", detected),
        (600, "WAITING: rpi3 on relay for 600s (threshold: 600s)\n", detected),
        (650, RESTART_LINE, restarted),
        (1050, "COOLDOWN: rpi3 exceeded threshold but in cooldown (200s remaining)\n", restarted),
        (1051, "RECOVERED: rpi3 back to direct\n", direct_again),
        (
            2000,
            "DETECTED: rpi3 transitioned to relay\n",
            direct_again | {".detection_count": "2\n", "peer_rpi3": f"{T + 2000}\n"},
        ),
        (
            2060,
            "RECOVERED: rpi3 back to direct\n",
            direct_again | {".detection_count": "2\n", ".recovery_count": "1\n"},
        ),
        (2061, "", direct_again | {".detection_count": "2\n", ".recovery_count": "1\n"}),
    ]
    assert host.restarts() == ["restart tailscaled.service"]
    assert host.exported()["restarts_total"] == 1


def test_files_of_the_shell_scripts_are_read_and_updated(box: Path, forks: Forked) -> None:
    """A final newline is optional. Files of other programs are not changed."""
    host = Host(box, forks)
    host.set_status(encoded(peer("rpi3", "derp"), peer("nas", "derp")))
    history = {
        "peer_nas": f"{T - 300}\n",
        ".last_restart": f"{T - 9000}\n",
        ".detection_count": "34\n",
        "notes.txt": "by the admin\n",
    }
    host.write_state(
        history | {"peer_rpi3": f"{T - 200}", ".restart_count": "12", ".recovery_count": " 5 \n"}
    )
    result = host.run()
    assert result == (
        0,
        (
            "WAITING: nas on relay for 300s (threshold: 600s)\n"
            "WAITING: rpi3 on relay for 200s (threshold: 600s)\n"
        ),
        "",
    )
    exported = {
        "peer_rpi3": f"{T - 200}\n",
        ".restart_count": "12\n",
        ".recovery_count": "5\n",
        ".restart_failure_count": "0\n",
    }
    assert host.files() == history | exported
    assert (
        host.exported()["restarts_total"],
        host.exported()["relay_detections_total"],
        host.exported()["recoveries_total"],
    ) == (12, 34, 5)


def test_option_unit_names_the_unit_to_restart(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY)
    assert host.run("--unit", "tailscaled@a.service").status == 0
    assert host.restarts() == ["restart tailscaled@a.service"]


def test_the_cooldown_is_on_the_disk_before_systemctl_runs(box: Path, forks: Forked) -> None:
    host = Host(box, forks, f"cp -R {box}/state {box}/copy")
    host.write_state(LONG_ON_RELAY)
    assert host.run() == (0, RESTART_LINE, "")
    copy = {path.name: path.read_text() for path in (box / "copy").iterdir()}
    assert copy[".last_restart"] == f"{T}\n"
    assert copy["peer_rpi3"] == LONG_ON_RELAY["peer_rpi3"]
    assert decode(copy["state.json"].encode()).unwrap().attempts[-1].stage is Stage.ASKED
    assert ".tmp" not in copy
    state = decode((host.state / "state.json").read_bytes()).unwrap()
    assert state.attempts[-1].stage is Stage.DONE


@pytest.mark.parametrize(
    ("systemctl", "problem"),
    [
        pytest.param(
            "echo 'Unit tailscaled.service not found.' >&2; exit 5",
            "exit status 5: Unit tailscaled.service not found.",
            id="prints an error",
        ),
        pytest.param(
            "exit 1",
            "exit status 1; see `systemctl status tailscaled.service`, and check --unit",
            id="prints nothing",
        ),
        pytest.param("kill -KILL $$", "ended by SIGKILL", id="is killed"),
    ],
)
def test_a_failed_restart_is_counted_and_begins_the_cooldown(
    box: Path, forks: Forked, systemctl: str, problem: str
) -> None:
    host = Host(box, forks, systemctl)
    host.write_state(LONG_ON_RELAY)
    result = host.run()
    (complaint,) = error_lines("watchdog", result)
    assert complaint.startswith(
        f"restarting with `systemctl restart tailscaled.service`: {problem}"
    )
    assert (result.status, result.stdout) == (1, RESTART_LINE)
    assert (host.exported()["restarts_total"], host.exported()["restart_failures_total"]) == (0, 1)
    assert host.run(now=T + 60) == (
        0,
        "COOLDOWN: rpi3 exceeded threshold but in cooldown (540s remaining)\n",
        "",
    )
    assert host.restarts() == ["restart tailscaled.service"]


def test_a_missing_systemctl_is_reported_in_one_line(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    (host.programs / "systemctl").unlink()
    host.write_state(LONG_ON_RELAY)
    result = host.run()
    (complaint,) = error_lines("watchdog", result)
    assert complaint == (
        "restarting with `systemctl restart tailscaled.service`: "
        "there is no systemctl on PATH; the watchdog needs systemd"
    )
    assert (result.status, host.exported()["restart_failures_total"]) == (1, 1)


def test_a_call_of_systemctl_times_out(
    box: Path, forks: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a shorter timeout than in production."""
    host = Host(box, forks, "sleep 300")
    monkeypatch.setenv("PATH", str(host.programs))
    monkeypatch.setattr(systemd, "TIMEOUT_SECONDS", 0.3)
    assert "timed out after 0.3 s" in str(waiting.run(systemd.restart("tailscaled.service")))


def test_a_slow_restart_is_not_limited_by_option_timeout(box: Path, forks: Forked) -> None:
    """`--timeout` is for calls to tailscaled only."""
    host = Host(box, forks, "sleep 0.6")
    host.write_state(LONG_ON_RELAY)
    assert host.run("--timeout", "0.2") == (0, RESTART_LINE, "")
    assert host.exported()["restarts_total"] == 1


@pytest.mark.parametrize(
    "exists",
    [
        pytest.param(False, id="no state directory"),
        pytest.param(True, id="a state directory"),
    ],
)
def test_a_dry_run_prints_the_lines_of_a_run_and_changes_nothing(
    box: Path, forks: Forked, *, exists: bool
) -> None:
    host = Host(box, forks)
    if exists:
        host.write_state(LONG_ON_RELAY)
    before = tree(box)
    dry = forks.run(*host.options()[:-2], "--dry-run", programs=host.programs)
    if exists:
        assert (dry.status, dry.stdout) == (0, RESTART_LINE)
        assert error_lines("watchdog", dry) == ["dry run: tailscaled.service is not restarted"]
    else:
        assert dry == (0, "DETECTED: rpi3 transitioned to relay\n", "")
    assert tree(box) == before
    assert host.restarts() == []


def test_a_dry_run_with_metrics_path_writes_metrics_and_no_state(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY)
    before = tree(host.state)
    assert host.run("--dry-run").status == 0
    assert host.exported()['peer_relay_duration_seconds{peer="rpi3"}'] == 650
    assert (host.exported()["restarts_total"], tree(host.state)) == (0, before)


def test_a_second_run_does_nothing_while_the_first_one_restarts(box: Path, forks: Forked) -> None:
    host = Host(box, forks, f"touch {box}/started; while [ ! -e {box}/go ]; do sleep 0.01; done")
    host.write_state(LONG_ON_RELAY)
    with started(*host.options(), programs=host.programs) as first:
        wait_until((box / "started").exists, "the first run restarts")
        second = host.run(now=T + 700)
        dry = host.run("--dry-run", now=T + 1)
        (box / "go").touch()
        assert ended(first) == (0, RESTART_LINE, "")
    assert error_lines("watchdog", second) == [
        f"another run holds the lock in {host.state}: this one does nothing"
    ]
    assert (second.status, second.stdout) == (0, "")
    assert dry.status == 0
    assert host.restarts() == ["restart tailscaled.service"]
    assert host.exported()["restarts_total"] == 1


def test_the_lock_is_released_while_a_child_of_systemctl_still_runs(
    box: Path, forks: Forked
) -> None:
    """Systemctl does not inherit the lock, and so neither do its children."""
    host = Host(box, forks, f"sleep 300 > /dev/null 2>&1 & echo $! > {box}/pid")
    host.write_state(LONG_ON_RELAY)
    try:
        assert host.run() == (0, RESTART_LINE, "")
        assert host.run(now=T + 60).stderr == ""
    finally:
        os.kill(int((box / "pid").read_text()), 9)


def test_a_run_terminated_while_it_restarts_prints_one_line_and_the_next_counts_it(
    box: Path, forks: Forked
) -> None:
    """Systemd finishes the restart without the run, so it counts as done."""
    with noted_processes(box) as pid_file:
        host = Host(box, forks, f"echo $$ > {pid_file}; exec sleep 300")
        host.write_state(LONG_ON_RELAY)
        with started(*host.options(), programs=host.programs) as process:
            wait_until(lambda: pids_in(pid_file), "it restarts")
            interrupt(process, signal.SIGTERM)
            assert ended(process) == (
                143,
                RESTART_LINE,
                "tsfc: ended by SIGTERM before it was done\n",
            )
        assert have_ended(pid_file)
    result = host.run(now=T + 60)
    assert error_lines("watchdog", result) == [
        "the run that restarted tailscaled ended before it knew the outcome: counted as done"
    ]
    assert (result.status, result.stdout) == (
        0,
        "COOLDOWN: rpi3 exceeded threshold but in cooldown (540s remaining)\n",
    )
    assert (host.exported()["restarts_total"], len(host.restarts())) == (1, 1)


def test_log_lines_go_to_standard_error_if_the_metrics_go_to_standard_output(
    box: Path, forks: Forked
) -> None:
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY)
    result = host.run("--metrics-path", "-")
    assert result.stderr == RESTART_LINE
    assert series(result.stdout)["tailscale_watchdog_restarts_total"] == 1


@pytest.mark.parametrize(
    "streams", [">&-", ">/dev/full", ">&- 2>&-", ">/dev/full 2>/dev/full", "<&- >&- 2>&-"]
)
def test_closed_or_full_output_streams_do_not_prevent_a_restart(
    box: Path, forks: Forked, streams: str
) -> None:
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY)
    assert host.run(around=f'exec "$@" {streams}') == (0, "", "")
    assert host.restarts() == ["restart tailscaled.service"]
    assert host.exported()["restarts_total"] == 1


def _state_is_a_file(host: Host) -> None:
    host.state.write_text("")


def _state_is_a_dangling_link(host: Host) -> None:
    host.state.symlink_to("/nonexistent/state")


def _lock_is_a_link(host: Host) -> None:
    host.write_state(LONG_ON_RELAY)
    (host.state / ".lock").symlink_to(host.box / "elsewhere")


def _lock_is_a_directory(host: Host) -> None:
    host.write_state(LONG_ON_RELAY)
    (host.state / ".lock").mkdir()


def _temporary_is_a_directory(host: Host) -> None:
    host.write_state(LONG_ON_RELAY)
    (host.state / ".tmp").mkdir()


@pytest.mark.parametrize(
    "make",
    [
        _state_is_a_file,
        _state_is_a_dangling_link,
    ],
)
def test_an_unusable_state_directory_is_reported_in_one_line_and_prevents_a_restart(
    box: Path, forks: Forked, make: Callable[[Host], None]
) -> None:
    host = Host(box, forks)
    make(host)
    result = host.run()
    (complaint,) = error_lines("watchdog", result)
    assert f"the state in {host.state}: " in complaint
    assert "or give --state-dir" in complaint
    assert result.status == 1
    assert host.restarts() == []
    assert not (box / "elsewhere").exists()


@pytest.mark.parametrize("make", [_lock_is_a_link, _lock_is_a_directory, _temporary_is_a_directory])
def test_what_is_in_the_way_of_a_file_is_renamed(
    box: Path, forks: Forked, make: Callable[[Host], None]
) -> None:
    """Else it would stop every run."""
    host = Host(box, forks)
    make(host)
    result = host.run()
    assert (result.status, error_lines("watchdog", result)) == (0, [])
    assert len(host.restarts()) == 1
    assert len(list(host.state.glob("aside_*"))) == 1
    assert not (box / "elsewhere").exists()


def test_a_file_that_cannot_be_read_is_not_overwritten(box: Path, forks: Forked) -> None:
    """A failing disk must not reset a counter."""
    host = Host(box, forks)
    history = {**LONG_ON_RELAY, ".restart_count": "7\n"}
    host.write_state(history)
    counter = host.state / ".restart_count"

    # Which step reads it shows a run that nothing disturbs.
    log = box / "steps"
    forks.run(*host.options(), programs=host.programs, log=log)
    step = log.read_text().splitlines().index(f"open {counter}")
    shutil.rmtree(host.state)
    host.write_state(history)
    (host.programs / "systemctl.calls").unlink()
    result = forks.run(*host.options(), programs=host.programs, fail_at=step)
    (line,) = error_lines("watchdog", result)
    assert line.startswith(f"reading .restart_count of the state in {host.state}: Input/output")
    assert result.status == 1
    assert host.restarts() == []
    assert host.files() == history


def test_a_damaged_state_json_keeps_the_counters(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.write_state({**LONG_ON_RELAY, ".restart_count": "7\n"})
    assert host.run().status == 0
    (host.state / "state.json").write_text("{")
    result = host.run(now=T + 60)
    (line,) = error_lines("watchdog", result)
    assert line.endswith(": the cooldown begins now, and counters go on from the exported files")
    assert (host.state / ".restart_count").read_text() == "8\n"


def test_many_damaged_files_get_a_few_lines(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.write_state({})
    for number in range(500):
        (host.state / f"peer_{number}").write_text("junk")
    lines = error_lines("watchdog", host.run())
    assert len(lines) == 11
    assert lines[-1] == "490 more damaged files in the state directory"
    assert not list(host.state.glob("peer_[0-9]*"))


def test_a_read_only_state_directory_is_reported_in_one_line_and_prevents_a_restart(
    box: Path, forks: Forked
) -> None:
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY)
    host.state.chmod(0o500)
    result = host.run(around=UNPRIVILEGED)
    host.state.chmod(0o700)
    (complaint,) = error_lines("watchdog", result)
    assert "Permission denied" in complaint
    assert (result.status, host.restarts()) == (1, [])


def test_a_full_disk_is_reported_in_one_line_and_prevents_a_restart(
    box: Path, forks: Forked
) -> None:
    """`ulimit -f 0` simulates a full disk: no file may grow. The state is unchanged."""
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY)
    result = host.run(around='ulimit -f 0; exec "$@"')
    (complaint,) = error_lines("watchdog", result)
    assert complaint.startswith(f"writing the state in {host.state}: File too large; ")
    assert complaint.endswith("nothing is restarted without it")
    assert (result.status, result.stdout, host.restarts(), host.files()) == (
        1,
        "",
        [],
        LONG_ON_RELAY,
    )
    assert host.run() == (0, RESTART_LINE, "")


def test_an_excluded_peer_is_exported_and_never_causes_a_restart(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY | {"peer_nas": f"{T - 900}\n"})
    host.set_status(encoded(peer("rpi3", "derp"), peer("nas", "derp"), peer("new", "derp")))
    result = host.run("--exclude-peer", "rpi3", "--exclude-peer", "nas")
    assert result.stdout.splitlines() == [
        "EXCLUDED: nas on relay for 900s, excluded from restarts",
        "DETECTED: new transitioned to relay",
        "EXCLUDED: rpi3 on relay for 650s, excluded from restarts",
    ]
    assert (result.status, host.restarts()) == (0, [])
    assert host.exported()['peer_state{peer="nas"}'] == 1
    assert host.run("--exclude-peer", "nas").stdout.splitlines()[-1] == RESTART_LINE.rstrip()


@pytest.mark.parametrize(
    "status",
    [
        encoded(peer("rpi3"), BackendState="Stopped"),
        encoded(BackendState="NeedsLogin"),
        b"",
        b"not JSON",
    ],
)
def test_without_an_observation_the_state_stays_the_same(
    box: Path, forks: Forked, status: bytes
) -> None:
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY | COUNTERS)
    host.set_status(status)
    result = host.run()
    assert len(error_lines("watchdog", result)) == 1
    assert result.stdout == ""
    assert host.files() == LONG_ON_RELAY | COUNTERS
    assert host.restarts() == []


HOSTILE_NAMES = [
    "peer_",
    "peer_..%2F..%2Fetc%2Fpasswd",
    "peer_%00",
    "peer_%",
    "peer_\n",
    "peer_\x1b[31m",
    "peer_\N{RIGHT-TO-LEFT OVERRIDE}",
    "peer_" + "x" * 250,
    "peer_a b",
    "peer_-rf",
]


def test_hostile_files_in_the_state_directory_do_no_harm(box: Path, forks: Forked) -> None:
    """Only root writes there, but a crash or a mistake may leave anything."""
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY)
    for name in HOSTILE_NAMES:
        (host.state / name).write_text("\x1b[31mx\n")
    (host.state / os.fsdecode(b"peer_\xff")).write_text("1")
    for name, content in {
        "peer_binary": b"\xff\x00",
        "peer_huge": b"9" * 2**17,
        "peer_negative": b"-5",
        "peer_past": b"9" * 19,
    }.items():
        (host.state / name).write_bytes(content)
    (host.state / "peer_link").symlink_to("/dev/zero")
    (host.state / "peer_dangling").symlink_to("/nonexistent")
    (host.state / ".journal").write_text("{cut")
    (host.state / ".tmp").write_text("left behind")
    outside = {name: content for name, content in tree(box).items() if not name.startswith("state")}
    result = host.run()
    assert (result.status, result.stdout) == (0, RESTART_LINE)
    assert all(
        "in the state directory" in complaint for complaint in error_lines("watchdog", result)
    )
    assert host.restarts() == ["restart tailscaled.service"]
    after = {name: content for name, content in tree(box).items() if not name.startswith("state")}
    assert set(after) == {*outside, "a.prom", "a.json", "bin/systemctl.calls"}
    assert host.run(now=T + 1) == (
        0,
        "COOLDOWN: rpi3 exceeded threshold but in cooldown (599s remaining)\n",
        "",
    )


@pytest.mark.parametrize("name", ["peer_pipe", ".journal"])
def test_a_named_pipe_in_the_state_directory_does_not_block_a_run(
    box: Path, forks: Forked, name: str
) -> None:
    """It has no writer: a run that opens it would wait forever and hold the lock."""
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY)
    os.mkfifo(host.state / name)
    with started(*host.options(), programs=host.programs) as process:
        result = ended(process, within=5)
    assert "Traceback" not in result.stderr
    assert result.status in {0, 1}


@pytest.mark.parametrize("name", ["peer_directory", ".last_restart", ".journal", "state.json"])
def test_a_directory_in_place_of_a_file_is_renamed_and_causes_no_second_restart(
    box: Path, forks: Forked, name: str
) -> None:
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY)
    (host.state / name).mkdir()
    (host.state / name / "kept").touch()
    results = [host.run(now=now) for now in (T, T + 60)]
    assert [result.status for result in results] == [0, 0]
    assert error_lines("watchdog", results[-1]) == []
    assert len(host.restarts()) <= 1
    assert len(list(host.state.glob(f"aside_*_{name}/kept"))) == 1


def test_a_hanging_tailscaled_times_out_and_changes_no_state(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.write_state(LONG_ON_RELAY)
    with serving(box / "s", lambda _: None):
        options = (
            "--now",
            str(T),
            "--socket",
            str(box / "s"),
            "--timeout",
            "0.3",
            "--state-dir",
            str(host.state),
            "--metrics-path",
            str(host.metrics),
            "--unit=tailscaled.service",
        )
        result = run("watchdog", *options, programs=host.programs)
    (complaint,) = error_lines("watchdog", result)
    assert "no complete response within 0.3 s" in complaint
    assert (result.status, host.files()) == (0, LONG_ON_RELAY | COUNTERS)
