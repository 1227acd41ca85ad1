"""The state directory: its lock, its durable commits, and what is in the way."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from returns.result import Failure, Success

from support import irregular
from tsfc.core.clock import Instant
from tsfc.core.watchdog.state import Relay, State, encode
from tsfc.shell import statedir
from tsfc.shell.statedir import ASIDE, CommitError, Directory, Locked, NoContent, ReadOnly

T = 1_800_000_000
NOW = Instant(T)
STATE = State(relays={"rpi3": Relay(T - 60, "n1")}, restarts=3, detections=5)
EXPORTED = {
    "peer_rpi3": f"{T - 60}\n",
    ".restart_count": "3\n",
    ".restart_failure_count": "0\n",
    ".detection_count": "5\n",
    ".recovery_count": "0\n",
}


def _files(box: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in box.iterdir()}


def _aside(box: Path) -> list[Path]:
    return [path for path in box.iterdir() if path.name.startswith(ASIDE)]


def test_the_lock_excludes_others_until_it_is_closed(box: Path) -> None:
    directory = str(box / "a" / "b")
    lock = statedir.lock(directory).unwrap()
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert stat.S_IMODE((box / "a/b/.lock").stat().st_mode) == 0o600
    assert not os.get_inheritable(lock.descriptor)
    descriptors = os.listdir("/proc/self/fd")
    assert statedir.lock(directory) == Failure(Locked())
    assert os.listdir("/proc/self/fd") == descriptors
    os.close(lock.descriptor)
    os.close(statedir.lock(directory).unwrap().descriptor)


def test_a_directory_that_cannot_be_made_is_one_line(box: Path) -> None:
    (box / "file").touch()
    directory = str(box / "file" / "s")
    assert statedir.lock(directory) == Failure(
        f"locking the state in {directory}: Not a directory; "
        "check permissions and disk space, or give --state-dir"
    )


@pytest.mark.parametrize("make", irregular.EACH_KIND)
@pytest.mark.parametrize("name", [".lock", ".tmp", "state.json", ".restart_count"])
def test_what_is_in_the_way_of_a_file_is_renamed(
    box: Path, name: str, make: Callable[[Path], None]
) -> None:
    make(box / name)
    kind = stat.S_IFMT((box / name).lstat().st_mode)
    os.close(statedir.lock(str(box)).unwrap().descriptor)
    store = Directory(str(box))
    assert store.commit(STATE) == Success(None)
    assert store.export(STATE) == Success(None)
    (aside,) = _aside(box)
    assert aside.name.endswith(f"_{name}")
    assert stat.S_IFMT(aside.lstat().st_mode) == kind
    assert store.load(NOW) == Success((STATE, ()))
    if make is irregular.link:
        assert (box / "target").read_text() == irregular.OLD


def test_what_is_in_the_way_is_renamed_whatever_the_length_of_its_name(box: Path) -> None:
    (box / f"peer_{'é' * 125}").mkdir()
    assert Directory(str(box)).export(STATE) == Success(None)
    assert len(_aside(box)) == 1


def test_a_commit_is_what_the_next_load_reads(box: Path) -> None:
    store = Directory(str(box))
    assert store.load(NOW) == Success((State(), ()))
    for state in (STATE, replace(STATE, restarts=4)):
        assert store.commit(state) == Success(None)
        assert _files(box) == {"state.json": encode(state).decode()}
        assert store.load(NOW) == Success((state, ()))
    assert stat.S_IMODE((box / "state.json").stat().st_mode) == 0o644


def test_the_export_has_the_files_of_the_state_and_no_others(box: Path) -> None:
    store = Directory(str(box))
    (box / "peer_gone").write_text("1\n")
    (box / "peer_dir").mkdir()
    (box / ".last_run").write_text("{}")
    (box / ".journal").write_text("{}")
    (box / "foreign").write_text("kept")
    assert store.export(STATE) == Success(None)
    (aside,) = _aside(box)
    assert aside.name.endswith("_peer_dir")
    aside.rmdir()
    assert _files(box) == {**EXPORTED, "foreign": "kept"}


def test_an_export_writes_only_what_differs(box: Path) -> None:
    store = Directory(str(box))
    assert store.export(STATE) == Success(None)
    before = {path.name: path.stat().st_ino for path in box.iterdir()}
    assert store.export(replace(STATE, restarts=4)) == Success(None)
    after = {path.name: path.stat().st_ino for path in box.iterdir()}
    assert before.keys() == after.keys()
    assert [name for name in after if before[name] != after[name]] == [".restart_count"]


def test_a_dry_run_changes_nothing(box: Path) -> None:
    store = ReadOnly(str(box))
    assert store.commit(STATE) == Success(None)
    assert store.export(STATE) == Success(None)
    assert os.listdir(box) == []


def test_a_directory_that_is_not_there_has_no_state(box: Path) -> None:
    assert Directory(str(box / "none")).load(NOW) == Success((State(), ()))


@pytest.mark.parametrize("make", irregular.EACH_KIND)
def test_a_state_that_is_not_a_file_is_reported_and_the_counters_go_on(
    box: Path, make: Callable[[Path], None]
) -> None:
    make(box / "state.json")
    (box / ".restart_count").write_text("7\n")
    state, (warning,) = Directory(str(box)).load(NOW).unwrap()
    assert warning == (
        "state.json in the state directory is not a regular file: "
        "the cooldown begins now, and counters go on from the exported files"
    )
    assert state.restarts == 7
    assert statedir.read(str(box), "state.json") == Success(NoContent("is not a regular file"))


@pytest.mark.parametrize("make", irregular.EACH_KIND)
def test_a_number_that_is_not_a_file_is_damaged(box: Path, make: Callable[[Path], None]) -> None:
    make(box / ".restart_count")
    (box / ".detection_count").write_text("7\n")
    state, (warning,) = Directory(str(box)).load(NOW).unwrap()
    assert warning == ".restart_count in the state directory cannot be read: counting from 0"
    assert (state.restarts, state.detections) == (0, 7)


def test_names_that_cannot_be_printed_are_not_part_of_the_state(box: Path) -> None:
    (box / "peer_a\n").write_text("1\n")
    (box / "peer_b").write_text("1\n")
    state, _ = Directory(str(box)).load(NOW).unwrap()
    assert list(state.relays) == ["b"]


@pytest.mark.parametrize("name", ["state.json", ".restart_count"])
def test_a_file_that_cannot_be_read_ends_the_run(
    box: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = os.open

    def broken(path: str, flags: int) -> int:
        if os.path.basename(path) == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, flags)

    (box / name).touch()
    monkeypatch.setattr(os, "open", broken)
    assert Directory(str(box)).load(NOW) == Failure(
        f"reading {name} of the state in {box}: Input/output error; "
        "check permissions and disk space, or give --state-dir"
    )


def test_a_directory_that_is_a_file_is_one_line(box: Path) -> None:
    (box / "s").touch()
    where = f"the state in {box}/s: Not a directory; "
    advice = "check permissions and disk space, or give --state-dir"
    store = Directory(f"{box}/s")
    assert store.load(NOW) == Failure(f"reading state.json of {where}{advice}")
    assert statedir.read_all(f"{box}/s", lambda _: True) == Failure(f"reading {where}{advice}")
    assert store.commit(STATE) == Failure(
        CommitError(f"writing {where}{advice}", is_replaced=False)
    )
    assert store.export(STATE) == Failure(f"reading {where}{advice}")


def test_a_state_that_is_too_large_is_reported_as_such(box: Path) -> None:
    (box / "state.json").write_bytes(encode(STATE))
    (box / ".restart_count").write_text("7\n")
    for size in (2**24 + 1, 2**40):
        os.truncate(box / "state.json", size)
        state, (warning,) = Directory(str(box)).load(NOW).unwrap()
        line = "state.json in the state directory is larger than 16777216 bytes: "
        assert warning.startswith(line)
        assert state.restarts == 7
    (box / "state.json").write_bytes(encode(STATE).ljust(2**24))
    assert Directory(str(box)).load(NOW) == Success((STATE, ()))


def test_a_damaged_state_is_reported_with_the_reason(box: Path) -> None:
    (box / "state.json").write_text('{"version":9}')
    _, (warning,) = Directory(str(box)).load(NOW).unwrap()
    assert warning.startswith("state.json in the state directory has version 9, and this tsfc ")


def test_a_number_that_is_too_large_a_file_is_damaged(box: Path) -> None:
    (box / ".restart_count").write_text("7".ljust(2**16))
    assert Directory(str(box)).load(NOW).unwrap()[0].restarts == 7
    (box / ".restart_count").write_text("7".ljust(2**16 + 1))
    _, warnings = Directory(str(box)).load(NOW).unwrap()
    assert warnings == (".restart_count in the state directory cannot be read: counting from 0",)


def _broken(call: str, monkeypatch: pytest.MonkeyPatch, *, at: int) -> list[str]:
    """Let the calls of a function of `os` fail from call `at` on; return their targets."""
    targets: list[str] = []
    real: Callable[[int], None] = getattr(os, call)

    def broken(descriptor: int) -> None:
        targets.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if len(targets) > at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    monkeypatch.setattr(os, call, broken)
    return targets


def test_a_commit_syncs_the_file_and_then_its_directory(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export is written again anyway, so it costs no sync."""
    synced = _broken("fsync", monkeypatch, at=9)
    assert Directory(str(box)).commit(STATE) == Success(None)
    assert synced == [f"{box}/.tmp", str(box)]
    assert Directory(str(box)).export(STATE) == Success(None)
    assert synced == [f"{box}/.tmp", str(box)]


