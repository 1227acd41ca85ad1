"""The state directory: its lock, its durable commits, and what is in the way."""

from __future__ import annotations

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
from tsfc.shell.statedir import ASIDE, CommitError, Directory, Irregular, Locked, ReadOnly

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


@pytest.mark.parametrize("make", [irregular.link_to_zeros, *irregular.NO_FILES])
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
    assert statedir.read(str(box), "state.json") == Success(Irregular())


def test_a_number_that_is_not_a_file_is_damaged(box: Path) -> None:
    os.mkfifo(box / ".restart_count")
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
def test_a_file_that_cannot_be_read_ends_the_run(box: Path, name: str) -> None:
    """A link that leads to itself cannot be read, even by root."""
    (box / name).symlink_to(name)
    assert Directory(str(box)).load(NOW) == Failure(
        f"reading {name} of the state in {box}: Too many levels of symbolic links; "
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
