"""`tsfc units` as processes, on a file system of the test's own."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import tsfc
from support.processes import UNPRIVILEGED, Ran, complaints, run
from tsfc.units.install import MARK

JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")
"Those that are meant where none is named."
PACKAGE = "/opt/tsfc"
UNITS, TMPFILES = "etc/systemd/system", "etc/tmpfiles.d"
TIMERS, SOCKETS = f"{UNITS}/timers.target.wants", f"{UNITS}/sockets.target.wants"
DIRECTORIES = (TIMERS, SOCKETS, TMPFILES)
HELPERS = ("tailscale-watchdog-restart.socket", "tailscale-watchdog-restart@.service")
UNWRITABLE = "installing the units in {}: {}; run it as root, or give --root a directory that you may write in"
KEPT = "; see what it is, and move it away. Nothing was changed"


@pytest.fixture
def root(box: Path) -> Path:
    """The top of a file system that has the directories of systemd, and nothing in them."""
    root = box / "root"
    for directory in DIRECTORIES:
        (root / directory).mkdir(parents=True)
    return root


def units(act: str, root: Path, *arguments: str, around: str | None = None) -> Ran:
    return run(
        "units", f"--{act}", "--root", str(root), "--package", PACKAGE, *arguments, around=around
    )


def install(root: Path, *arguments: str) -> None:
    """Installs, which has to succeed."""
    ran = units("install", root, *arguments)
    assert (ran.status, ran.stderr) == (0, "")


def paths(*jobs: str) -> list[str]:
    """The files that there are for jobs for which nothing was chosen."""
    names = [f"tailscale-{job}.{kind}" for job in jobs for kind in ("service", "timer")]
    helpers = HELPERS if "watchdog" in jobs else ()
    return [
        *(f"{UNITS}/{name}" for name in (*names, *helpers)),
        *(f"{TMPFILES}/tailscale-{job}.conf" for job in jobs if job != "keepalive"),
    ]


def links(*jobs: str) -> dict[str, str]:
    """The links that there are for jobs, and where they lead."""
    timers = {f"{TIMERS}/tailscale-{job}.timer": f"/{UNITS}/tailscale-{job}.timer" for job in jobs}
    return timers | (
        {f"{SOCKETS}/{HELPERS[0]}": f"/{UNITS}/{HELPERS[0]}"} if "watchdog" in jobs else {}
    )


def there(root: Path) -> dict[str, tuple[int, str]]:
    """All that is below a directory: of each the mode, and what is in the file or where the link leads."""

    def seen(path: Path) -> tuple[int, str]:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return mode, str(path.readlink())
        return mode, path.read_bytes().decode(errors="surrogateescape") if stat.S_ISREG(
            mode
        ) else ""

    return {str(path.relative_to(root)): seen(path) for path in sorted(root.rglob("*"))}


@contextmanager
def read_only(*directories: Path) -> Generator[None]:
    """Takes the right to write from directories, and gives back what they had."""
    modes = {directory: stat.S_IMODE(directory.stat().st_mode) for directory in directories}
    for directory in directories:
        directory.chmod(0o555)
    try:
        yield
    finally:
        for directory, mode in modes.items():
            directory.chmod(mode)


def files(root: Path) -> dict[str, tuple[int, str]]:
    """The same without the directories: where there was none, it may be left."""
    return {path: seen for path, seen in there(root).items() if not stat.S_ISDIR(seen[0])}


def test_what_is_printed_is_what_is_installed(root: Path) -> None:
    """Under its path each file, without the line that says who wrote it; the units' names and texts are those of the core's tests."""
    options = (
        "--keepalive-metrics-path",
        "/srv/pings.prom",
        "--watchdog-exclude-peers",
        "a %n\n$b",
        "--exporter-extra-args",
        "# /etc/x",
    )
    printed = units("print", root, *options)
    assert there(root).keys() == {UNITS, "etc", "etc/systemd", *DIRECTORIES}
    install(root, *options)
    _, *parts = re.split(r"(?m)^# /(etc/.*)\n", printed.stdout)
    written = {path: text for path, (_, text) in files(root).items() if path not in links(*JOBS)}
    assert (printed.status, printed.stderr) == (0, "")
    assert {
        path: f"{MARK}{text.rstrip()}\n" for path, text in zip(parts[::2], parts[1::2], strict=True)
    } == written
    assert set(written) == {*paths(*JOBS), f"{TMPFILES}/tailscale-keepalive.conf"}


@pytest.mark.parametrize("around", ['umask 0; exec "$@"', 'umask 077; exec "$@"'])
def test_all_may_read_what_is_installed_and_only_its_owner_write_it(
    root: Path, around: str
) -> None:
    """Whatever the umask. What enables a unit is a link, as systemctl makes it."""
    ran = units("install", root, around=around)
    assert ran == (
        0,
        "".join(f"wrote {root}/{path}\n" for path in (*installed_order(ran), *links(*JOBS))),
        "",
    )
    written = files(root)
    assert {
        path: target for path, (mode, target) in written.items() if stat.S_ISLNK(mode)
    } == links(*JOBS)
    assert {
        path: oct(stat.S_IMODE(mode)) for path, (mode, _) in written.items() if stat.S_ISREG(mode)
    } == dict.fromkeys(paths(*JOBS), "0o644")


def installed_order(ran: Ran) -> list[str]:
    """The files that a run said it wrote, in its order, which are those that there are to be."""
    said = [line.partition("/root/")[2] for line in ran.stdout.splitlines()]
    ours = [path for path in said if path not in links(*JOBS)]
    assert sorted(ours) == sorted(paths(*JOBS))
    return ours


def test_a_second_installation_changes_nothing(root: Path) -> None:
    install(root)
    before = there(root)
    install(root)
    assert there(root) == before


def test_an_installation_replaces_the_one_before_and_leaves_other_jobs_alone(root: Path) -> None:
    install(root)
    before = there(root)
    install(root, "exporter", "--exporter-interval", "7min")
    after = there(root)
    assert {path for path in after if after[path] != before.get(path)} == {
        f"{UNITS}/tailscale-exporter.timer"
    }
    assert "OnUnitActiveSec=7min\n" in after[f"{UNITS}/tailscale-exporter.timer"][1]
    assert before.keys() == after.keys()


@pytest.mark.parametrize(
    "jobs",
    [(job,) for job in (*JOBS, "capture")] + [("watchdog", "exporter"), ("keepalive", "keepalive")],
)
def test_only_the_units_of_the_jobs_that_are_named_are_installed(
    root: Path, jobs: tuple[str, ...]
) -> None:
    """And removed; what the others have is left."""
    install(root, *jobs)
    assert set(files(root)) == {*paths(*jobs), *links(*jobs)}
    install(root)
    assert units("uninstall", root, *jobs).status == 0
    others = set(JOBS) - set(jobs)
    assert set(files(root)) == {*paths(*others), *links(*others)}


def test_a_capture_is_installed_where_it_is_named_and_removed_with_all_others(root: Path) -> None:
    """It fills a disk with what people call their machines: nobody gets it unasked, and nobody keeps it unasked."""
    install(root, "capture", "exporter")
    install(root)
    assert set(files(root)) == {*paths(*JOBS, "capture"), *links(*JOBS, "capture")}
    assert units("uninstall", root).status == 0
    assert files(root) == {}


def _a_file_of_somebody_else(path: Path) -> None:
    path.write_text("[Service]\nExecStart=/bin/true\n")


def _an_empty_file(path: Path) -> None:
    path.write_text("")


def _a_file_that_is_almost_ours(path: Path) -> None:
    path.write_text(MARK[:-2])


def _a_mask(path: Path) -> None:
    path.symlink_to("/dev/null")


def _a_link_to_a_file_of_ours(path: Path) -> None:
    ours = path.parents[3] / "elsewhere"
    ours.write_text(f"{MARK}[Unit]\n")
    path.symlink_to(ours)


def _a_dangling_link(path: Path) -> None:
    path.symlink_to("/nonexistent/a")


def _a_directory(path: Path) -> None:
    path.mkdir()


STRANGE = [
    _a_file_of_somebody_else,
    _an_empty_file,
    _a_file_that_is_almost_ours,
    _a_mask,
    _a_link_to_a_file_of_ours,
    _a_dangling_link,
    _a_directory,
]


@pytest.mark.parametrize("name", ["tailscale-watchdog.service", HELPERS[1]])
@pytest.mark.parametrize("make", STRANGE)
def test_a_unit_that_is_not_ours_is_not_replaced_and_nothing_else_is_written(
    root: Path, make: Callable[[Path], None], name: str
) -> None:
    """It is not removed either."""
    path = root / UNITS / name
    make(path)
    before = there(root)
    ran = units("install", root)
    assert complaints("units", ran) == [
        f"installing {path}: it is there, and tsfc did not write it{KEPT}"
    ]
    assert (ran.status, ran.stdout, there(root)) == (1, "", before)
    ran = units("uninstall", root)
    assert complaints("units", ran) == [
        f"removing {path}: tsfc did not write it; see what it is, and remove it by hand. Nothing was changed"
    ]
    assert (ran.status, ran.stdout, there(root)) == (1, "", before)


@pytest.mark.parametrize(
    "place",
    [
        f"{TMPFILES}/tailscale-exporter.conf",
        f"{TIMERS}/tailscale-exporter.timer",
        f"{SOCKETS}/{HELPERS[0]}",
    ],
)
@pytest.mark.parametrize(
    "make", [_a_file_of_somebody_else, _a_mask, _a_dangling_link, _a_directory]
)
def test_what_is_not_ours_in_the_place_of_another_file_is_not_replaced(
    root: Path, make: Callable[[Path], None], place: str
) -> None:
    """Neither the one that makes the directory, nor a link that enables."""
    make(root / place)
    before = there(root)
    ran = units("install", root)
    assert complaints("units", ran) == [
        f"installing {root / place}: it is there, and tsfc did not write it{KEPT}"
    ]
    assert (ran.status, ran.stdout, there(root)) == (1, "", before)


@pytest.mark.parametrize("place", [UNITS, TMPFILES, TIMERS, SOCKETS])
def test_a_file_in_the_place_of_a_directory_is_one_line_and_nothing_is_written(
    box: Path, place: str
) -> None:
    path = box / "root" / place
    path.parent.mkdir(parents=True)
    path.write_text("")
    before = files(box)
    ran = units("install", box / "root")
    assert len(complaints("units", ran)) == 1
    assert (ran.status, ran.stdout, files(box)) == (1, "", before)


@pytest.mark.parametrize("is_installed", [False, True])
def test_a_full_disk_is_one_line_and_all_stays_as_it_was(root: Path, *, is_installed: bool) -> None:
    """A process that may make no file larger than nothing is one whose disk is full."""
    if is_installed:
        install(root)
    before = there(root)
    ran = units("install", root, "--exporter-interval", "7min", around='ulimit -f 0; exec "$@"')
    assert complaints("units", ran) == [UNWRITABLE.format(root / UNITS, "File too large")]
    assert (ran.status, ran.stdout, there(root)) == (1, "", before)


def test_a_disk_that_fills_up_is_one_line_and_all_stays_as_it_was(root: Path) -> None:
    """There is room for the first files, but not for the longest."""
    install(root)
    before = there(root)
    sizes = [len(text) for _, text in files(root).values()]
    assert min(sizes) < 1024 < max(sizes)
    ran = units("install", root, "--exporter-interval", "7min", around='ulimit -f 2; exec "$@"')
    assert complaints("units", ran) == [UNWRITABLE.format(root / UNITS, "File too large")]
    assert (ran.status, ran.stdout, there(root)) == (1, "", before)


@pytest.mark.parametrize("directory", [".", UNITS, TMPFILES, TIMERS, SOCKETS])
def test_a_directory_without_the_right_to_write_it_is_one_line_and_all_stays_as_it_was(
    root: Path, directory: str
) -> None:
    """The units are there as a whole or not at all, also where the last of their directories is another's."""
    if directory == ".":
        (root / TMPFILES).rmdir()
        (root / "etc").rename(root.parent / "etc")
    before = there(root)
    with read_only(root / directory):
        ran = units("install", root, around=UNPRIVILEGED)
    (complaint,) = complaints("units", ran)
    assert "Permission denied" in complaint
    assert complaint.endswith("; run it as root, or give --root a directory that you may write in")
    assert (ran.status, ran.stdout) == (1, "")
    assert there(root) == before


