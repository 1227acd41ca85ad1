"""Metrics files: replaced as a whole, or unchanged after a one-line error."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from returns.result import Failure, Result, Success

from support import irregular
from support.irregular import OLD
from support.processes import UNPRIVILEGED, Completed, error_lines, run, tree
from support.statuses import encoded, peer
from tsfc.shell import clocks, textfile


def _exporter(path: str, around: str | None = None) -> Completed:
    return run(
        "exporter",
        "--status-file",
        "-",
        "--now",
        "1",
        "--metrics-path",
        path,
        stdin=encoded(peer("a")),
        around=around,
    )


@pytest.mark.parametrize("make", irregular.EACH_KIND)
def test_only_a_regular_file_is_replaced(box: Path, make: Callable[[Path], None]) -> None:
    path = box / "a.prom"
    make(path)
    before = irregular.remains(box)
    ran = _exporter(str(path))
    assert error_lines("exporter", ran) == [
        (
            f"writing {path}: it is not a regular file; "
            "set --metrics-path to a regular file, or to - for standard output"
        )
    ]
    assert (ran.status, irregular.remains(box)) == (1, before)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param(
            "missing/a.prom", "No such file or directory; create the directory ", id="no directory"
        ),
        pytest.param("file/a.prom", "Not a directory; ", id="a file instead of a directory"),
        pytest.param("missing/", "", id="a missing directory"),
        pytest.param("x" * 255, "File name too long; ", id="a name too long for a temporary file"),
    ],
)
def test_a_path_that_cannot_be_created_is_a_one_line_error(
    box: Path, path: str, error: str
) -> None:
    (box / "file").touch()
    before = tree(box)
    ran = _exporter(f"{box}/{path}")
    (complaint,) = error_lines("exporter", ran)
    assert complaint.startswith(f"writing {box}/{path}: {error}")
    assert "set --metrics-path" in complaint
    assert (ran.status, tree(box)) == (1, before)


def test_an_empty_path_is_a_one_line_error(box: Path) -> None:
    ran = _exporter("", around=f'cd {box}; exec "$@"')
    assert (ran.status, len(error_lines("exporter", ran))) == (1, 1)
    assert tree(box) == {}


def test_a_relative_path_starts_at_the_working_directory(box: Path) -> None:
    assert _exporter("a.prom", around=f'cd {box}; exec "$@"') == (0, "", "")
    assert list(tree(box)) == ["a.prom"]


def test_a_read_only_directory_is_a_one_line_error(box: Path) -> None:
    (box / "out").mkdir()
    (box / "out").chmod(0o500)
    ran = _exporter(str(box / "out" / "a.prom"), around=UNPRIVILEGED)
    (complaint,) = error_lines("exporter", ran)
    assert "Permission denied; run as a user with write access to" in complaint
    assert (ran.status, tree(box)) == (1, {"out": None})


@pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")
def test_a_file_of_another_user_in_a_sticky_directory_is_a_one_line_error(box: Path) -> None:
    """The sticky bit applies to all without CAP_FOWNER, which the units do not have."""
    directory = box / "out"
    directory.mkdir()
    (directory / "a.prom").write_text(OLD)
    os.chown(directory / "a.prom", 61000, 61000)
    os.chown(directory, 61001, 61001)
    directory.chmod(0o1777)
    path = directory / "a.prom"
    ran = _exporter(str(path), around='exec /usr/bin/setpriv --bounding-set=-fowner "$@"')
    assert error_lines("exporter", ran) == [
        (
            f"writing {path}: Operation not permitted; the old file belongs to another user "
            f"and {directory} has the sticky bit: delete the file, or set --metrics-path"
        )
    ]
    assert (ran.status, tree(box)) == (1, {"out": None, "out/a.prom": OLD.encode()})


@pytest.mark.parametrize(
    "blocks", [pytest.param(0, id="nothing is written"), pytest.param(1, id="half is written")]
)
@pytest.mark.parametrize("job", ["exporter", "native-metrics"])
def test_a_full_disk_leaves_the_old_file_and_no_temporary_file(
    box: Path, job: str, blocks: int
) -> None:
    """A limit on the file size imitates a full disk; a block is 512 bytes."""
    path = box / "a.prom"
    path.write_text(OLD)
    metrics = f"# {'x' * 2000}\na 1\n".encode()
    given, stdin = (
        ("--metrics-file", metrics)
        if job == "native-metrics"
        else ("--status-file", encoded(*(peer(f"p{n}") for n in range(9))))
    )
    ran = run(
        job,
        given,
        "-",
        "--metrics-path",
        str(path),
        stdin=stdin,
        around=f'ulimit -f {blocks}; exec "$@"',
    )
    assert error_lines(job, ran) == [
        (
            f"writing {path}: File too large; check {box} and its free space, "
            "or set --metrics-path; the old file is unchanged"
        )
    ]
    assert (ran.status, tree(box)) == (1, {"a.prom": OLD.encode()})


def test_a_full_standard_output_is_a_one_line_error() -> None:
    ran = _exporter("-", around='exec "$@" > /dev/full')
    assert error_lines("exporter", ran) == [
        "writing to standard output: No space left on device; check disk space"
    ]
    assert ran.status == 1


def test_a_closed_pipe_causes_no_traceback() -> None:
    ran = _exporter("-", around='{ "$@"; echo "ended with $?" >&2; } | :')
    assert ran.stderr.splitlines()[-1] in {"ended with 0", "ended with 1"}
    assert "Traceback" not in ran.stderr


def test_an_existing_file_is_replaced_whatever_its_mode_and_links_keep_the_old_one(
    box: Path,
) -> None:
    path, other = box / "a.prom", box / "b.prom"
    path.write_text(OLD)
    path.chmod(0o600)
    os.link(path, other)
    assert _exporter(str(path)) == (0, "", "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert other.read_text() == OLD
    assert path.read_text().startswith("# HELP tailscale_up")


def test_a_planted_link_is_not_written_through(box: Path) -> None:
    """The temporary file's name has the process ID, which others can guess.

    Here, the shell that plants the link becomes the run, so the ID is known.
    """
    (box / "victim").write_text(OLD)
    path = box / "a.prom"
    assert _exporter(
        str(path), around=f'{shutil.which("ln")} -s victim {box}/.a.prom.$$.tmp; exec "$@"'
    ) == (0, "", "")
    assert (box / "victim").read_text() == OLD
    assert sorted(tree(box)) == ["a.prom", "victim"]


def test_only_old_temporary_files_of_the_same_metrics_file_are_removed(box: Path) -> None:
    """A killed run left an old one; another run may be writing a new one."""
    for name in (".a.prom.1.tmp", ".b.prom.1.tmp", ".a.prom.old", "c.prom"):
        (box / name).touch()
        os.utime(box / name, (0, 0))
    (box / ".a.prom.2.tmp").touch()
    (box / ".a.prom.3.tmp").touch()
    os.utime(box / ".a.prom.3.tmp", (4_102_444_800, 4_102_444_800))  # 2100: a wrong clock
    (box / ".a.prom.4.tmp").mkdir()
    os.utime(box / ".a.prom.4.tmp", (0, 0))
    assert _exporter(str(box / "a.prom")) == (0, "", "")
    assert {path.name for path in box.iterdir()} == {
        "a.prom",
        ".a.prom.2.tmp",
        ".a.prom.4.tmp",
        ".b.prom.1.tmp",
        ".a.prom.old",
        "c.prom",
    }


def _same_directory_error(path: Path, why: str) -> Failure[str]:
    return Failure(f"writing {path}: {why}, or set --metrics-path")


def test_a_written_file_is_what_the_next_run_reads(box: Path) -> None:
    path = str(box / "a.prom")
    assert textfile.read_previous(path) == ""
    assert textfile.write(path, "ä 1\n") == Success(None)
    assert textfile.read_previous(path) == "ä 1\n"
    assert stat.S_IMODE((box / "a.prom").stat().st_mode) == 0o644


def test_nothing_is_read_back_from_standard_output_and_from_what_is_no_text(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(box)
    (box / "-").write_text("a 1\n")
    (box / "a.prom").write_bytes(b"\xff\n")
    assert textfile.read_previous("-") == ""
    assert textfile.read_previous(None) == ""
    assert textfile.read_previous("a.prom") == ""


def test_a_file_larger_than_the_limit_is_not_read_back(box: Path) -> None:
    with open(box / "a.prom", "wb") as file:
        file.truncate(textfile.SIZE_LIMIT)
    assert len(textfile.read_previous(str(box / "a.prom"))) == 64 * 2**20
    os.truncate(box / "a.prom", textfile.SIZE_LIMIT + 1)
    assert textfile.read_previous(str(box / "a.prom")) == ""


def test_the_text_is_printed_if_the_path_is_a_dash(
    box: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(box)
    assert textfile.write("-", "ä 1\n") == Success(None)
    assert capfd.readouterr() == ("ä 1\n", "")
    assert tree(box) == {}


def test_the_snapshot_is_beside_the_metrics() -> None:
    assert textfile.snapshot_path("/a/x.prom") == "/a/x.json"
    assert textfile.snapshot_path("/a/x.prom.prom") == "/a/x.prom.json"
    assert textfile.snapshot_path("/a/x.txt") == "/a/x.txt.json"


def test_an_error_says_what_to_do(box: Path) -> None:
    (box / "file").touch()
    irregular.fifo(box / "a.prom")
    (box / "b").mkdir()
    assert textfile.write(f"{box}/none/a.prom", "") == _same_directory_error(
        box / "none/a.prom", f"No such file or directory; create the directory {box}/none"
    )
    assert textfile.write(f"{box}/a.prom", "") == Failure(
        f"writing {box}/a.prom: it is not a regular file; "
        "set --metrics-path to a regular file, or to - for standard output"
    )
    assert textfile.write(f"{box}/file/a.prom", "") == Failure(
        f"writing {box}/file/a.prom: Not a directory; check {box}/file and its free space, "
        "or set --metrics-path; the old file is unchanged"
    )


def test_an_error_of_permissions_says_what_to_do(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sticky bit explains EPERM, not EACCES, and only if it is set."""

    def broken(number: int) -> Result[None, str]:
        def refuse(*_: str) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "replace", refuse)
        return textfile.write(f"{box}/a.prom", "")

    rights = f"run as a user with write access to {box}"
    sticky = f"the old file belongs to another user and {box} has the sticky bit: delete the file"
    not_permitted, denied = "Operation not permitted; ", "Permission denied; "
    path = box / "a.prom"
    assert broken(errno.EPERM) == _same_directory_error(path, not_permitted + rights)
    box.chmod(0o1777)
    assert broken(errno.EPERM) == _same_directory_error(path, not_permitted + sticky)
    assert broken(errno.EACCES) == _same_directory_error(path, denied + rights)
    monkeypatch.undo()
    box.chmod(0o700)


