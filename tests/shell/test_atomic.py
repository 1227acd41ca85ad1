"""Files that are replaced as a whole: their content, mode, and what is left behind."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from support import irregular
from tsfc.shell.atomic import (
    NotRegularError,
    atomic_write,
    require_replaceable,
    temporary_path,
    write_all,
    write_new,
)


def _write(path: Path, temporary: Path, data: bytes = b"new") -> None:
    with atomic_write(str(path), str(temporary), 0o644) as descriptor:
        write_all(descriptor, data)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o777])
@pytest.mark.parametrize("is_there", [False, True])
def test_the_file_has_its_content_and_mode_whatever_the_umask(
    box: Path, umask: int, *, is_there: bool
) -> None:
    path = box / "a"
    if is_there:
        path.write_text("old")
        path.chmod(0o600)
    before = os.umask(umask)
    try:
        _write(path, box / "t")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(box) == ["a"]


def test_the_temporary_file_is_never_readable_by_more_than_the_mode_says(box: Path) -> None:
    """It is made with the mode, not opened to all until its mode is set."""
    before = os.umask(0)
    try:
        with atomic_write(str(box / "a"), str(box / "t"), 0o600) as descriptor:
            assert stat.S_IMODE(os.fstat(descriptor).st_mode) == 0o600
    finally:
        os.umask(before)


def test_readers_see_the_old_file_until_the_block_ends(box: Path) -> None:
    path = box / "a"
    path.write_text("old")
    with atomic_write(str(path), str(box / "t"), 0o644) as descriptor:
        write_all(descriptor, b"new")
        assert path.read_text() == "old"
        assert not os.get_inheritable(descriptor)
    assert path.read_text() == "new"


@pytest.mark.parametrize("make", irregular.LINKS)
def test_a_link_at_the_temporary_path_is_replaced_not_followed(
    box: Path, make: Callable[[Path], None]
) -> None:
    make(box / "t")
    _write(box / "a", box / "t")
    assert (box / "a").read_bytes() == b"new"
    assert not (box / "a").is_symlink()
    assert not os.path.lexists(box / "t")
    if make is irregular.link:
        assert (box / "target").read_text() == irregular.OLD


def test_a_longer_leftover_at_the_temporary_path_is_not_part_of_the_file(box: Path) -> None:
    (box / "t").write_text("left by a run that was killed")
    _write(box / "a", box / "t")
    assert (box / "a").read_bytes() == b"new"


def test_a_file_that_another_process_makes_at_the_temporary_path_is_not_used(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may be faster than the run, between its removal and its creation."""
    remove = os.unlink

    def remove_and_plant(path: str) -> None:
        remove(path)
        Path(path).write_text("theirs")

    (box / "t").touch()
    monkeypatch.setattr(os, "unlink", remove_and_plant)
    with pytest.raises(FileExistsError):
        _write(box / "a", box / "t")
    assert (box / "t").read_text() == "theirs"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_block_leaves_the_old_file_and_nothing_else(
    box: Path, error: type[BaseException]
) -> None:
    path = box / "a"
    path.write_text("old")

    def write() -> None:
        with atomic_write(str(path), str(box / "t"), 0o644) as descriptor:
            write_all(descriptor, b"half")
            raise error

    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(error):
        write()
    assert (path.read_text(), os.listdir(box)) == ("old", ["a"])
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_failed_rename_leaves_no_temporary_file(box: Path) -> None:
    def write() -> None:
        with atomic_write(str(box / "a"), str(box / "t"), 0o644):
            (box / "a").mkdir()

    with pytest.raises(IsADirectoryError):
        write()
    assert os.listdir(box) == ["a"]


def test_the_error_of_the_block_counts_if_the_temporary_file_is_gone(box: Path) -> None:
    def write() -> None:
        with atomic_write(str(box / "a"), str(box / "t"), 0o644):
            (box / "t").unlink()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()


@pytest.mark.parametrize("make", irregular.EACH_KIND)
def test_only_regular_files_and_nothing_are_replaceable(
    box: Path, make: Callable[[Path], None]
) -> None:
    make(box / "a")
    before = irregular.remains(box)
    with pytest.raises(NotRegularError) as refused:
        _write(box / "a", box / "t")
    assert refused.value.filename == str(box / "a")
    assert refused.value.strerror == "it is not a regular file"
    assert refused.value.errno == errno.EINVAL
    assert irregular.remains(box) == before
    require_replaceable(str(box / "nothing"))


def test_the_temporary_path_is_hidden_in_the_same_directory(box: Path) -> None:
    assert temporary_path(f"{box}/x.prom") == f"{box}/.x.prom.{os.getpid()}.tmp"


def test_a_relative_path_has_an_absolute_temporary_path(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(box)
    assert temporary_path("x.prom") == f"{box}/.x.prom.{os.getpid()}.tmp"


def test_a_new_file_has_its_mode_and_leaves_no_temporary_file(box: Path) -> None:
    path = box / "a"
    write_new(str(path), b"new", 0o600)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert list(box.iterdir()) == [path]


def test_a_new_file_never_replaces_one(box: Path) -> None:
    path = box / "a"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        write_new(str(path), b"new", 0o600)
    assert path.read_text() == "mine"
    assert list(box.iterdir()) == [path]


def test_all_is_written_although_the_kernel_takes_it_in_parts(box: Path) -> None:
    """At a limit of the file size, it takes what fits, and refuses the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    descriptor = os.open(box / "a", os.O_WRONLY | os.O_CREAT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_all(descriptor, b"123456")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        os.close(descriptor)
    assert (box / "a").read_bytes() == b"1234"