def test_what_was_installed_is_removed_and_nothing_else(root: Path) -> None:
    """Which metrics are left is said, as they were chosen when the units were installed; the state is not the units'."""
    others = {
        f"{UNITS}/other.service": "[Unit]\n",
        f"{UNITS}/tailscale-other.timer": MARK,
        f"{TMPFILES}/alloy.conf": "d /a\n",
    }
    for path, text in others.items():
        (root / path).write_text(text)
    drop_in = root / UNITS / "tailscale-exporter.service.d" / "a.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\n")
    metrics = root / "var/lib/alloy/tailscale-peers.prom"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("tailscale_up 1\n")
    before = there(root)
    install(
        root, "--watchdog-metrics-path", "/srv/w.prom", "--keepalive-metrics-path", "/srv/k.prom"
    )
    ran = units("uninstall", root)
    assert (ran.status, ran.stderr, there(root)) == (0, "", before)
    removed = {
        line.removeprefix(f"removed {root}/")
        for line in ran.stdout.splitlines()
        if line.startswith("removed ")
    }
    assert removed == {*paths(*JOBS), *links(*JOBS), f"{TMPFILES}/tailscale-keepalive.conf"}
    left = [line for line in ran.stdout.splitlines() if not line.startswith("removed ")]
    known = (
        "/srv/k.prom",
        "/srv/w.prom",
        "/var/lib/alloy/tailscale-native.prom",
        "/var/lib/alloy/tailscale-peers.prom",
    )
    assert left == [f"left {root}{path}: remove it, or its last numbers stay" for path in known]


