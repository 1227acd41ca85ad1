"""Print, install and remove the units on a host without NixOS."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from returns.result import Failure

from tsfc.shell import systemd
from tsfc.shell.atomic import atomic_write, write_all
from tsfc.shell.console import STDOUT, print_error, say
from tsfc.units.directories import redirectable_output, way_out
from tsfc.units.rendering import (
    JobSettings,
    render_sysusers,
    render_tmpfiles,
    render_units,
    unit_names,
    wanted_by,
)

TOOL = "units"
UNITS, TMPFILES, SYSUSERS = "/etc/systemd/system", "/etc/tmpfiles.d", "/etc/sysusers.d"
MARK = "# Written by `tsfc units --install`"
"First words of each installed file. Files without them are never replaced or removed."
HEADER = f"{MARK}, which replaces it. To change it, install with other options or add a drop-in.\n"
RUNNING = "/run/systemd/system"
"Exists if systemd is the running init system (sd_booted(3))."
TIMEOUT_SECONDS = 100.0
"Units have 90 s to stop (`DefaultTimeoutStopSec=`)."


def show(settings: Sequence[JobSettings]) -> int:
    """Print each file under its path, as `systemctl cat` does."""
    parts = (f"# {path}\n{text}" for path, text in _render_files(settings).items())
    say(STDOUT, "\n".join(parts).rstrip("\n"))
    return 0


def install(settings: Sequence[JobSettings], root: str) -> int:
    """Write all files below `root`, or none. Start the units if `root` is /."""
    # In an image, the owners of directories may not be final.
    redirectable = redirectable_output(settings, root) if _is_running_system(root) else None
    if redirectable is not None:
        print_error(TOOL, redirectable)
        return 1
    files = {_below(root, path): HEADER + text for path, text in _render_files(settings).items()}
    links = _links(root, [job.job for job in settings])
    if _leads_out("installing", (*files, *links), root):
        return 1
    # Files and links of the host, or of another package, stay as they are.
    foreign = [
        *(path for path in files if _is_foreign(path)),
        *(
            link
            for link, unit in links.items()
            if os.path.lexists(link) and not _is_link(link, unit)
        ),
    ]
    if foreign:
        print_error(
            TOOL,
            f"installing {foreign[0]}: it exists, and tsfc did not write it; "
            "check it and move it away. Nothing was changed",
        )
        return 1
    try:
        _write(files, links)
    except OSError as error:
        print_error(
            TOOL,
            f"installing the units in {_below(root, UNITS)}: {error.strerror}; "
            "run as root, or set --root to a directory that you may write to",
        )
        return 1
    for path in (*files, *links):
        say(STDOUT, f"wrote {path}")
    # The directories, and before them their group, must exist before the first run.
    return _run_commands(
        root,
        *(("systemd-sysusers", path) for path in files if _is_in(SYSUSERS, path)),
        *(("systemd-tmpfiles", "--create", path) for path in files if _is_in(TMPFILES, path)),
        ("systemctl", "daemon-reload"),
        ("systemctl", "restart", *map(os.path.basename, links)),
    )


def uninstall(jobs: Sequence[str], root: str) -> int:
    """Stop the units if `root` is /, and remove the files; metrics and state stay."""
    # Any part of an installation is removed, also without the rest.
    candidates = (
        *(f"{UNITS}/{name}" for job in jobs for name in unit_names(job)),
        *(f"{place}/tailscale-{job}.conf" for place in (TMPFILES, SYSUSERS) for job in jobs),
    )
    if _leads_out("removing", [_below(root, path) for path in candidates], root):
        return 1
    files = [path for path in (_below(root, path) for path in candidates) if os.path.lexists(path)]
    links = [link for link, unit in _links(root, jobs).items() if _is_link(link, unit)]
    # Units of the host, or of another package, are neither stopped nor removed.
    foreign = [path for path in files if _is_foreign(path)]
    if foreign:
        print_error(
            TOOL,
            f"removing {foreign[0]}: tsfc did not write it; "
            "check it and remove it by hand. Nothing was changed",
        )
        return 1
    if not files and not links:
        say(STDOUT, "there is nothing to remove")
        return 0
    # Stop the units before their files disappear.
    status = _stop(root, files)
    if status != 0:
        return status
    # The units name the metrics files, so they are read before they are removed.
    metrics = sorted({_below(root, path) for file in files for path in _metrics_paths(file)})
    try:
        for path in (*links, *files):
            os.unlink(path)
            say(STDOUT, f"removed {path}")
    except OSError as error:
        print_error(TOOL, f"removing {error.filename}: {error.strerror}; run as root")
        return 1
    for path in metrics:
        say(STDOUT, f"kept {path}; delete it, or Prometheus keeps scraping stale values")
    return _run_commands(root, ("systemctl", "daemon-reload"))


def _render_files(settings: Sequence[JobSettings]) -> dict[str, str]:
    """Return the text of each file by its path: units first."""
    units = {
        f"{UNITS}/{name}": text for job in settings for name, text in render_units(job).items()
    }
    others = {
        f"{place}/tailscale-{job.job}.conf": render(job)
        for place, render in ((TMPFILES, render_tmpfiles), (SYSUSERS, render_sysusers))
        for job in settings
    }
    return units | {path: text for path, text in others.items() if text is not None}


def _is_in(directory: str, path: str) -> bool:
    return os.path.dirname(path).endswith(directory)


def _links(root: str, jobs: Iterable[str]) -> dict[str, str]:
    """Return the links that `systemctl enable` makes, and their targets."""
    return {
        _below(root, f"{UNITS}/{target}.wants/{name}"): f"{UNITS}/{name}"
        for job in jobs
        for name in unit_names(job)
        if (target := wanted_by(name)) is not None
    }


def _below(root: str, path: str) -> str:
    return os.path.join(root, path.removeprefix("/"))


def _is_running_system(root: str) -> bool:
    return os.path.realpath(root) == "/"


def _leads_out(action: str, paths: Iterable[str], root: str) -> bool:
    """Whether the directory of a path leads out of `root`; then print an error."""
    found = way_out(map(os.path.dirname, paths), root)
    if found is None:
        return False
    directory, target = found
    print_error(
        TOOL,
        f"{action} the units in {directory}: links lead to {target}, which is not below {root}; "
        "remove the link. Nothing was changed",
    )
    return True


def _is_foreign(path: str) -> bool:
    """Whether there is a file that tsfc did not write, or a link (a masked unit)."""
    if os.path.islink(path):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(len(MARK)) != MARK.encode()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _is_link(link: str, target: str) -> bool:
    try:
        return os.readlink(link) == target
    except OSError:
        return False


def _metrics_paths(path: str) -> list[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        return re.findall(r'"--metrics-path" "([^"]+)"', file.read())


def _write(files: Mapping[str, str], links: Mapping[str, str]) -> None:
    """Write all or nothing: rename the files after all are on disk and linked."""
    with ExitStack() as stack:
        for path, text in files.items():
            directory, name = os.path.split(path)
            os.makedirs(directory, exist_ok=True)
            temporary = os.path.join(directory, f".{name}.{os.getpid()}.tmp")
            descriptor = stack.enter_context(atomic_write(path, temporary, 0o644))
            write_all(descriptor, text.encode())
        for path, target in links.items():
            stack.enter_context(_linked(path, target))


@contextmanager
def _linked(path: str, target: str) -> Generator[None, None, None]:
    """Make a link if there is none; remove it again if the block fails."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    exists = os.path.islink(path)
    if not exists:
        os.symlink(target, path)
    try:
        yield
    except BaseException:
        if not exists:
            os.unlink(path)
        raise


def _stop(root: str, files: Sequence[str]) -> int:
    """Stop the units in `files`; a template (`@`) cannot be stopped by its name."""
    names = [os.path.basename(path) for path in files if _is_in(UNITS, path)]
    units = [name for name in names if "@" not in name]
    return _run_commands(root, ("systemctl", "stop", *units)) if units else 0


def _run_commands(root: str, *commands: Sequence[str]) -> int:
    """Run commands up to the first failure; none if `root` is not a running system."""
    if not _is_running_system(root):
        return 0
    if not os.path.isdir(RUNNING):
        say(STDOUT, "systemd is not running, so nothing was started or stopped")
        return 0
    for command in commands:
        result = systemd.run(
            command,
            action=f"running `{' '.join(command)}`",
            advice="run it by hand to see more",
            timeout=TIMEOUT_SECONDS,
        )
        if isinstance(result, Failure):
            print_error(TOOL, result.failure())
            return 1
    return 0
