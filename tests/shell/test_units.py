"""`tsfc units`: what it prints, what it installs below a `--root`, and what it leaves alone."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from support.processes import UNPRIVILEGED, Ran, run, tree

UNITS = "etc/systemd/system"
PACKAGE = ("--package", "/opt/tsfc")
FULL_DISK = 'ulimit -f 0; exec "$@"'
"A process that may make no file larger than nothing is one whose disk is full."
MARK = "# Written by `tsfc units --install`"
EXPORTER = {
    f"{UNITS}/tailscale-exporter.service",
    f"{UNITS}/tailscale-exporter.timer",
    f"{UNITS}/timers.target.wants/tailscale-exporter.timer",
    "etc/tmpfiles.d/tailscale-exporter.conf",
}


def install(root: Path, *arguments: str, around: str | None = None) -> Ran:
    return run("units", "--install", "--root", str(root), *PACKAGE, *arguments, around=around)


def files(root: Path) -> set[str]:
    """Everything but directories, by path."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or path.is_file()}


def complaint(ran: Ran) -> str:
    """The one line on standard error."""
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("tsfc units: ")
    return line.removeprefix("tsfc units: ")


def test_what_is_installed_is_what_is_printed_behind_a_mark(box: Path) -> None:
    printed = run("units", "--print", *PACKAGE)
    assert (printed.status, printed.stderr) == (0, "")
    assert install(box).status == 0
    texts = dict(re.findall(r"^# (/\S+)\n(.*?\n)(?=\n# /|\Z)", printed.stdout, re.MULTILINE | re.DOTALL))
    written = {f"/{path}": (box / path).read_text() for path in files(box) if not (box / path).is_symlink()}
    assert set(texts) == set(written)
    for path, text in written.items():
        mark, _, rest = text.partition("\n")
        assert mark.startswith(MARK)
        assert rest.rstrip("\n") == texts[path].rstrip("\n")


def test_files_are_0644_and_units_are_enabled_as_systemctl_would(box: Path) -> None:
    ran = install(box, around='umask 077; exec "$@"')
    assert {stat.S_IMODE((box / path).stat().st_mode) for path in files(box) if not (box / path).is_symlink()} == {0o644}
    links = {path: os.readlink(box / path) for path in files(box) if (box / path).is_symlink()}
    assert links == {
        **{
            f"{UNITS}/timers.target.wants/tailscale-{job}.timer": f"/{UNITS}/tailscale-{job}.timer"
            for job in ("exporter", "native-metrics", "keepalive", "watchdog")
        },
        f"{UNITS}/sockets.target.wants/tailscale-watchdog-restart.socket": f"/{UNITS}/tailscale-watchdog-restart.socket",
    }
    assert sorted(ran.stdout.splitlines()) == sorted(f"wrote {box}/{path}" for path in files(box))


def test_a_job_can_be_installed_alone_and_others_stay(box: Path) -> None:
    assert install(box, "exporter").status == 0
    assert files(box) == EXPORTER
    assert install(box, "keepalive").status == 0
    assert files(box) > EXPORTER


def test_to_install_again_is_to_change(box: Path) -> None:
    """And without a change it is nothing."""
    install(box, "exporter")
    before = tree(box)
    install(box, "exporter")
    assert tree(box) == before
    install(box, "exporter", "--exporter-interval=45s")
    assert "OnUnitActiveSec=45s\n" in (box / UNITS / "tailscale-exporter.timer").read_text()
    assert files(box) == EXPORTER


