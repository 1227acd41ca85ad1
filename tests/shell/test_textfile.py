"""Metrics files: replaced as a whole, or unchanged after a one-line error."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from support import irregular
from support.irregular import OLD
from support.processes import UNPRIVILEGED, Completed, error_lines, run, tree
from support.statuses import encoded, peer


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
    assert error_lines("exporter", ran) == ["writing to standard output: No space left on device"]
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
