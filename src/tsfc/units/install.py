"""The units of the jobs on a host without NixOS: shown, installed, and taken away again."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.resources import files

from returns.result import Failure

from tsfc.shell import systemd
from tsfc.shell.atomic import atomic_write, write_all
from tsfc.shell.console import STDOUT, print_error, say
from tsfc.units.table import Installation, Table, read_table

TOOL = "units"
UNITS, TMPFILES = "/etc/systemd/system", "/etc/tmpfiles.d"
MARK = "# Written by `tsfc units --install`, and written again by the next: to change it, give that other options, or add a drop-in.\n"
"How each file begins that was written here. One that does not is somebody else's."
RUNNING = "/run/systemd/system"
"There where systemd runs the machine (sd_booted(3))."
TIMEOUT_SECONDS = 100.0
"Units have 90 s to stop (`DefaultTimeoutStopSec`)."

Installations = Mapping[str, Installation]
"By the name of the job."


def table() -> Table:
    """Returns the table that all units are made from."""
    return read_table(files("tsfc.units").joinpath("units.json").read_bytes())


def show(wanted: Installations) -> int:
    """Prints the files, each under its path, as `systemctl cat` does."""
    say(
        STDOUT, "\n".join(f"# {path}\n{text}" for path, text in _files(wanted).items()).rstrip("\n")
    )
    return 0


def install(wanted: Installations, root: str) -> int:
    """Writes the files below `root`, all of them or none, and enables the units; starts them where `root` is the running system's."""
    texts = {_below(root, path): MARK + text for path, text in _files(wanted).items()}
    links = {_below(root, path): unit for path, unit in _links(wanted).items()}
    strange = [
        *filter(_is_strange, texts),
        *(
            path
            for path, unit in links.items()
            if os.path.lexists(path) and not _leads_to(path, unit)
        ),
    ]
    if strange:
        print_error(
            TOOL,
            f"installing {strange[0]}: it is there, and tsfc did not write it; see what it is, and move it away. Nothing was changed",
        )
        return 1
    try:
        _write(texts, links)
    except OSError as error:
        print_error(
            TOOL,
            f"installing the units in {_below(root, UNITS)}: {error.strerror}; run it as root, or give --root a directory that you may write in",
        )
        return 1
    for path in (*texts, *links):
        say(STDOUT, f"wrote {path}")
    directories = [["systemd-tmpfiles", "--create", path] for path in filter(_is_tmpfiles, texts)]
    started = [name for job in wanted.values() for name in job.wants]
    return _perform(
        root, [*directories, ["systemctl", "daemon-reload"], ["systemctl", "restart", *started]]
    )


def uninstall(wanted: Installations, root: str) -> int:
    """Stops the units where `root` is the running system's, and removes the files. What the jobs have written, metrics and state, stays."""
    possible = dict.fromkeys((*_files(wanted), *map(_tmpfiles, wanted)))
    paths = [path for path in (_below(root, path) for path in possible) if os.path.lexists(path)]
    links = [
        _below(root, path)
        for path, unit in _links(wanted).items()
        if _leads_to(_below(root, path), unit)
    ]
    strange = [*filter(_is_strange, paths)]
    if strange:
        print_error(
            TOOL,
            f"removing {strange[0]}: tsfc did not write it; see what it is, and remove it by hand. Nothing was changed",
        )
        return 1
    if not paths and not links:
        say(STDOUT, "there is nothing to remove")
        return 0
    stopped = [
        name
        for path in paths
        if "@" not in (name := os.path.basename(path)) and not _is_tmpfiles(path)
    ]
    if stopped and (status := _perform(root, [["systemctl", "stop", *stopped]])):
        return status
    left = {_below(root, found) for path in paths for found in _metrics_paths(path)}
    try:
        for path in (*links, *paths):
            os.unlink(path)
            say(STDOUT, f"removed {path}")
    except OSError as error:
        print_error(TOOL, f"removing {error.filename}: {error.strerror}; run it as root")
        return 1
    for path in sorted(left):
        say(STDOUT, f"left {path}: remove it, or its last numbers stay")
    return _perform(root, [["systemctl", "daemon-reload"]])


def _files(wanted: Installations) -> dict[str, str]:
    units = {f"{UNITS}/{name}": text for job in wanted.values() for name, text in job.units.items()}
    return units | {
        _tmpfiles(name): "".join(f"{line}\n" for line in job.tmpfiles)
        for name, job in wanted.items()
        if job.tmpfiles
    }


def _tmpfiles(job: str) -> str:
    return f"{TMPFILES}/tailscale-{job}.conf"


def _links(wanted: Installations) -> dict[str, str]:
    """Returns the links that enable units, and what they lead to: those that `systemctl enable` makes."""
    return {
        f"{UNITS}/{target}.wants/{name}": f"{UNITS}/{name}"
        for job in wanted.values()
        for name, target in job.wants.items()
    }


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.removeprefix("/"))


def _is_tmpfiles(path: str) -> bool:
    return path.endswith(".conf")


def _is_strange(path: str) -> bool:
    """Reports whether something is there that was not written here; a link is not, for a masked unit is one."""
    if os.path.islink(path):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(len(MARK)) != MARK.encode()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _leads_to(link: str, unit: str) -> bool:
    try:
        return os.readlink(link) == unit
    except OSError:
        return False


def _metrics_paths(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return re.findall(r'"--metrics-path" "([^"]+)"', file.read())


def _write(texts: Mapping[str, str], links: Mapping[str, str]) -> None:
    """Writes all, or nothing: the files take their places when all of them are on the disk and the links are made."""
    with ExitStack() as whole:
        for path, text in texts.items():
            directory, name = os.path.split(path)
            os.makedirs(directory, exist_ok=True)
            write_all(
                whole.enter_context(
                    atomic_write(path, os.path.join(directory, f".{name}.{os.getpid()}.tmp"), 0o644)
                ),
                text.encode(),
            )
        for path, unit in links.items():
            whole.enter_context(_linked(path, unit))


@contextmanager
def _linked(path: str, unit: str) -> Generator[None, None, None]:
    """Makes a link where there is none, and takes it back where the block fails."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    is_there = os.path.islink(path)
    if not is_there:
        os.symlink(unit, path)
    try:
        yield
    except BaseException:
        if not is_there:
            os.unlink(path)
        raise


def _perform(root: str, commands: Sequence[Sequence[str]]) -> int:
    """Runs commands one after the other, up to the first that fails; none where `root` is not the running system's, or systemd does not run that."""
    if os.path.realpath(root) != "/":
        return 0
    if not os.path.isdir(RUNNING):
        say(STDOUT, "systemd does not run here, so nothing was started or stopped")
        return 0
    for command in commands:
        done = systemd.run(
            command,
            action=f"running `{' '.join(command)}`",
            advice="run it by hand to see more",
            timeout=TIMEOUT_SECONDS,
        )
        if isinstance(done, Failure):
            print_error(TOOL, done.failure())
            return 1
    return 0