@pytest.mark.parametrize("at", [0, 1])
def test_a_commit_says_whether_the_next_run_reads_it(
    box: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    _broken("fsync", monkeypatch, at=at)
    assert Directory(str(box)).commit(STATE) == Failure(
        CommitError(
            f"writing the state in {box}: Input/output error; "
            "check permissions and disk space, or give --state-dir",
            is_replaced=at == 1,
        )
    )
    assert os.listdir(box) == ["state.json"] * at


def test_a_lock_that_fails_is_one_line(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int, __: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", broken)
    descriptors = os.listdir("/proc/self/fd")
    assert statedir.lock(str(box)) == Failure(
        f"locking the state in {box}: No locks available; "
        "check permissions and disk space, or give --state-dir"
    )
    assert os.listdir("/proc/self/fd") == descriptors


def test_an_export_that_fails_names_the_file(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_, unlink = os.replace, os.unlink

    def broken(*paths: str) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), paths[0], None, *paths[1:])

    def line(name: str) -> Failure[str]:
        return Failure(
            f"exporting {name} from the state in {box}: Input/output error; "
            "check permissions and disk space, or give --state-dir"
        )

    monkeypatch.setattr(os, "replace", broken)
    assert Directory(str(box)).export(STATE) == line(".restart_count")
    monkeypatch.setattr(os, "replace", replace_)
    assert Directory(str(box)).export(STATE) == Success(None)
    (box / "peer_gone").write_text("1\n")

    def broken_for_others(path: str) -> None:
        (unlink if path.endswith(".tmp") else broken)(path)

    monkeypatch.setattr(os, "unlink", broken_for_others)
    assert Directory(str(box)).export(STATE) == line("peer_gone")