def test_a_directory_that_disappears_before_its_mode_is_read_is_not_sticky(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (box / "d").mkdir(mode=0o1777)

    def remove_and_refuse(*_: str) -> None:
        shutil.rmtree(box / "d")
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "replace", remove_and_refuse)
    assert textfile.write(f"{box}/d/a.prom", "") == _same_directory_error(
        box / "d/a.prom", f"Operation not permitted; run as a user with write access to {box}/d"
    )
    monkeypatch.undo()


def test_an_error_of_standard_output_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int, __: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    assert textfile.write("-", "a 1\n") == Failure(
        "writing to standard output: No space left on device; check disk space"
    )


def test_a_directory_that_cannot_be_listed_is_no_error(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metrics are written; the removal of abandoned files can wait."""

    def broken(_: str) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "scandir", broken)
    assert textfile.write(str(box / "a.prom"), "a 1\n") == Success(None)
    monkeypatch.undo()


def test_another_file_in_the_directory_stays_whatever_its_age(box: Path) -> None:
    for name in (".b.prom.1.tmp", ".a.prom.old", "c.tmp"):
        (box / name).touch()
        _age(box / name, 10_000)
    assert textfile.write(str(box / "a.prom"), "a 1\n") == Success(None)
    assert sorted(tree(box)) == [".a.prom.old", ".b.prom.1.tmp", "a.prom", "c.tmp"]


def _age(path: Path, seconds: float) -> None:
    at = clocks.unix_time(None) - seconds
    os.utime(path, (at, at), follow_symlinks=False)


def test_a_temporary_file_is_abandoned_after_ten_minutes(box: Path) -> None:
    """Before or after now: the clock may have been wrong when it was made."""
    ages = {1: 570, 2: 630, 3: -570, 4: -630}
    for number, seconds in ages.items():
        (box / f".a.prom.{number}.tmp").touch()
        _age(box / f".a.prom.{number}.tmp", seconds)
    assert textfile.write(str(box / "a.prom"), "a 1\n") == Success(None)
    assert sorted(tree(box)) == [".a.prom.1.tmp", ".a.prom.3.tmp", "a.prom"]


def test_the_age_of_a_link_at_a_temporary_path_is_its_own(box: Path) -> None:
    """Otherwise, a link to an old file would be taken for old."""
    (box / "new").touch()
    (box / "old").touch()
    _age(box / "old", 10_000)
    for name, target, seconds in ((".a.prom.1.tmp", "old", 0), (".a.prom.2.tmp", "new", 10_000)):
        (box / name).symlink_to(target)
        _age(box / name, seconds)
    assert textfile.write(str(box / "a.prom"), "a 1\n") == Success(None)
    assert sorted(tree(box)) == [".a.prom.1.tmp", "a.prom", "new", "old"]


def test_a_directory_with_the_name_of_a_temporary_file_does_not_end_the_removal(box: Path) -> None:
    for number in range(20):
        path = box / f".a.prom.{number}.tmp"
        if number % 2:
            path.mkdir()
        else:
            path.touch()
        _age(path, 10_000)
    assert textfile.write(str(box / "a.prom"), "a 1\n") == Success(None)
    assert len(os.listdir(box)) == 11