def test_a_removal_asks_nothing_that_it_does_not_need(root: Path) -> None:
    """It would remove the same whatever tsfc it is, and whatever was chosen."""
    install(root)
    clash = ("--exporter-metrics-path=/a/b.prom", "--watchdog-metrics-path=/a/b.prom")
    assert run("units", "--uninstall", "--root", str(root), *clash).status == 0
    assert files(root) == {}


def test_a_job_that_writes_no_metrics_leaves_none(root: Path) -> None:
    install(root, "keepalive")
    ran = units("uninstall", root, "keepalive")
    assert ran.status == 0
    assert "left" not in ran.stdout


def test_where_nothing_is_installed_nothing_is_removed(root: Path) -> None:
    assert units("uninstall", root) == (0, "there is nothing to remove\n", "")
    assert units("uninstall", root / "nonexistent") == (0, "there is nothing to remove\n", "")


def test_a_link_that_leads_elsewhere_is_not_removed(root: Path) -> None:
    install(root, "exporter")
    link = root / TIMERS / "tailscale-exporter.timer"
    link.unlink()
    link.symlink_to("/lib/systemd/system/tailscale-exporter.timer")
    assert units("uninstall", root).status == 0
    assert set(files(root)) == set(links("exporter"))


def test_half_an_installation_is_removed(root: Path) -> None:
    """Whichever half somebody has removed by hand."""
    install(root)
    for path in paths("exporter"):
        (root / path).unlink()
    assert units("uninstall", root, "exporter").status == 0
    assert set(files(root)) == {*paths(*JOBS[1:]), *links(*JOBS[1:])}
    for path in links("native-metrics"):
        (root / path).unlink()
    assert units("uninstall", root).status == 0
    assert files(root) == {}


