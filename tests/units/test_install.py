"""Runs `tsfc units` as a process on a temporary file system."""

from __future__ import annotations

import argparse
import os
import re
import stat
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tsfc
from support.processes import UNPRIVILEGED, Completed, error_lines, run
from tsfc.cli.units import job_settings
from tsfc.units import install as installation
from tsfc.units.install import HEADER, MARK

JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")
"Jobs that are installed if none is named."
WITH_TMPFILES = ("exporter", "native-metrics", "watchdog")
"Jobs whose default output is in a directory of tmpfiles."
PACKAGE = "/opt/tsfc"
UNITS, TMPFILES = "etc/systemd/system", "etc/tmpfiles.d"
TIMERS, SOCKETS = f"{UNITS}/timers.target.wants", f"{UNITS}/sockets.target.wants"
DIRECTORIES = (TIMERS, SOCKETS, TMPFILES)
HELPERS = ("tailscale-watchdog-restart.socket", "tailscale-watchdog-restart@.service")
UNWRITABLE = (
    "installing the units in {}: {}; "
    "run as root, check disk space, or set --root to a directory that you may write to"
)
WITHOUT_KEEPALIVE = (
    "the watchdog is installed without keepalive: idle peers fall back to a relay, and each can "
    "cause a restart; install keepalive, too"
)
FOREIGN = "; check it and move it away. Nothing was changed"


@pytest.fixture
def root(box: Path) -> Path:
    """Root of a file system with the empty directories of systemd."""
    root = box / "root"
    for directory in DIRECTORIES:
        (root / directory).mkdir(parents=True)
    return root


def units(act: str, root: Path, *arguments: str, around: str | None = None) -> Completed:
    return run(
        "units", f"--{act}", "--root", str(root), "--package", PACKAGE, *arguments, around=around
    )


def install(root: Path, *arguments: str) -> Completed:
    """Install, which must succeed; a missing keepalive is the only possible warning."""
    ran = units("install", root, *arguments)
    assert ran.status == 0
    assert set(error_lines("units", ran)) <= {WITHOUT_KEEPALIVE}
    return ran


def paths(*jobs: str) -> list[str]:
    """Paths of the installed files of jobs, with the default options."""
    names = [f"tailscale-{job}.{kind}" for job in jobs for kind in ("service", "timer")]
    helpers = HELPERS if "watchdog" in jobs else ()
    return [
        *(f"{UNITS}/{name}" for name in (*names, *helpers)),
        *(f"{TMPFILES}/tailscale-{job}.conf" for job in jobs if job in WITH_TMPFILES),
    ]