def occupy(path: Path, how: str) -> None:
    """Puts something there that is not tsfc's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match how:
        case "a file":
            path.write_text("[Service]\nExecStart=/usr/local/bin/mine\n")
        case "an empty file":
            path.touch()
        case "a mask":
            path.symlink_to("/dev/null")
        case "a directory":
            path.mkdir()
        case _:
            path.write_text(f"{how}\n")


@pytest.mark.parametrize("how", ["a file", "an empty file", "a mask", "a directory", MARK])
@pytest.mark.parametrize(
    "name", [f"{UNITS}/tailscale-watchdog.timer", f"{UNITS}/timers.target.wants/tailscale-exporter.timer", "etc/tmpfiles.d/tailscale-exporter.conf"]
)
def test_what_tsfc_did_not_write_is_not_replaced_and_nothing_is_changed(box: Path, name: str, how: str) -> None:
    """A masked unit, which somebody did not want, is such a thing, too; and so is one that only mentions tsfc."""
    occupy(box / name, how)
    before = tree(box)
    ran = install(box)
    assert complaint(ran) == f"installing {box}/{name}: it is there, and tsfc did not write it; see what it is, and move it away. Nothing was changed"
    assert (ran.status, tree(box)) == (1, before)


@pytest.mark.parametrize("before", [(), ("--exporter-interval=45s",)], ids=["nothing", "other units"])
def test_a_full_disk_changes_nothing(box: Path, before: tuple[str, ...]) -> None:
    if before:
        install(box, *before)
    contents = {path: content for path, content in tree(box).items() if content is not None}
    ran = install(box, around=FULL_DISK)
    assert complaint(ran).startswith(f"installing the units in {box}/{UNITS}: File too large; ")
    assert ran.status == 1
    assert {path: content for path, content in tree(box).items() if content is not None} == contents


def test_without_rights_it_is_one_line(box: Path) -> None:
    (box / "etc").mkdir(mode=0o500)
    ran = install(box, around=UNPRIVILEGED)
    assert complaint(ran) == f"installing the units in {box}/{UNITS}: Permission denied; run it as root, or give --root a directory that you may write in"
    assert (ran.status, files(box)) == (1, set())


def test_what_was_installed_can_be_removed_and_nothing_else_is(box: Path) -> None:
    occupy(box / UNITS / "tailscaled.service", "a file")
    occupy(box / UNITS / "timers.target.wants/other.timer", "a mask")
    others = files(box)
    install(box, "--exporter-metrics-path=/srv/m/a.prom", "--keepalive-metrics-path=/srv/m/k.prom")
    installed = files(box) - others
    ran = run("units", "--uninstall", "--root", str(box))
    assert (ran.status, ran.stderr, files(box)) == (0, "", others)
    removed = {line.removeprefix(f"removed {box}/") for line in ran.stdout.splitlines() if line.startswith("removed ")}
    assert removed == installed
    left = [line for line in ran.stdout.splitlines() if line.startswith("left ")]
    assert [line.split()[1] for line in left] == [
        *("/srv/m/a.prom:", "/srv/m/k.prom:", "/var/lib/alloy/tailscale-native.prom:", "/var/lib/alloy/tailscale-watchdog.prom:")
    ]
    assert run("units", "--uninstall", "--root", str(box)) == (0, "there is nothing to remove\n", "")


def test_one_job_can_be_removed_alone(box: Path) -> None:
    install(box)
    before = files(box)
    run("units", "--uninstall", "exporter", "--root", str(box))
    assert files(box) == before - EXPORTER


@pytest.mark.parametrize("how", ["a file", "a mask", "a directory"])
def test_what_tsfc_did_not_write_is_not_removed_and_nothing_is_changed(box: Path, how: str) -> None:
    install(box, "exporter")
    path = box / UNITS / "tailscale-exporter.service"
    path.unlink()
    occupy(path, how)
    before = tree(box)
    ran = run("units", "--uninstall", "--root", str(box))
    assert complaint(ran) == f"removing {path}: tsfc did not write it; see what it is, and remove it by hand. Nothing was changed"
    assert (ran.status, tree(box)) == (1, before)


def test_a_root_that_is_relative_or_not_there_is_made(box: Path) -> None:
    ran = run("units", "--install", "exporter", *PACKAGE, "--root", "new", around=f'cd {box}; exec "$@"')
    assert ran.status == 0
    assert files(box / "new") == EXPORTER


def test_this_tsfc_is_shown_to_the_units_wherever_it_is() -> None:
    """Where no package is given it is this one, in the environment that runs the tests."""
    printed = run("units", "--print", "exporter").stdout
    program = re.search(r'^ExecStart="([^"]+)/bin/tsfc" "exporter"', printed, re.MULTILINE)
    assert program
    assert program[1].startswith("/usr") or f"BindReadOnlyPaths=-{program[1]}\n" in printed


USAGE: dict[tuple[str, ...], str] = {
    (): "one of the arguments --print --install --uninstall is required",
    ("--print", "--install"): "argument --install: not allowed with argument --print",
    ("--print", "watchdogs"): "argument JOB: 'watchdogs' is no job; the jobs are exporter, native-metrics, keepalive, watchdog",
    ("--print", "--exporter-interval=soon"): 'argument --exporter-interval: \'soon\' is not a systemd time span longer than 0, such as "30s" or "1min 30s"',
    (
        "--print",
        "--exporter-metrics-path=/home/me/a.prom",
    ): "argument --exporter-metrics-path: '/home/me/a.prom' is in /home, which the sandbox of the units hides",
    ("--print", "--watchdog-max-relay-seconds=-1"): "argument --watchdog-max-relay-seconds: '-1' is not a whole number of seconds from 0 to 999999999",
    ("--print", "--watchdog-unit=tailscaled"): "argument --watchdog-unit: 'tailscaled' is not the name of a service with its \".service\"",
    ("--print", "--exporter-intervall=30s"): "unrecognized arguments: --exporter-intervall=30s",
    (
        "--print",
        "--exporter-metrics-path=/a/b.prom",
        "--watchdog-metrics-path=/a/b.prom",
    ): "exporter and watchdog both write /a/b.prom; give each job a file of its own",
}


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_a_wrong_command_line_is_one_line(arguments: tuple[str, ...]) -> None:
    ran = run("units", *arguments)
    assert complaint(ran).startswith(USAGE[arguments])
    assert ran.status == 2