def test_a_unit_that_somebody_broke_is_removed(root: Path) -> None:
    install(root)
    with (root / UNITS / "tailscale-exporter.timer").open("ab") as file:
        file.write(b"\xff\0\n")
    ran = units("uninstall", root)
    assert (ran.status, ran.stderr, files(root)) == (0, "", {})


def test_a_removal_without_the_right_to_is_one_line_and_all_stays_as_it_was(root: Path) -> None:
    install(root)
    before = there(root)
    with read_only(*(root / directory for directory in (*DIRECTORIES, UNITS))):
        ran = units("uninstall", root, around=UNPRIVILEGED)
    (complaint,) = complaints("units", ran)
    assert re.fullmatch(f"removing {root}/etc/.*: Permission denied; run it as root", complaint)
    assert (ran.status, ran.stdout, there(root)) == (1, "", before)


def test_the_root_may_be_relative_and_its_directories_missing(box: Path, root: Path) -> None:
    """As where a file system is put together for another machine."""
    install(root)
    within = f'cd {box}; exec "$@"'
    ran = units("install", Path("made/of/nothing"), around=within)
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"wrote made/of/nothing/{UNITS}/tailscale-exporter.service\n")
    assert files(box / "made/of/nothing") == files(root)
    assert units("uninstall", Path("made/of/nothing"), around=within).status == 0
    assert files(box / "made") == {}


@pytest.mark.parametrize("streams", [">&-", ">/dev/full", ">&- 2>&-"])
def test_an_installation_goes_on_where_nobody_listens(root: Path, streams: str) -> None:
    assert units("install", root, around=f'exec "$@" {streams}') == (0, "", "")
    assert set(files(root)) == {*paths(*JOBS), *links(*JOBS)}