def links(*jobs: str) -> dict[str, str]:
    """Links that enable the units of jobs, and their targets."""
    timers = {f"{TIMERS}/tailscale-{job}.timer": f"/{UNITS}/tailscale-{job}.timer" for job in jobs}
    return timers | (
        {f"{SOCKETS}/{HELPERS[0]}": f"/{UNITS}/{HELPERS[0]}"} if "watchdog" in jobs else {}
    )


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Mode of each path below a directory, and the text or the target of a link."""

    def entry(path: Path) -> tuple[int, str]:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return mode, str(path.readlink())
        return mode, path.read_bytes().decode(errors="surrogateescape") if stat.S_ISREG(
            mode
        ) else ""

    return {str(path.relative_to(root)): entry(path) for path in sorted(root.rglob("*"))}


@contextmanager
def read_only(*directories: Path) -> Generator[None]:
    """Make directories read-only while the block runs."""
    modes = {directory: stat.S_IMODE(directory.stat().st_mode) for directory in directories}
    for directory in directories:
        directory.chmod(0o555)
    try:
        yield
    finally:
        for directory, mode in modes.items():
            directory.chmod(mode)


def files(root: Path) -> dict[str, tuple[int, str]]:
    """Files and links below a directory. An installation may leave new directories."""
    return {path: entry for path, entry in tree(root).items() if not stat.S_ISDIR(entry[0])}


def test_print_shows_the_files_that_install_writes(root: Path) -> None:
    """Each under its path, without the header."""
    options = (
        "--keepalive-metrics-path",
        "/srv/m/pings.prom",
        "--watchdog-exclude-peers",
        "a %n\n$b",
        "--exporter-args",
        "--label 'a=# /etc/x'",
    )
    printed = units("print", root, *options)
    assert tree(root).keys() == {UNITS, "etc", "etc/systemd", *DIRECTORIES}
    install(root, *options)
    _, *parts = re.split(r"(?m)^# /(etc/.*)\n", printed.stdout)
    written = {path: text for path, (_, text) in files(root).items() if path not in links(*JOBS)}
    assert (printed.status, printed.stderr) == (0, "")
    assert {
        path: f"{HEADER}{text.rstrip()}\n"
        for path, text in zip(parts[::2], parts[1::2], strict=True)
    } == {path: re.sub("# Options: .*\n", "", text) for path, text in written.items()}
    assert set(written) == {*paths(*JOBS), f"{TMPFILES}/tailscale-keepalive.conf"}


def test_what_is_printed_about_paths_and_kept_options_is_printable(root: Path) -> None:
    elsewhere = root / "a\n\x1b[31mb"
    elsewhere.mkdir()
    install(elsewhere, "--watchdog-exclude-peers", "nas\n\u202e")
    ran = install(elsewhere)
    lines = ran.stdout.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert {line.split()[0] for line in lines} == {"kept", "wrote", "enabled", "started"}


@pytest.mark.parametrize("around", ['umask 0; exec "$@"', 'umask 077; exec "$@"'])
def test_all_users_may_read_the_files_and_only_the_owner_may_write_them(
    root: Path, around: str
) -> None:
    """With any umask. Units are enabled by the links that systemctl would make."""
    ran = units("install", root, around=around)
    assert ran == (
        0,
        "".join(f"wrote {root}/{path}\n" for path in installed_order(ran))
        + "".join(f"enabled {os.path.basename(path)}\n" for path in links(*JOBS))
        + f"started nothing, because {root} is not the running system; next: boot it\n",
        "",
    )
    written = files(root)
    assert {
        path: target for path, (mode, target) in written.items() if stat.S_ISLNK(mode)
    } == links(*JOBS)
    assert {
        path: oct(stat.S_IMODE(mode)) for path, (mode, _) in written.items() if stat.S_ISREG(mode)
    } == dict.fromkeys(paths(*JOBS), "0o644")


def installed_order(ran: Completed) -> list[str]:
    """Files in the order in which a run reported them; must be the default ones."""
    written = [
        line.partition("/root/")[2] for line in ran.stdout.splitlines() if line.startswith("wrote ")
    ]
    assert sorted(written) == sorted(paths(*JOBS))
    return written


def test_a_second_installation_changes_nothing(root: Path) -> None:
    install(root)
    before = tree(root)
    install(root)
    assert tree(root) == before


def test_an_installation_replaces_the_units_of_its_jobs_only(root: Path) -> None:
    install(root)
    before = tree(root)
    install(root, "exporter", "--exporter-interval", "7min")
    after = tree(root)
    assert {path for path in after if after[path] != before.get(path)} == {
        f"{UNITS}/tailscale-exporter.service",
        f"{UNITS}/tailscale-exporter.timer",
    }
    assert "OnUnitActiveSec=7min\n" in after[f"{UNITS}/tailscale-exporter.timer"][1]
    assert before.keys() == after.keys()


@pytest.mark.parametrize(
    "jobs",
    [(job,) for job in (*JOBS, "capture")] + [("watchdog", "exporter"), ("keepalive", "keepalive")],
)
def test_only_the_units_of_the_named_jobs_are_installed_and_removed(
    root: Path, jobs: tuple[str, ...]
) -> None:
    install(root, *jobs)
    assert set(files(root)) == {*paths(*jobs), *links(*jobs)}
    install(root, *JOBS)
    assert units("uninstall", root, *jobs).status == 0
    others = set(JOBS) - set(jobs)
    assert set(files(root)) == {*paths(*others), *links(*others)}


def test_a_capture_is_installed_only_if_named_and_removed_with_all_jobs(root: Path) -> None:
    """It stores names of people and machines, so it is opt-in."""
    install(root)
    assert set(files(root)) == {*paths(*JOBS), *links(*JOBS)}
    install(root, "capture")
    assert set(files(root)) == {*paths(*JOBS, "capture"), *links(*JOBS, "capture")}
    assert units("uninstall", root).status == 0
    assert files(root) == {}


def test_the_group_of_the_own_directory_is_installed_and_removed(root: Path) -> None:
    """For the jobs that write there."""
    install(root, "exporter", "keepalive", "--exporter-metrics-path=/var/lib/tsfc/a.prom")
    path = root / "etc/sysusers.d/tailscale-exporter.conf"
    assert path.read_text() == f"{HEADER}g tsfc - -\n"
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    assert units("uninstall", root).status == 0
    assert files(root) == {}


OTHER_PORT = (
    *("watchdog", "--watchdog-policy=guarded"),
    "--watchdog-remedies=restart,other-port",
)


def drop_ins(root: Path) -> list[str]:
    """Names of the drop-ins, each with its directory."""
    return sorted(
        f"{path.parent.name}/{path.name}" for path in (root / UNITS).glob("*.service.d/*.conf")
    )


def test_the_drop_in_of_another_port_is_installed_and_removed(root: Path) -> None:
    install(root, *OTHER_PORT)
    name = "tailscaled.service.d/tailscale-watchdog.conf"
    text = (root / UNITS / name).read_text()
    assert text.startswith(HEADER)
    assert text.endswith("\nEnvironmentFile=-/run/tailscale-watchdog-restart/port.env\n")
    install(root)
    assert drop_ins(root) == [name]
    assert units("uninstall", root, "watchdog").status == 0
    assert (drop_ins(root), files(root)) == ([], {})


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (["--unset=watchdog-remedies"], []),
        (["--watchdog-unit=b.service"], ["b.service.d/tailscale-watchdog.conf"]),
    ],
)
def test_a_drop_in_that_is_not_needed_any_more_is_removed(
    root: Path, change: list[str], left: list[str]
) -> None:
    install(root, *OTHER_PORT)
    ran = install(root, *change)
    path = root / UNITS / "tailscaled.service.d/tailscale-watchdog.conf"
    assert f"removed {path}\n" in ran.stdout
    assert drop_ins(root) == left


def test_drop_ins_of_others_stay(root: Path) -> None:
    """Those of another author, of another instance, and of a host without the watchdog."""
    instance = ("--instance=work", "--socket=/run/tailscale-work/s", "--watchdog-unit=b.service")
    install(root, *OTHER_PORT, *instance)
    foreign = root / UNITS / "c.service.d/tailscale-watchdog.conf"
    foreign.parent.mkdir()
    foreign.write_text("[Service]\n")
    install(root, *OTHER_PORT)
    install(root, "watchdog", "--unset=watchdog-remedies")
    assert units("uninstall", root).status == 0
    assert drop_ins(root) == [
        "b.service.d/tailscale-watchdog-work.conf",
        "c.service.d/tailscale-watchdog.conf",
    ]
    work = root / UNITS / "b.service.d/tailscale-watchdog-work.conf"
    assert "-/run/tailscale-watchdog-restart-work/port.env\n" in work.read_text()


def test_a_foreign_drop_in_is_not_replaced(root: Path) -> None:
    path = root / UNITS / "tailscaled.service.d/tailscale-watchdog.conf"
    path.parent.mkdir()
    path.write_text("[Service]\n")
    ran = units("install", root, *OTHER_PORT)
    assert error_lines("units", ran) == [
        f"installing {path}: it exists, and tsfc did not write it{FOREIGN}"
    ]
    assert (ran.status, path.read_text()) == (1, "[Service]\n")


def _a_file_of_another_author(path: Path) -> None:
    path.write_text("[Service]\nExecStart=/bin/true\n")


def _an_empty_file(path: Path) -> None:
    path.write_text("")


def _a_file_with_an_incomplete_mark(path: Path) -> None:
    path.write_text(MARK[:-1])


def _a_mask(path: Path) -> None:
    path.symlink_to("/dev/null")


def _a_link_to_an_installed_file(path: Path) -> None:
    target = path.parents[3] / "elsewhere"
    target.write_text(f"{HEADER}[Unit]\n")
    path.symlink_to(target)


def _a_dangling_link(path: Path) -> None:
    path.symlink_to("/nonexistent/a")


def _a_directory(path: Path) -> None:
    path.mkdir()


FOREIGN_FILES = [
    _a_file_of_another_author,
    _an_empty_file,
    _a_file_with_an_incomplete_mark,
    _a_mask,
    _a_link_to_an_installed_file,
    _a_dangling_link,
    _a_directory,
]


@pytest.mark.parametrize("name", ["tailscale-watchdog.service", HELPERS[1]])
@pytest.mark.parametrize("make", FOREIGN_FILES)
def test_a_foreign_unit_is_neither_replaced_nor_removed(
    root: Path, make: Callable[[Path], None], name: str
) -> None:
    """And nothing else is written."""
    path = root / UNITS / name
    make(path)
    before = tree(root)
    ran = units("install", root)
    assert error_lines("units", ran) == [
        f"installing {path}: it exists, and tsfc did not write it{FOREIGN}"
    ]
    assert (ran.status, ran.stdout, tree(root)) == (1, "", before)
    ran = units("uninstall", root)
    assert error_lines("units", ran) == [
        (
            f"removing {path}: tsfc did not write it; "
            "check it and remove it by hand. Nothing was changed"
        )
    ]
    assert (ran.status, ran.stdout, tree(root)) == (1, "", before)


@pytest.mark.parametrize(
    "place",
    [
        f"{TMPFILES}/tailscale-exporter.conf",
        f"{TIMERS}/tailscale-exporter.timer",
        f"{SOCKETS}/{HELPERS[0]}",
    ],
)
@pytest.mark.parametrize(
    "make", [_a_file_of_another_author, _a_mask, _a_dangling_link, _a_directory]
)
def test_a_foreign_tmpfiles_entry_or_link_is_not_replaced(
    root: Path, make: Callable[[Path], None], place: str
) -> None:
    make(root / place)
    before = tree(root)
    ran = units("install", root)
    assert error_lines("units", ran) == [
        f"installing {root / place}: it exists, and tsfc did not write it{FOREIGN}"
    ]
    assert (ran.status, ran.stdout, tree(root)) == (1, "", before)


@pytest.mark.parametrize("place", [UNITS, TMPFILES, TIMERS, SOCKETS])
def test_a_file_in_place_of_a_directory_is_reported_in_one_line(box: Path, place: str) -> None:
    path = box / "root" / place
    path.parent.mkdir(parents=True)
    path.write_text("")
    before = files(box)
    ran = units("install", box / "root")
    assert len(error_lines("units", ran)) == 1
    assert (ran.status, ran.stdout, files(box)) == (1, "", before)


@pytest.mark.parametrize("is_installed", [False, True])
def test_a_full_disk_is_reported_in_one_line_and_changes_nothing(
    root: Path, *, is_installed: bool
) -> None:
    """A process that may only write empty files stands for a full disk."""
    if is_installed:
        install(root)
    before = tree(root)
    ran = units("install", root, "--exporter-interval", "7min", around='ulimit -f 0; exec "$@"')
    assert error_lines("units", ran) == [UNWRITABLE.format(root / UNITS, "File too large")]
    assert (ran.status, ran.stdout, tree(root)) == (1, "", before)


def test_a_disk_that_fills_up_is_reported_in_one_line_and_changes_nothing(root: Path) -> None:
    """There is space for the first files, but not for the longest one."""
    install(root)
    before = tree(root)
    sizes = [len(text) for _, text in files(root).values()]
    assert min(sizes) < 1024 < max(sizes)
    ran = units("install", root, "--exporter-interval", "7min", around='ulimit -f 2; exec "$@"')
    assert error_lines("units", ran) == [UNWRITABLE.format(root / UNITS, "File too large")]
    assert (ran.status, ran.stdout, tree(root)) == (1, "", before)


@pytest.mark.parametrize("directory", [".", UNITS, TMPFILES, TIMERS, SOCKETS])
def test_a_read_only_directory_is_reported_in_one_line_and_changes_nothing(
    root: Path, directory: str
) -> None:
    """All files are written or none, even if only the last directory is read-only."""
    if directory == ".":
        (root / TMPFILES).rmdir()
        (root / "etc").rename(root.parent / "etc")
    before = tree(root)
    with read_only(root / directory):
        ran = units("install", root, around=UNPRIVILEGED)
    (complaint,) = error_lines("units", ran)
    assert "Permission denied" in complaint
    assert complaint.endswith(UNWRITABLE.partition("; ")[2])
    assert (ran.status, ran.stdout) == (1, "")
    assert tree(root) == before


def test_uninstall_removes_only_installed_files(root: Path) -> None:
    """It names the metrics files that exist, which stay, as do drop-ins and the state."""
    others = {
        f"{UNITS}/other.service": "[Unit]\n",
        f"{UNITS}/tailscale-other.timer": HEADER,
        f"{TMPFILES}/alloy.conf": "d /a\n",
    }
    for path, text in others.items():
        (root / path).write_text(text)
    drop_in = root / UNITS / "tailscale-exporter.service.d" / "a.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\n")
    metrics_paths = ("/srv/m/w.prom", "/var/lib/alloy/tailscale-peers.prom")
    for path in metrics_paths:
        metrics = root / path.removeprefix("/")
        metrics.parent.mkdir(parents=True)
        metrics.write_text("tailscale_up 1\n")
    before = tree(root)
    install(
        root,
        "--watchdog-metrics-path",
        "/srv/m/w.prom",
        "--keepalive-metrics-path",
        "/srv/m/k.prom",
    )
    ran = units("uninstall", root)
    assert (ran.status, ran.stderr, tree(root)) == (0, "", before)
    removed = {
        line.removeprefix(f"removed {root}/")
        for line in ran.stdout.splitlines()
        if line.startswith("removed ")
    }
    assert removed == {*paths(*JOBS), *links(*JOBS), f"{TMPFILES}/tailscale-keepalive.conf"}
    kept = [line for line in ran.stdout.splitlines() if not line.startswith("removed ")]
    assert kept == [
        f"kept {root}{path}; delete it, or Prometheus keeps scraping stale values"
        for path in metrics_paths
    ]


def test_uninstall_ignores_the_other_options(root: Path) -> None:
    """It would remove the same files with any options and any package."""
    install(root)
    clash = ("--exporter-metrics-path=/a/b.prom", "--watchdog-metrics-path=/a/b.prom")
    assert run("units", "--uninstall", "--root", str(root), *clash).status == 0
    assert files(root) == {}


def test_uninstall_keeps_no_metrics_of_a_job_without_metrics(root: Path) -> None:
    install(root, "keepalive")
    ran = units("uninstall", root, "keepalive")
    assert ran.status == 0
    assert "kept" not in ran.stdout


def test_uninstall_without_an_installation_removes_nothing(root: Path) -> None:
    assert units("uninstall", root) == (0, "there is nothing to remove\n", "")


def test_a_link_to_another_unit_is_not_removed(root: Path) -> None:
    install(root, "exporter")
    link = root / TIMERS / "tailscale-exporter.timer"
    link.unlink()
    link.symlink_to("/lib/systemd/system/tailscale-exporter.timer")
    assert units("uninstall", root).status == 0
    assert set(files(root)) == set(links("exporter"))


def test_a_partial_installation_is_removed(root: Path) -> None:
    """Whether its files or its links are missing."""
    install(root)
    for path in paths("exporter"):
        (root / path).unlink()
    assert units("uninstall", root, "exporter").status == 0
    assert set(files(root)) == {*paths(*JOBS[1:]), *links(*JOBS[1:])}
    for path in links("native-metrics"):
        (root / path).unlink()
    assert units("uninstall", root).status == 0
    assert files(root) == {}


def test_a_damaged_unit_is_removed(root: Path) -> None:
    install(root)
    with (root / UNITS / "tailscale-exporter.timer").open("ab") as file:
        file.write(b"\xff\0\n")
    ran = units("uninstall", root)
    assert (ran.status, ran.stderr, files(root)) == (0, "", {})


def test_uninstall_without_permission_is_reported_in_one_line_and_changes_nothing(
    root: Path,
) -> None:
    install(root)
    before = tree(root)
    with read_only(*(root / directory for directory in (*DIRECTORIES, UNITS))):
        ran = units("uninstall", root, around=UNPRIVILEGED)
    (complaint,) = error_lines("units", ran)
    assert re.fullmatch(f"removing {root}/etc/.*: Permission denied; run as root", complaint)
    assert (ran.status, ran.stdout, tree(root)) == (1, "", before)


def test_the_root_may_be_relative_and_empty(box: Path, root: Path) -> None:
    """As when building an image for another machine."""
    install(root)
    within = f'cd {box}; exec "$@"'
    (box / "made").mkdir()
    ran = units("install", Path("made"), around=within)
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"wrote made/{UNITS}/tailscale-exporter.service\n")
    assert ran.stdout.endswith(
        "started nothing, because made is not the running system; next: boot it\n"
    )
    assert files(box / "made") == files(root)
    assert units("uninstall", Path("made"), around=within).status == 0
    assert files(box / "made") == {}


@pytest.mark.parametrize("action", ["print", "install", "uninstall"])
def test_a_root_that_is_not_there_is_refused(box: Path, action: str) -> None:
    """A typo would otherwise create a tree that nobody reads."""
    ran = units(action, box / "nonexistent")
    assert (ran.status, ran.stdout) == (2, "")
    assert "nonexistent' is not a directory; create it first" in error_lines("units", ran)[0]
    assert not (box / "nonexistent").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ["--watchdog-args=--polcy guarded"],
            "would not accept its arguments: unrecognized arguments: --polcy guarded; see `tsfc w",
        ),
        (["--keepalive-args=--count 0"], "keepalive would not accept its arguments: argument --c"),
        (["--exporter-args=--help"], "--help is not an option of a unit"),
        (["--exporter-args='"], 'argument --exporter-args: "\'" are not arguments as in a shell'),
        (["--watchdog-args=--budget 3"], "--budget needs --policy guarded"),
        (["capture", "--capture-args=--keep x"], "capture would not accept its arguments"),
        (["--keepalive-exclude-peers=-x"], "argument --exclude-peer: expected one argument"),
        (
            ["--agent", "--exporter-args=--now 5"],
            "exporter would not accept its arguments: --now is for a single run, not for the agent",
        ),
    ],
)
def test_arguments_that_a_job_would_refuse_are_refused(
    root: Path, arguments: list[str], error: str
) -> None:
    """In one line and with nothing changed, instead of a unit that fails at night."""
    before = tree(root)
    ran = units("install", root, *arguments)
    assert (ran.status, ran.stdout, tree(root)) == (2, "", before)
    assert error in error_lines("units", ran)[0]


def test_metrics_files_that_no_unit_writes_any_more_are_named(root: Path) -> None:
    directory = root / "var/lib/alloy"
    directory.mkdir(parents=True)
    for name in ("peers", "native", "agent"):
        (directory / f"tailscale-{name}.prom").write_text("tailscale_up 1\n")

    def kept(*arguments: str) -> list[str]:
        lines = install(root, *arguments).stdout.splitlines()
        return [line for line in lines if line.endswith("keeps scraping stale values")]

    def line(name: str) -> str:
        path = directory / f"tailscale-{name}.prom"
        return f"kept {path}; delete it, or Prometheus keeps scraping stale values"

    assert kept("--agent") == []
    assert kept() == []
    assert kept("--unset=agent") == [line("agent")]
    assert kept("--exporter-metrics-path=/srv/m/peers.prom") == [line("peers")]
    assert kept("--metrics-dir=/srv/m") == [line("native")]


def test_all_metrics_files_move_to_a_directory_at_once(root: Path) -> None:
    install(root, "--metrics-dir=/srv/m", "--exporter-metrics-path=/srv/own/e.prom")
    text = "".join(text for _, text in files(root).values())
    found = set(re.findall(r"--metrics-path\" \"([^\"]+)", text))
    assert found == {
        "/srv/own/e.prom",
        "/srv/m/tailscale-native.prom",
        "/srv/m/tailscale-watchdog.prom",
    }


def test_an_installation_ends_with_the_next_command() -> None:
    settings = [
        job_settings(argparse.Namespace(**options), "watchdog", ())
        for options in (
            {},
            {"metrics_dir": "/srv/m"},
            {"socket": "/run/tailscale-b/t.sock", "watchdog_unit": "b.service"},
        )
    ]
    assert [installation.next_step([each], "/") for each in settings] == [
        "next: tsfc peers",
        "next: tsfc peers --watchdog-metrics /srv/m/tailscale-watchdog.prom",
        "next: tsfc peers --socket /run/tailscale-b/t.sock",
    ]


@pytest.mark.parametrize("streams", [">&-", ">/dev/full", ">&- 2>&-"])
def test_install_succeeds_if_its_output_is_closed_or_full(root: Path, streams: str) -> None:
    assert units("install", root, around=f'exec "$@" {streams}') == (0, "", "")
    assert set(files(root)) == {*paths(*JOBS), *links(*JOBS)}


NOT_UTF_8 = os.fsdecode(b"\xff")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([""], "'' is not a job"),
        (["--install", "--root", ""], "argument --root: '' is not a directory"),
        (
            ["exporter"],
            "one of the arguments --print --install --uninstall --upgrade --uninstall-own is required",
        ),
        (["--print", "--install"], "not allowed with argument --print"),
        (["--install", "--uninstall"], "not allowed with argument --install"),
        (
            ["--install", "exporters"],
            "'exporters' is not a job; the jobs are exporter, native-metrics, keepalive, watchdog",
        ),
        (["--install", "--interval=5s"], "unrecognized arguments"),
        (["--install", "--exporter-inter=5s"], "unrecognized arguments"),
        (["--install", "--keepalive-unit=a.service"], "unrecognized arguments"),
        (
            ["--install", "--exporter-interval"],
            "argument --exporter-interval: expected one argument",
        ),
        (
            ["--install", "--exporter-interval", "0s"],
            "argument --exporter-interval: '0s' is not a time span longer than 0",
        ),
        (
            ["--install", "--exporter-interval", "5s\nOnCalendar=daily"],
            r"argument --exporter-interval: '5s\nOnCalendar=daily' is not a time span",
        ),
        (
            ["--install", "--watchdog-metrics-path", "a.prom"],
            (
                "argument --watchdog-metrics-path: "
                "'a.prom' is not an absolute path of a \".prom\" file"
            ),
        ),
        (
            ["--install", "--watchdog-metrics-path", "/home/a.prom"],
            (
                "'/home/a.prom' is in /home, which the sandbox of the units hides; "
                "choose another directory"
            ),
        ),
        (
            ["--install", "--socket", "tailscaled.sock"],
            "argument --socket: 'tailscaled.sock' is not an absolute path of a socket",
        ),
        (["--install", "--package", "tsfc"], "argument --package: 'tsfc' is not an absolute path"),
        (
            ["--install", "--tailscale-package", "/a b"],
            "argument --tailscale-package: '/a b' is not an absolute path",
        ),
        (
            ["--install", "--visible-paths", "%h"],
            "argument --visible-paths: '%h' is not an absolute path",
        ),
        (
            ["--install", "--watchdog-max-relay-seconds", "-1"],
            "argument --watchdog-max-relay-seconds: ",
        ),
        (
            ["--install", "--watchdog-cooldown-seconds", "1.5"],
            "'1.5' is not a time span of whole seconds up to 999999999",
        ),
        (
            ["--install", "--watchdog-unit", "tailscaled"],
            "'tailscaled' is not a service name",
        ),
        (
            ["--install", "--watchdog-dry-run=yes"],
            "argument --watchdog-dry-run: ignored explicit argument 'yes'",
        ),
        (
            [
                "--install",
                "--exporter-metrics-path",
                "/srv/m/a.prom",
                "--watchdog-metrics-path",
                "/srv/m/a.prom",
            ],
            "exporter and watchdog both write /srv/m/a.prom; ",
        ),
        (["--install", "--keepalive-extra-args", NOT_UTF_8], "argument --keepalive-extra-args: "),
        (
            ["--install", "--watchdog-exclude-peers", f"a{NOT_UTF_8}b"],
            "argument --watchdog-exclude-peers: ",
        ),
    ],
)
def test_a_bad_command_line_is_reported_in_one_line_and_changes_nothing(
    root: Path, arguments: list[str], says: str
) -> None:
    before = tree(root)
    ran = run("units", "--root", str(root), "--package", PACKAGE, *arguments)
    (complaint,) = error_lines("units", ran)
    assert says in complaint
    assert (ran.status, ran.stdout, tree(root)) == (2, "", before)


def test_a_job_may_use_the_metrics_file_of_a_job_that_is_not_named(root: Path) -> None:
    install(root, "exporter", "--exporter-metrics-path", "/var/lib/alloy/tailscale-watchdog.prom")


@pytest.mark.parametrize("name", ["venv", ".hidden/venv"])
def test_the_default_package_is_the_tsfc_that_runs_and_the_jobs_can_read_it(
    box: Path, root: Path, name: str
) -> None:
    """Here the prefix is in /tmp, which the sandbox hides; so may be Python."""
    venv = environment(box / name)
    (venv / "bin/tsfc").symlink_to("/bin/true")
    ran = from_environment(
        venv, "--install", "--root", str(root), "exporter", "--visible-paths", "/opt/a"
    )
    assert (ran.status, ran.stderr) == (0, "")
    text = (root / UNITS / "tailscale-exporter.service").read_text()
    assert f'ExecStart="{venv}/bin/tsfc" "exporter" ' in text
    visible = [
        line.removeprefix("BindReadOnlyPaths=-")
        for line in text.splitlines()
        if line.startswith("BindReadOnlyPaths=")
    ]
    others = [
        place
        for place in (sys.base_prefix, str(Path(tsfc.__file__).parents[1]))
        if not f"{place}/".startswith("/usr/")
    ]
    assert visible == ["/etc/ld.so.cache", "/run/tailscale", str(venv), *others, "/opt/a"]


def test_a_package_path_that_units_cannot_contain_is_reported_in_one_line(
    box: Path, root: Path
) -> None:
    venv = environment(box / "my venv")
    (venv / "bin/tsfc").symlink_to("/bin/true")
    ran = from_environment(venv, "--install", "--root", str(root))
    assert error_lines("units", ran) == [
        (
            f"using the tsfc in {venv}: a unit cannot contain the path {venv}; "
            "install tsfc elsewhere, such as in /opt/tsfc, or set --package"
        )
    ]
    assert (ran.status, files(root)) == (1, {})
    assert (
        from_environment(venv, "--install", "--root", str(root), "--package", PACKAGE).status == 0
    )


def test_a_package_without_its_program_is_reported_in_one_line(box: Path, root: Path) -> None:
    """As with `python -m tsfc` from a checkout."""
    venv = environment(box / "venv")
    ran = from_environment(venv, "--install", "--root", str(root))
    assert error_lines("units", ran) == [
        (
            f"looking for {venv}/bin/tsfc: no such program; "
            "set --package to the prefix in which tsfc is installed"
        )
    ]
    assert (ran.status, files(root)) == (1, {})


def environment(path: Path) -> Path:
    """Make a directory that Python treats as a virtual environment."""
    (path / "bin").mkdir(parents=True)
    (path / "bin/python").symlink_to(os.path.realpath(sys.executable))
    (path / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    return path


def from_environment(venv: Path, *arguments: str) -> Completed:
    """Run the tsfc under test with the Python of an environment."""
    imports = ":".join(place for place in sys.path if place)
    return run(
        "units", *arguments, around=f'shift; PYTHONPATH="{imports}" exec "{venv}/bin/python" "$@"'
    )


def test_a_program_that_is_not_there_is_a_warning(root: Path) -> None:
    told = ("keepalive", "watchdog", "--watchdog-notify-exec=/srv/tell")
    ran = units("install", root, *told)
    assert ran.status == 0
    assert error_lines("units", ran) == [
        "/srv/tell is no program that can be started, so nobody is told what is new; put it there"
    ]
    (root / "srv").mkdir()
    (root / "srv/tell").touch(mode=0o755)
    install(root, *told)
