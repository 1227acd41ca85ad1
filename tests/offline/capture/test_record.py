"""`tsfc capture` appends whole records, even with signals, kills and full disks."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from returns.result import Success

from support.captures import START, TIMELINE
from support.processes import UNPRIVILEGED, ended, error_lines, interrupt, run, started, wait_until
from support.statuses import encoded, peer
from tsfc.core.evaluation.observation import Observation
from tsfc.offline.capture.append import append
from tsfc.offline.capture.read import observations
from tsfc.offline.capture.record import record


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


def test_many_writers_that_rotate_one_capture_lose_nothing(box: Path) -> None:
    """Each process, and each open file of one, has a lock of its own."""
    path = f"{box}/c"

    def write(writer: int) -> None:
        for number in range(100):
            data = record(path, Observation(START + writer * 1000 + number, fault="x")).unwrap()
            appended = append(path, data, max_size=len(data) * 2, keep=900)
            assert appended == Success(None)

    with ThreadPoolExecutor(6) as writers:
        list(writers.map(write, range(6)))
    kept = {one.captured_at - START for name in box.iterdir() for one in _read(name)}
    assert kept == {writer * 1000 + number for writer in range(6) for number in range(100)}


def _waits_for_a_lock(process: subprocess.Popen[bytes]) -> bool:
    """Whether Linux lists the process as blocked in `flock`."""
    waiting = re.compile(rf"-> FLOCK +ADVISORY +WRITE {process.pid} ")
    return waiting.search(Path("/proc/locks").read_text(encoding="ascii")) is not None


def test_a_writer_waits_for_the_lock_and_follows_a_rotation(box: Path, file: str) -> None:
    with (box / "c").open("ab") as rotating:
        fcntl.flock(rotating, fcntl.LOCK_EX)
        with started("capture", "--output", f"{box}/c", "--status-file", file) as process:
            wait_until(lambda: process.poll() is not None or _waits_for_a_lock(process), "it waits")
            assert process.poll() is None, "it has not waited for the lock"
            (box / "c").rename(box / "c.1")
            fcntl.flock(rotating, fcntl.LOCK_UN)
            assert ended(process).status == 0
    assert (box / "c.1").read_bytes() == b""
    assert len(_read(box / "c")) == 1


def test_writers_that_redact_share_one_new_key(box: Path, file: str) -> None:
    """The second writer finds the key file that the first one has not written yet."""
    options = ("capture", "--output", f"{box}/c", "--status-file", file, "--redact")
    with (box / "c.key").open("ab") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with started(*options) as process:
            wait_until(lambda: process.poll() is not None or _waits_for_a_lock(process), "it waits")
            first.write(b"the key\n")
            first.close()
            assert ended(process).status == 0
    run(*options[:-1], "--redact-key", "the key")
    shared, given = _read(box / "c")
    assert shared.status == given.status


def test_a_record_larger_than_the_limit_has_a_file_of_its_own(box: Path, file: str) -> None:
    options = ("capture", "--output", f"{box}/c", "--status-file", file, "--max-size", "1")
    for _ in range(3):
        assert run(*options).status == 0
    assert [len(_read(box / name)) for name in ("c", "c.1", "c.2")] == [1, 1, 1]
    assert not (box / "c.3").exists()


@pytest.mark.parametrize("options", [(), ("--redact",)])
def test_a_capture_is_never_written_through_a_link(
    box: Path, file: str, options: tuple[str, ...]
) -> None:
    (box / "target").write_bytes(b"")
    (box / ("c.key" if options else "c")).symlink_to(box / "target")
    ran = run("capture", "--output", f"{box}/c", "--status-file", file, *options)
    assert ran.status == 1
    (error,) = error_lines("capture", ran)
    assert error.endswith(": it is a symbolic link; set --output to the file itself")
    assert (box / "target").read_bytes() == b""


@pytest.mark.parametrize("name", ["c", "c.key"])
def test_a_fifo_is_refused_at_once(box: Path, file: str, name: str) -> None:
    os.mkfifo(box / name)
    ran = run("capture", "--output", f"{box}/c", "--status-file", file, "--redact")
    assert ran.status == 1
    (error,) = error_lines("capture", ran)
    advice = "set --output to a file, or to - for standard output"
    assert error == f"writing {box}/{name}: it is not a regular file; {advice}"


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_capture_that_others_can_read_is_made_private(box: Path, file: str, mode: int) -> None:
    (box / "c").touch()
    (box / "c").chmod(mode)
    ran = run("capture", "--output", f"{box}/c", "--status-file", file)
    assert ran == (0, "", "")
    assert (box / "c").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_capture_of_another_user_that_others_can_read_is_one_warning(
    box: Path, file: str
) -> None:
    (box / "c").touch()
    (box / "c").chmod(0o666)
    os.chown(box / "c", 1, 1)
    ran = run(
        "capture",
        "--output",
        f"{box}/c",
        "--status-file",
        file,
        "--interval",
        "0.001s",
        "--duration",
        "0.1s",
        around='exec /usr/bin/setpriv --bounding-set=-fowner "$@"',
    )
    assert ran.status == 0
    (warning,) = error_lines("capture", ran)
    assert warning.startswith(f"writing {box}/c: other users can read it, and its permissions ")
    assert len(_read(box / "c")) > 1


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