NOT_UTF_8 = os.fsdecode(b"\xff")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([""], "'' is no job"),
        (["--install", "--root", ""], "argument --root: '' is no directory"),
        (["exporter"], "one of the arguments --print --install --uninstall is required"),
        (["--print", "--install"], "not allowed with argument --print"),
        (["--install", "--uninstall"], "not allowed with argument --install"),
        (
            ["--install", "exporters"],
            "'exporters' is no job; the jobs are exporter, native-metrics, keepalive, watchdog",
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
            "argument --exporter-interval: '0s' is not a systemd time span longer than 0",
        ),
        (
            ["--install", "--exporter-interval", "5s\nOnCalendar=daily"],
            r"argument --exporter-interval: '5s\nOnCalendar=daily' is not a systemd time span",
        ),
        (
            ["--install", "--watchdog-metrics-path", "a.prom"],
            "argument --watchdog-metrics-path: 'a.prom' is not the absolute path of a file",
        ),
        (
            ["--install", "--watchdog-metrics-path", "/home/a.prom"],
            "'/home/a.prom' is in /home, which the sandbox of the units hides; choose another place",
        ),
        (
            ["--install", "--socket", "tailscaled.sock"],
            "argument --socket: 'tailscaled.sock' is not the absolute path of a socket",
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
            "'1.5' is not a whole number of seconds from 0 to 999999999",
        ),
        (
            ["--install", "--watchdog-unit", "tailscaled"],
            "'tailscaled' is not the name of a service",
        ),
        (
            ["--install", "--watchdog-dry-run=yes"],
            "argument --watchdog-dry-run: ignored explicit argument 'yes'",
        ),
        (
            [
                "--install",
                "--exporter-metrics-path",
                "/srv/a.prom",
                "--watchdog-metrics-path",
                "/srv/a.prom",
            ],
            "exporter and watchdog both write /srv/a.prom; ",
        ),
        (["--install", "--keepalive-extra-args", NOT_UTF_8], "argument --keepalive-extra-args: "),
        (
            ["--install", "--watchdog-exclude-peers", f"a{NOT_UTF_8}b"],
            "argument --watchdog-exclude-peers: ",
        ),
    ],
)
def test_a_bad_command_line_is_one_line_and_nothing_is_written(
    root: Path, arguments: list[str], says: str
) -> None:
    before = there(root)
    ran = run("units", "--root", str(root), "--package", PACKAGE, *arguments)
    (complaint,) = complaints("units", ran)
    assert says in complaint
    assert (ran.status, ran.stdout, there(root)) == (2, "", before)


def test_two_jobs_may_have_one_file_where_only_one_of_them_is_meant(root: Path) -> None:
    install(root, "exporter", "--exporter-metrics-path", "/var/lib/alloy/tailscale-watchdog.prom")


@pytest.mark.parametrize("name", ["venv", ".hidden/venv"])
def test_where_no_package_is_given_it_is_the_tsfc_that_runs_and_the_jobs_may_see_it(
    box: Path, root: Path, name: str
) -> None:
    """Wherever that is: this one is in `/tmp`, which the sandbox hides; and so may be the Python that it was made of."""
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


def test_a_tsfc_that_no_unit_can_name_is_one_line(box: Path, root: Path) -> None:
    venv = environment(box / "my venv")
    (venv / "bin/tsfc").symlink_to("/bin/true")
    ran = from_environment(venv, "--install", "--root", str(root))
    assert complaints("units", ran) == [
        f"using the tsfc in {venv}: a unit cannot name the path {venv}; install it elsewhere, say in /opt/tsfc, or give --package"
    ]
    assert (ran.status, files(root)) == (1, {})
    assert (
        from_environment(venv, "--install", "--root", str(root), "--package", PACKAGE).status == 0
    )


def test_a_tsfc_that_is_run_without_its_program_is_one_line(box: Path, root: Path) -> None:
    """As with `python -m tsfc` from a checkout."""
    venv = environment(box / "venv")
    ran = from_environment(venv, "--install", "--root", str(root))
    assert complaints("units", ran) == [
        f"looking for {venv}/bin/tsfc: there is no such program; give --package the prefix that tsfc is installed in"
    ]
    assert (ran.status, files(root)) == (1, {})


def environment(path: Path) -> Path:
    """Makes what is a virtual environment to Python."""
    (path / "bin").mkdir(parents=True)
    (path / "bin/python").symlink_to(os.path.realpath(sys.executable))
    (path / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    return path


def from_environment(venv: Path, *arguments: str) -> Ran:
    """Runs the tsfc under test with the Python of this environment."""
    imports = ":".join(place for place in sys.path if place)
    return run(
        "units", *arguments, around=f'shift; PYTHONPATH="{imports}" exec "{venv}/bin/python" "$@"'
    )
