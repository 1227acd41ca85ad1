"""`tsfc capture` appends whole records, even with signals, kills and full disks."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from support.captures import START, TIMELINE
from support.processes import UNPRIVILEGED, ended, error_lines, interrupt, run, started, wait_until
from support.statuses import encoded, peer
from tsfc.core.evaluation.observation import Observation
from tsfc.offline.capture.read import observations


@pytest.fixture
def file(box: Path) -> str:
    """Path of a file with a status."""
    (box / "status.json").write_bytes(encoded(peer("rpi3", "derp")))
    return str(box / "status.json")


def _read(path: Path) -> list[Observation]:
    read = list(observations(str(path)))
    assert all(isinstance(one, Observation) for one in read)
    return [one for one in read if isinstance(one, Observation)]


@pytest.mark.parametrize("name", ["c.ndjson", "c.ndjson.gz", "c.ndjson.zst"])
def test_each_run_appends_its_observation(box: Path, file: str, name: str) -> None:
    for number in range(3):
        ran = run(
            "capture",
            "--output",
            f"{box}/{name}",
            "--status-file",
            file,
            "--now",
            f"{START + number}.25",
        )
        assert ran == (0, "", "")
    found = _read(box / name)
    assert [one.captured_at for one in found] == [START + 0.25, START + 1.25, START + 2.25]
    assert json.loads(bytes(found[0].status)) == json.loads(Path(file).read_bytes())
    assert (box / name).stat().st_mode & 0o777 == 0o600


def test_a_stopped_tailscaled_is_recorded_without_an_error_status(box: Path) -> None:
    ran = run("capture", "--output", f"{box}/c", "--socket", f"{box}/nobody")
    assert ran.status == 0
    (error,) = error_lines("capture", ran)
    (observation,) = _read(box / "c")
    assert observation.fault == error
    assert observation.boot is not None


def test_an_unusable_response_is_recorded_with_an_error_status(box: Path) -> None:
    ran = run("capture", "--output", f"{box}/c", "--status-file", "-", stdin=b"{}")
    assert ran.status == 1
    assert _read(box / "c")[0].fault is not None


def test_a_capture_can_be_replayed(box: Path, file: str) -> None:
    """The replay reports a fault in the words of the watchdog's journal."""
    run("capture", "--output", f"{box}/c", "--status-file", file, "--now", str(START))
    run("capture", "--output", f"{box}/c", "--socket", f"{box}/nobody", "--now", str(START + 60))
    watchdog = run(
        "watchdog",
        "--socket",
        f"{box}/nobody",
        "--unit=tailscaled.service",
        "--state-dir",
        f"{box}/state",
        "--metrics-path",
        f"{box}/m.prom",
    )
    lines = run("replay", f"{box}/c").stdout.splitlines()
    assert lines[0].endswith("Z DETECTED: rpi3 transitioned to relay")
    assert lines[1].endswith("Z " + watchdog.stderr.rstrip())


def test_capturing_repeats_at_the_interval_until_the_duration_ends(box: Path, file: str) -> None:
    ran = run(
        "capture",
        "--output",
        f"{box}/c",
        "--status-file",
        file,
        "--interval",
        "0.2s",
        "--duration",
        "0.9s",
    )
    assert (ran.status, ran.stderr) == (0, "")
    times = [one.captured_at for one in _read(box / "c")]
    assert 2 <= len(times) <= 5
    assert times == sorted(times)
    assert times[-1] - times[0] < 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_capturing_without_loss(box: Path, file: str, number: signal.Signals) -> None:
    with started(
        "capture", "--output", f"{box}/c", "--status-file", file, "--interval", "600s"
    ) as process:
        wait_until(
            lambda: (box / "c").exists() and (box / "c").stat().st_size, "it has captured once"
        )
        interrupt(process, number)
        assert ended(process).status == 128 + number
    assert len(_read(box / "c")) == 1


def test_a_record_after_a_torn_line_begins_on_a_new_line(box: Path, file: str) -> None:
    first = TIMELINE.read_bytes().splitlines(keepends=True)[0]
    (box / "c").write_bytes(first + first[:1000])
    run("capture", "--output", f"{box}/c", "--status-file", file)
    assert [isinstance(read, Observation) for read in observations(f"{box}/c")] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("name", ["c", "c.gz", "c.zst"])
def test_a_full_disk_leaves_the_capture_unchanged(box: Path, file: str, name: str) -> None:
    run("capture", "--output", f"{box}/{name}", "--status-file", file)
    before = (box / name).read_bytes()
    limit = len(before) * 3 // 2
    ran = run(
        "capture",
        "--output",
        f"{box}/{name}",
        "--status-file",
        file,
        around=f'exec /usr/bin/prlimit --fsize={limit} "$@"',
    )
    assert ran.status == 1
    (error,) = error_lines("capture", ran)
    assert error.startswith(f"writing {box}/{name}: File too large; ")
    assert (box / name).read_bytes() == before


def test_two_processes_can_append_to_one_capture(box: Path, file: str) -> None:
    options = (
        "capture",
        "--output",
        f"{box}/c",
        "--status-file",
        file,
        "--interval",
        "0.001s",
        "--duration",
        "0.5s",
    )
    with started(*options) as first, started(*options) as second:
        assert (ended(first).status, ended(second).status) == (0, 0)
    assert len(_read(box / "c")) > 10


def test_a_kill_leaves_whole_records(box: Path, file: str) -> None:
    """Each kill leaves at most one torn record."""
    for _ in range(5):
        with started(
            "capture", "--output", f"{box}/c", "--status-file", file, "--interval", "0.001s"
        ) as process:
            wanted = 3000 + (os.stat(box / "c").st_size if (box / "c").exists() else 0)

            def has_grown(wanted: int = wanted) -> bool:
                return (box / "c").exists() and (box / "c").stat().st_size > wanted

            wait_until(has_grown, "it captures")
            process.kill()
    read = list(observations(f"{box}/c"))
    assert sum(isinstance(one, Observation) for one in read) > 5
    assert sum(not isinstance(one, Observation) for one in read) <= 5


@pytest.mark.parametrize(("keep", "files"), [(2, {"c", "c.1", "c.2"}), (0, {"c"})])
def test_a_full_file_is_rotated(box: Path, file: str, keep: int, files: set[str]) -> None:
    for number in range(9):
        run(
            "capture",
            "--output",
            f"{box}/c",
            "--status-file",
            file,
            "--now",
            str(START + number),
            "--max-size",
            "2k",
            "--keep",
            str(keep),
        )
    assert {path.name for path in box.iterdir()} == files | {"status.json"}
    assert all(path.stat().st_size <= 2048 for path in box.iterdir())
    kept = [
        one.captured_at - START for name in sorted(files, reverse=True) for one in _read(box / name)
    ]
    assert kept == [float(number) for number in range(9)][-len(kept) :]


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("no/such/c", "No such file or directory; create the directory"),
        (".", "Is a directory; "),
        ("closed/c", "Permission denied; run as a user with write permission"),
    ],
)
def test_a_failed_write_is_one_error_line(box: Path, file: str, output: str, error: str) -> None:
    (box / "closed").mkdir(mode=0o500)
    ran = run("capture", "--output", f"{box}/{output}", "--status-file", file, around=UNPRIVILEGED)
    assert ran.status == 1
    assert error in error_lines("capture", ran)[0]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--output", "c", "--interval", "x"),
        ("--output", "c", "--interval", "1y"),
        ("--output", "c", "--max-size", "0"),
    ],
)
def test_an_invalid_command_line_is_a_usage_error(options: tuple[str, ...]) -> None:
    ran = run("capture", *options)
    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
