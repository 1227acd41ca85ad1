"""The job `watchdog` as processes: its files, its restart, its lock, its lines."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support.processes import (
    UNPRIVILEGED,
    Forked,
    Ran,
    complaints,
    ended,
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
from tsfc.shell import systemd

T = 1_800_000_000
STUCK = {"peer_rpi3": f"{T - 650}\n"}
RESTART_LINE = "RESTART: rpi3 on relay for 650s, restarting tailscaled\n"
COUNTERS = {
    ".restart_count": "0\n",
    ".restart_failure_count": "0\n",
    ".detection_count": "0\n",
    ".recovery_count": "0\n",
}


class Host:
    """A host with a state directory, a `systemctl` on PATH, and a peer `rpi3` on relay."""

    def __init__(self, box: Path, forks: Forked, systemctl: str = "exit 0") -> None:
        self._forks = forks
        self.box = box
        self.state = box / "state"
        self.metrics = box / "a.prom"
        self.programs = box / "bin"
        self.programs.mkdir()
        program(self.programs, "systemctl", systemctl)
        self.sees(encoded(peer("rpi3", "derp")))

    def sees(self, status: bytes) -> None:
        """Changes the status that is seen from now on."""
        (self.box / "status.json").write_bytes(status)

    def remembers(self, files: dict[str, str]) -> None:
        """Puts files into the state directory, as an earlier run left them."""
        self.state.mkdir(exist_ok=True)
        for name, text in files.items():
            (self.state / name).write_text(text)

    def options(self, *, now: int = T) -> list[str]:
        """Returns the options of a run."""
        files = [
            "--status-file",
            str(self.box / "status.json"),
            "--state-dir",
            str(self.state),
            "--metrics-path",
            str(self.metrics),
        ]
        return ["watchdog", "--now", str(now), *files]

    def run(self, *options: str, now: int = T, around: str | None = None) -> Ran:
        """Does one run; a process from its very start where there is something `around` it."""
        if around is None:
            return self._forks.run(*self.options(now=now), *options, programs=self.programs)
        return run(*self.options(now=now), *options, programs=self.programs, around=around)

    def restarts(self) -> list[str]:
        """Returns what was asked of systemctl."""
        return calls(self.programs, "systemctl")

    def files(self) -> dict[str, str]:
        """The exported files of the state directory."""
        return {
            path.name: path.read_text()
            for path in self.state.iterdir()
            if path.name not in {".lock", "state.json"}
        }

    def exported(self) -> dict[str, float]:
        """Returns the metrics, without the prefix that they share."""
        return {
            name.removeprefix("tailscale_watchdog_"): value
            for name, value in series(self.metrics.read_text()).items()
        }


def test_the_whole_documented_cycle_to_the_byte(box: Path, forks: Forked) -> None:
    """Every run is a process of its own; what it knows of the others is in the files."""
    host = Host(box, forks)
    relayed, direct = encoded(peer("rpi3", "derp")), encoded(peer("rpi3"))
    told: list[tuple[int, str, dict[str, str]]] = []
    for now, status in [
        (0, relayed),
        (300, relayed),
        (600, relayed),
        (650, relayed),
        (1050, relayed),
        (1051, direct),
        (2000, relayed),
        (2060, direct),
        (2061, direct),
    ]:
        host.sees(status)
        ran = host.run(now=T + now)
        assert (ran.status, ran.stderr) == (0, "")
        told.append((now, ran.stdout, host.files()))

    nothing = {
        ".restart_count": "0\n",
        ".restart_failure_count": "0\n",
        ".detection_count": "1\n",
        ".recovery_count": "0\n",
        "peer_rpi3": f"{T}\n",
    }
    restarted = nothing | {".restart_count": "1\n", ".last_restart": f"{T + 650}\n"}
    direct_again = {name: text for name, text in restarted.items() if name != "peer_rpi3"}
    assert told == [
        (0, "DETECTED: rpi3 transitioned to relay\n", nothing),
        (300, "WAITING: rpi3 on relay for 300s (threshold: 600s)\n", nothing),
        (600, "WAITING: rpi3 on relay for 600s (threshold: 600s)\n", nothing),
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


def test_files_as_the_shell_scripts_wrote_them_are_read_and_kept(box: Path, forks: Forked) -> None:
    """With and without an end of line; a file that is none of ours stays untouched."""
    host = Host(box, forks)
    host.sees(encoded(peer("rpi3", "derp"), peer("nas", "derp")))
    history = {
        "peer_nas": f"{T - 300}\n",
        ".last_restart": f"{T - 9000}\n",
        ".detection_count": "34\n",
        "notes.txt": "by the admin\n",
    }
    host.remembers(
        history | {"peer_rpi3": f"{T - 200}", ".restart_count": "12", ".recovery_count": " 5 \n"}
    )
    ran = host.run()
    assert ran == (
        0,
        "WAITING: nas on relay for 300s (threshold: 600s)\nWAITING: rpi3 on relay for 200s (threshold: 600s)\n",
        "",
    )
    ours = {
        "peer_rpi3": f"{T - 200}\n",
        ".restart_count": "12\n",
        ".recovery_count": "5\n",
        ".restart_failure_count": "0\n",
    }
    assert host.files() == history | ours
    assert (
        host.exported()["restarts_total"],
        host.exported()["relay_detections_total"],
        host.exported()["recoveries_total"],
    ) == (12, 34, 5)


def test_the_unit_can_be_named(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.remembers(STUCK)
    assert host.run("--unit", "tailscaled@a.service").status == 0
    assert host.restarts() == ["restart tailscaled@a.service"]


def test_the_cooldown_is_on_the_disk_before_systemctl_runs(box: Path, forks: Forked) -> None:
    host = Host(box, forks, f"cp -R {box}/state {box}/seen")
    host.remembers(STUCK)
    assert host.run() == (0, RESTART_LINE, "")
    seen = {path.name: path.read_text() for path in (box / "seen").iterdir()}
    assert seen[".last_restart"] == f"{T}\n"
    assert seen["peer_rpi3"] == STUCK["peer_rpi3"]
    assert decode(seen["state.json"].encode()).unwrap().attempts[-1].stage is Stage.ASKED
    assert ".tmp" not in seen
    state = decode((host.state / "state.json").read_bytes()).unwrap()
    assert state.attempts[-1].stage is Stage.DONE


@pytest.mark.parametrize(
    ("systemctl", "says"),
    [
        pytest.param(
            "echo 'Unit tailscaled.service not found.' >&2; exit 5",
            "exit status 5: Unit tailscaled.service not found.",
            id="complains",
        ),
        pytest.param(
            "exit 1",
            "exit status 1; see `systemctl status tailscaled.service`, and check --unit",
            id="says nothing",
        ),
        pytest.param("kill -KILL $$", "ended by SIGKILL", id="is killed"),
    ],
)
def test_a_restart_that_fails_is_counted_and_cools_down(
    box: Path, forks: Forked, systemctl: str, says: str
) -> None:
    host = Host(box, forks, systemctl)
    host.remembers(STUCK)
    ran = host.run()
    (complaint,) = complaints("watchdog", ran)
    assert complaint.startswith(f"restarting with `systemctl restart tailscaled.service`: {says}")
    assert (ran.status, ran.stdout) == (1, RESTART_LINE)
    assert (host.exported()["restarts_total"], host.exported()["restart_failures_total"]) == (0, 1)
    assert host.run(now=T + 60) == (
        0,
        "COOLDOWN: rpi3 exceeded threshold but in cooldown (540s remaining)\n",
        "",
    )
    assert host.restarts() == ["restart tailscaled.service"]


def test_a_host_without_systemctl_is_one_line(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    (host.programs / "systemctl").unlink()
    host.remembers(STUCK)
    ran = host.run()
    assert complaints("watchdog", ran) == [
        "restarting with `systemctl restart tailscaled.service`: there is no systemctl on PATH; the watchdog needs systemd"
    ]
    assert (ran.status, host.exported()["restart_failures_total"]) == (1, 1)


def test_a_systemctl_that_hangs_is_given_up(
    box: Path, forks: Forked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is shortened here."""
    host = Host(box, forks, "sleep 300")
    monkeypatch.setenv("PATH", str(host.programs))
    monkeypatch.setattr(systemd, "TIMEOUT_SECONDS", 0.3)
    assert "timed out after 0.3 s" in str(systemd.restart("tailscaled.service"))


def test_a_restart_that_takes_long_is_waited_for(box: Path, forks: Forked) -> None:
    """`--timeout` bounds a call to tailscaled, and a restart is none."""
    host = Host(box, forks, "sleep 0.6")
    host.remembers(STUCK)
    assert host.run("--timeout", "0.2") == (0, RESTART_LINE, "")
    assert host.exported()["restarts_total"] == 1


@pytest.mark.parametrize("exists", [False, True], ids=["no state directory", "a state directory"])
def test_a_dry_run_says_what_a_run_would_and_changes_nothing(
    box: Path, forks: Forked, *, exists: bool
) -> None:
    host = Host(box, forks)
    if exists:
        host.remembers(STUCK)
    before = tree(box)
    said = forks.run(*host.options()[:-2], "--dry-run", programs=host.programs)
    if exists:
        assert (said.status, said.stdout) == (0, RESTART_LINE)
        assert complaints("watchdog", said) == ["dry run: tailscaled.service is not restarted"]
    else:
        assert said == (0, "DETECTED: rpi3 transitioned to relay\n", "")
    assert tree(box) == before
    assert host.restarts() == []


def test_a_dry_run_writes_metrics_where_it_is_told_to(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.remembers(STUCK)
    before = tree(host.state)
    assert host.run("--dry-run").status == 0
    assert host.exported()['peer_relay_duration_seconds{peer="rpi3"}'] == 650
    assert (host.exported()["restarts_total"], tree(host.state)) == (0, before)


def test_a_second_run_does_nothing_while_the_first_is_at_it(box: Path, forks: Forked) -> None:
    host = Host(box, forks, f"touch {box}/begun; while [ ! -e {box}/go ]; do sleep 0.01; done")
    host.remembers(STUCK)
    with started(*host.options(), programs=host.programs) as first:
        wait_until((box / "begun").exists, "the first run restarts")
        second = host.run(now=T + 700)
        dry = host.run("--dry-run", now=T + 1)
        (box / "go").touch()
        assert ended(first) == (0, RESTART_LINE, "")
    assert complaints("watchdog", second) == [
        f"another run holds the lock in {host.state}: this one does nothing"
    ]
    assert (second.status, second.stdout) == (0, "")
    assert dry.status == 0
    assert host.restarts() == ["restart tailscaled.service"]
    assert host.exported()["restarts_total"] == 1


def test_the_lock_goes_with_its_run_and_not_with_what_the_run_started(
    box: Path, forks: Forked
) -> None:
    """Systemctl does not inherit the lock: what it leaves running locks nobody out."""
    host = Host(box, forks, f"sleep 300 > /dev/null 2>&1 & echo $! > {box}/pid")
    host.remembers(STUCK)
    try:
        assert host.run() == (0, RESTART_LINE, "")
        assert host.run(now=T + 60).stderr == ""
    finally:
        os.kill(int((box / "pid").read_text()), 9)


def test_a_run_that_is_ended_while_it_restarts_is_one_line_and_the_next_counts_the_restart(
    box: Path, forks: Forked
) -> None:
    """Systemd finishes what it was asked for, so it counts as done."""
    with noted_processes(box) as noted:
        host = Host(box, forks, f"echo $$ > {noted}; exec sleep 300")
        host.remembers(STUCK)
        with started(*host.options(), programs=host.programs) as process:
            wait_until(lambda: pids_in(noted), "it restarts")
            interrupt(process, signal.SIGTERM)
            assert ended(process) == (
                143,
                RESTART_LINE,
                "tsfc: ended by SIGTERM before it was done\n",
            )
        assert have_ended(noted)
    ran = host.run(now=T + 60)
    assert complaints("watchdog", ran) == [
        "the run that restarted tailscaled ended before it knew the outcome: counted as done"
    ]
    assert (ran.status, ran.stdout) == (
        0,
        "COOLDOWN: rpi3 exceeded threshold but in cooldown (540s remaining)\n",
    )
    assert (host.exported()["restarts_total"], len(host.restarts())) == (1, 1)


def test_log_lines_go_to_standard_error_where_standard_output_has_the_metrics(
    box: Path, forks: Forked
) -> None:
    host = Host(box, forks)
    host.remembers(STUCK)
    ran = host.run("--metrics-path", "-")
    assert ran.stderr == RESTART_LINE
    assert series(ran.stdout)["tailscale_watchdog_restarts_total"] == 1


@pytest.mark.parametrize(
    "streams", [">&-", ">/dev/full", ">&- 2>&-", ">/dev/full 2>/dev/full", "<&- >&- 2>&-"]
)
def test_a_journal_that_cannot_be_written_prevents_no_restart(
    box: Path, forks: Forked, streams: str
) -> None:
    host = Host(box, forks)
    host.remembers(STUCK)
    assert host.run(around=f'exec "$@" {streams}') == (0, "", "")
    assert host.restarts() == ["restart tailscaled.service"]
    assert host.exported()["restarts_total"] == 1


def _is_a_file(host: Host) -> None:
    host.state.write_text("")


def _is_a_dangling_link(host: Host) -> None:
    host.state.symlink_to("/nonexistent/state")


def _lock_is_a_link(host: Host) -> None:
    host.remembers(STUCK)
    (host.state / ".lock").symlink_to(host.box / "elsewhere")


def _lock_is_a_directory(host: Host) -> None:
    host.remembers(STUCK)
    (host.state / ".lock").mkdir()


def _temporary_is_a_directory(host: Host) -> None:
    host.remembers(STUCK)
    (host.state / ".tmp").mkdir()


@pytest.mark.parametrize(
    "make",
    [
        _is_a_file,
        _is_a_dangling_link,
        _lock_is_a_link,
        _lock_is_a_directory,
        _temporary_is_a_directory,
    ],
)
def test_a_state_that_cannot_be_written_is_one_line_and_nothing_is_restarted(
    box: Path, forks: Forked, make: Callable[[Host], None]
) -> None:
    host = Host(box, forks)
    make(host)
    ran = host.run()
    (complaint,) = complaints("watchdog", ran)
    assert f"the state in {host.state}: " in complaint
    assert "or give --state-dir" in complaint
    assert ran.status == 1
    assert host.restarts() == []
    assert not (box / "elsewhere").exists()


def test_a_state_without_the_right_to_write_it_is_one_line(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.remembers(STUCK)
    host.state.chmod(0o500)
    ran = host.run(around=UNPRIVILEGED)
    host.state.chmod(0o700)
    (complaint,) = complaints("watchdog", ran)
    assert "Permission denied" in complaint
    assert (ran.status, host.restarts()) == (1, [])


def test_a_full_disk_is_one_line_and_nothing_is_restarted(box: Path, forks: Forked) -> None:
    """A process that may make no file larger than nothing is one whose disk is full. The state stays what it was."""
    host = Host(box, forks)
    host.remembers(STUCK)
    ran = host.run(around='ulimit -f 0; exec "$@"')
    (complaint,) = complaints("watchdog", ran)
    assert complaint.startswith(f"writing the state in {host.state}: File too large; ")
    assert complaint.endswith("nothing is restarted without it")
    assert (ran.status, ran.stdout, host.restarts(), host.files()) == (1, "", [], STUCK)
    assert host.run() == (0, RESTART_LINE, "")


def test_an_excluded_peer_is_exported_and_never_the_cause(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.remembers(STUCK | {"peer_nas": f"{T - 900}\n"})
    host.sees(encoded(peer("rpi3", "derp"), peer("nas", "derp"), peer("new", "derp")))
    ran = host.run("--exclude-peer", "rpi3", "--exclude-peer", "nas")
    assert ran.stdout.splitlines() == [
        "EXCLUDED: nas on relay for 900s, excluded from restarts",
        "DETECTED: new transitioned to relay",
        "EXCLUDED: rpi3 on relay for 650s, excluded from restarts",
    ]
    assert (ran.status, host.restarts()) == (0, [])
    assert host.exported()['peer_state{peer="nas"}'] == 1
    assert host.run("--exclude-peer", "nas").stdout.splitlines()[-1] == RESTART_LINE.rstrip()


@pytest.mark.parametrize(
    "unseen",
    [
        encoded(peer("rpi3"), BackendState="Stopped"),
        encoded(BackendState="NeedsLogin"),
        b"",
        b"not JSON",
    ],
)
def test_where_nothing_can_be_seen_all_is_kept(box: Path, forks: Forked, unseen: bytes) -> None:
    host = Host(box, forks)
    host.remembers(STUCK | COUNTERS)
    host.sees(unseen)
    ran = host.run()
    assert len(complaints("watchdog", ran)) == 1
    assert ran.stdout == ""
    assert host.files() == STUCK | COUNTERS
    assert host.restarts() == []


HELL = [
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


def test_files_from_hell_in_the_state_directory_harm_nothing(box: Path, forks: Forked) -> None:
    """Whoever can write there is root; but a crash, a disk or a hand may leave anything."""
    host = Host(box, forks)
    host.remembers(STUCK)
    for name in HELL:
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
    ran = host.run()
    assert (ran.status, ran.stdout) == (0, RESTART_LINE)
    assert all("in the state directory" in complaint for complaint in complaints("watchdog", ran))
    assert host.restarts() == ["restart tailscaled.service"]
    after = {name: content for name, content in tree(box).items() if not name.startswith("state")}
    assert set(after) == {*outside, "a.prom", "a.json", "bin/systemctl.calls"}
    assert host.run(now=T + 1) == (
        0,
        "COOLDOWN: rpi3 exceeded threshold but in cooldown (599s remaining)\n",
        "",
    )


@pytest.mark.parametrize("name", ["peer_pipe", ".journal"])
def test_a_named_pipe_in_the_state_directory_stops_nothing(
    box: Path, forks: Forked, name: str
) -> None:
    """Nobody ever writes into it: a run that waited for that would wait for ever, and with it every later one."""
    host = Host(box, forks)
    host.remembers(STUCK)
    os.mkfifo(host.state / name)
    with started(*host.options(), programs=host.programs) as process:
        ran = ended(process, within=5)
    assert "Traceback" not in ran.stderr
    assert ran.status in {0, 1}


@pytest.mark.parametrize("name", ["peer_directory", ".last_restart", ".journal"])
def test_a_directory_in_a_files_place_is_said_and_nothing_is_restarted_twice(
    box: Path, forks: Forked, name: str
) -> None:
    host = Host(box, forks)
    host.remembers(STUCK)
    (host.state / name).mkdir()
    for now in (T, T + 60):
        ran = host.run(now=now)
        assert complaints("watchdog", ran)
        assert ran.status in {0, 1}
    assert len(host.restarts()) <= 1


def test_a_daemon_that_hangs_holds_up_nothing(box: Path, forks: Forked) -> None:
    host = Host(box, forks)
    host.remembers(STUCK)
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
        )
        ran = run("watchdog", *options, programs=host.programs)
    (complaint,) = complaints("watchdog", ran)
    assert "no complete response within 0.3 s" in complaint
    assert (ran.status, host.files()) == (0, STUCK | COUNTERS)
