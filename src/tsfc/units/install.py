"""Print, install and remove the units on a host without NixOS."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain

from returns.result import Failure, Result, Success

from tsfc.core.text import PATH_LIMIT, printable
from tsfc.shell import defaults, signals, systemd, waiting
from tsfc.shell.atomic import atomic_write, temporary_path, write_all
from tsfc.shell.console import STDOUT, print_error, say, write_out
from tsfc.units.directories import below, redirectable_output, way_out
from tsfc.units.record import (
    UnitFiles,
    jobs_of_agent,
    program_of,
    record,
    record_in_agent,
    recorded_arguments,
    recorded_in_agent,
)
from tsfc.units.rendering import (
    AGENT,
    AGENT_JOBS,
    DROP_IN,
    JOBS,
    JobSettings,
    of_instance,
    render_drop_in,
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
METRICS_PATH = re.compile('--metrics-path"? "?([^" ]+)')
"The metrics file in an `ExecStart=`."
RUNNING = "/run/systemd/system"
"Exists if systemd is the running init system (sd_booted(3))."
TIMEOUT_SECONDS = 100.0
"Units have 90 s to stop (`DefaultTimeoutStopSec=`)."


def show(settings: Sequence[JobSettings]) -> int:
    """Print each file under its path, as `systemctl cat` does."""
    parts = (f"# {path}\n{text}" for path, text in _render_files(settings).items())
    write_out("\n".join(parts).rstrip("\n") + "\n")
    return 0


def installed_jobs(root: str, instance: str | None) -> tuple[str, ...]:
    """Return the jobs that tsfc installed below `root`, by a service or the agent."""
    in_agent = agent_jobs(root, instance)
    return tuple(
        job
        for job in JOBS
        if job in in_agent or _is_own(_unit_path(root, job, instance, "service"))
    )


def agent_jobs(root: str, instance: str | None) -> tuple[str, ...]:
    """Return the jobs of the agent that tsfc installed below `root`, if any."""
    path = _unit_path(root, AGENT, instance, "service")
    return jobs_of_agent(_read(path)) if _is_own(path) else ()


def jobs_that_run(program: str, root: str) -> dict[str | None, tuple[str, ...]]:
    """Return the jobs below `root` that start `program`, by their instance.

    The usual units, whose instance is None, come first. Instances without such a job
    are left out.
    """
    names = glob.glob("tailscale-*.service", root_dir=below(root, UNITS))
    pattern = f"tailscale-(?:{'|'.join((*JOBS, AGENT))})-([^@]+)[.]service"
    named = sorted({found[1] for name in names if (found := re.fullmatch(pattern, name))})
    jobs = {
        instance: tuple(
            job
            for job in installed_jobs(root, instance)
            if program_of(_read(_service_path(root, job, instance))) == program
        )
        for instance in (None, *named)
    }
    return {instance: found for instance, found in jobs.items() if found}


def installed_options(job: str, root: str, instance: str | None) -> Result[tuple[str, ...], str]:
    """Return the arguments of `tsfc units` that installed a job; none if nothing did.

    A failure is one line that says which file is the problem, and what to do.
    """
    if job not in installed_jobs(root, instance):
        return Success(())
    is_in_agent = job in agent_jobs(root, instance)
    unit = AGENT if is_in_agent else job
    path, timer = (_unit_path(root, unit, instance, kind) for kind in ("service", "timer"))
    try:
        files = UnitFiles(_read(path), _read(timer) if os.path.exists(timer) else "")
    except OSError as error:
        return Failure(
            f"reading the options of {error.filename}: {error.strerror}; "
            "run as root, or give all options again with --reset. Nothing was changed"
        )
    found = recorded_in_agent(job, files.service) if is_in_agent else recorded_arguments(job, files)
    if isinstance(found, Failure):
        return Failure(
            f"reading the options of {path}: {found.failure()}; "
            "give all options again with --reset. Nothing was changed"
        )
    return found


def install(
    settings: Sequence[JobSettings],
    root: str,
    *,
    kept: Mapping[str, Sequence[str]],
    is_upgrade: bool = False,
) -> int:
    """Write all files below `root`, or none. Start the units if `root` is /.

    Args:
        settings: of the jobs to install, and of the agent if it runs some of them; all
            of one instance. Units of the other kind, timers or the agent, are removed.
        root: directory that becomes / when its system runs.
        kept: jobs by each argument that was kept, to print them.
        is_upgrade: enable no unit, and restart only the running ones.
    """
    instance = settings[0].instance
    jobs = [job.job for job in settings]
    files = {below(root, path): text for path, text in _files_with_headers(settings).items()}
    all_links = _links(root, _with_agent(jobs), instance)
    of_files = {link: unit for link, unit in all_links.items() if below(root, unit) in files}
    links = {
        link: unit for link, unit in of_files.items() if not is_upgrade or _is_link(link, unit)
    }
    if not _can_install(settings, files, links, root):
        return 1
    obsolete = [path for path in _own_files(root, _with_agent(jobs), instance) if path not in files]
    obsolete_links = [
        link for link, unit in all_links.items() if link not in of_files and _is_link(link, unit)
    ]
    # The units name the metrics files, so they are read before they are replaced.
    named = {file for path in (*files, *obsolete) for file in _metrics_paths(path)}
    still_named = {file for text in files.values() for file in METRICS_PATH.findall(text)}
    stale = sorted(below(root, file) for file in named - still_named)
    changed_sockets = [
        path
        for path, text in files.items()
        if path.endswith(".socket") and os.path.exists(path) and _read(path) != text
    ]
    try:
        _write(files, links)
        status = _stop(root, obsolete)
        if status != 0:
            return status
        for path in (*obsolete_links, *obsolete):
            os.unlink(path)
    except OSError as error:
        print_error(
            TOOL,
            f"installing the units in {below(root, UNITS)}: {error.strerror}; "
            "run as root, check disk space, or set --root to a directory that you may write to",
        )
        return 1
    for argument, keepers in kept.items():
        _tell(f"kept {argument} for {', '.join(keepers)}")
    for path in files:
        _tell(f"wrote {path}")
    for path in (*obsolete_links, *obsolete):
        _tell(f"removed {path}")
    _tell_stale(stale)
    status = _start(
        root,
        files,
        list(map(os.path.basename, of_files)),
        changed_sockets,
        is_upgrade=is_upgrade,
    )
    if "watchdog" in jobs:
        _warn_without_keepalive(root, instance)
    _warn_without_program(settings, root)
    if status == 0:
        _tell(next_step(settings, root))
    return status


def next_step(settings: Sequence[JobSettings], root: str) -> str:
    """Return the line that says what to do after an installation."""
    if not _is_running_system(root):
        return f"started nothing, because {root} is not the running system; next: boot it"
    command = ["tsfc", "peers"]
    socket = settings[0].command[settings[0].command.index("--socket") + 1]
    if not defaults.is_default_socket(socket):
        command += ["--socket", socket]
    for job in (*settings, *chain(*(each.runs for each in settings))):
        if job.job == "watchdog" and job.output not in {None, defaults.WATCHDOG_PATH}:
            command += ["--watchdog-metrics", str(job.output)]
            break
    return f"next: {shlex.join(command)}"


def _can_install(
    settings: Sequence[JobSettings],
    files: Mapping[str, str],
    links: Mapping[str, str],
    root: str,
) -> bool:
    """Whether all files and links may be written; else print an error."""
    # In an image, the owners of directories may not be final.
    redirectable = redirectable_output(settings, root) if _is_running_system(root) else None
    if redirectable is not None:
        print_error(TOOL, redirectable)
        return False
    if _leads_out("installing", (*files, *links), root):
        return False

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
    return not foreign


def _start(
    root: str,
    files: Iterable[str],
    units: Sequence[str],
    changed_sockets: Sequence[str],
    *,
    is_upgrade: bool,
) -> int:
    """Start units on a running system; an upgrade only restarts the running ones.

    A changed socket is stopped before it is started: after a reload, systemd no longer
    removes the old Unix socket.
    """
    for name in () if is_upgrade else units:
        _tell(f"enabled {name}")
    # The directories, and before them their group, must exist before the first run.
    status = _run_commands(
        root,
        *(("systemd-sysusers", path) for path in files if _is_in(SYSUSERS, path)),
        *(("systemd-tmpfiles", "--create", path) for path in files if _is_in(TMPFILES, path)),
        *(
            ("systemctl", "stop", os.path.basename(path))
            for path in changed_sockets
            if not is_upgrade
        ),
        ("systemctl", "daemon-reload"),
        ("systemctl", "try-restart" if is_upgrade else "restart", *units),
    )
    if status == 0 and _is_running(root) and not is_upgrade:
        for name in units:
            _tell(f"started {name}")
    return status


def uninstall(jobs: Sequence[str], root: str, instance: str | None) -> int:
    """Stop the units if `root` is /, and remove the files; metrics and state stay.

    Args:
        jobs: jobs, and the agent.
        root: directory that is / when its system runs.
        instance: name of the set of units; None for the usual one.
    """
    # Any part of an installation is removed, also without the rest.
    candidates = (
        *(f"{UNITS}/{name}" for job in jobs for name in unit_names(job, instance)),
        *(_conf_path(place, job, instance) for place in (TMPFILES, SYSUSERS) for job in jobs),
    )
    if _leads_out("removing", [below(root, path) for path in candidates], root):
        return 1
    files = [path for path in (below(root, path) for path in candidates) if os.path.lexists(path)]
    files += _drop_ins(root, jobs, instance)
    links = [link for link, unit in _links(root, jobs, instance).items() if _is_link(link, unit)]
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
        _tell("there is nothing to remove")
        return 0
    # Stop the units before their files disappear.
    status = _stop(root, files)
    if status != 0:
        return status
    # The units name the metrics files, so they are read before they are removed.
    metrics = sorted({below(root, path) for file in files for path in _metrics_paths(file)})
    try:
        for path in (*links, *files):
            os.unlink(path)
            _tell(f"removed {path}")
    except OSError as error:
        print_error(TOOL, f"removing {error.filename}: {error.strerror}; run as root")
        return 1
    _tell_stale(metrics)
    if "keepalive" in jobs:
        _warn_without_keepalive(root, instance)
    return _run_commands(root, ("systemctl", "daemon-reload"))


def _warn_without_keepalive(root: str, instance: str | None) -> None:
    installed = installed_jobs(root, instance)
    if "watchdog" in installed and "keepalive" not in installed:
        print_error(
            TOOL,
            "the watchdog is installed without keepalive: idle peers fall back to a relay, and "
            "each can cause a restart; install keepalive, too",
        )


def _warn_without_program(settings: Sequence[JobSettings], root: str) -> None:
    for job in settings:
        program = job.notified_program
        if program is not None and not os.access(below(root, program), os.X_OK):
            print_error(
                TOOL,
                f"{program} is no program that can be started, so nobody is told what is new; put "
                "it there",
            )


def _render_files(settings: Sequence[JobSettings]) -> dict[str, str]:
    """Return the text of each file by its path: units first."""
    units = {
        f"{UNITS}/{name}": text
        for job in settings
        for name, text in (render_units(job) | render_drop_in(job)).items()
    }
    others = {
        _conf_path(place, job.job, job.instance): render(job)
        for place, render in ((TMPFILES, render_tmpfiles), (SYSUSERS, render_sysusers))
        for job in settings
    }
    return units | {path: text for path, text in others.items() if text is not None}


def _drop_ins(root: str, jobs: Sequence[str], instance: str | None) -> list[str]:
    """Return the installed drop-ins of units that the watchdog restarts."""
    if "watchdog" not in jobs:
        return []
    units = glob.escape(below(root, UNITS))
    found = glob.glob(f"{units}/*.service.d/{of_instance(DROP_IN, instance)}")
    return [path for path in sorted(found) if not _is_foreign(path)]


def _with_agent(jobs: Sequence[str]) -> Sequence[str]:
    """Return the jobs, and the agent if it could run some of them."""
    return [*dict.fromkeys((*jobs, AGENT))] if set(jobs) & {*AGENT_JOBS} else jobs


def _own_files(root: str, jobs: Sequence[str], instance: str | None) -> list[str]:
    """Return the installed units and drop-ins, and all files of the agent."""
    units = [f"{UNITS}/{name}" for job in jobs for name in unit_names(job, instance)]
    others = [_conf_path(place, AGENT, instance) for place in (TMPFILES, SYSUSERS)]
    paths = [below(root, path) for path in (*units, *(others if AGENT in jobs else ()))]
    return [path for path in paths if _is_own(path)] + _drop_ins(root, jobs, instance)


def _is_in(directory: str, path: str) -> bool:
    return os.path.dirname(path).endswith(directory)


def _files_with_headers(settings: Sequence[JobSettings]) -> dict[str, str]:
    """Return the text to write of each file; each service records the options."""
    records = {
        f"{UNITS}/{unit_names(job.job, job.instance)[0]}": (
            "".join(record_in_agent(each.job, each.options) for each in job.runs)
            if job.runs
            else record(job.options)
        )
        for job in settings
    }
    return {
        path: f"{HEADER}{records.get(path, '')}{text}"
        for path, text in _render_files(settings).items()
    }


def _unit_path(root: str, job: str, instance: str | None, kind: str) -> str:
    return below(root, f"{UNITS}/{of_instance(f'tailscale-{job}', instance)}.{kind}")


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _service_path(root: str, job: str, instance: str | None) -> str:
    """Return the path of the service that runs a job: its own, or the agent's."""
    unit = AGENT if job in agent_jobs(root, instance) else job
    return _unit_path(root, unit, instance, "service")


def _conf_path(place: str, job: str, instance: str | None) -> str:
    return f"{place}/{of_instance(f'tailscale-{job}', instance)}.conf"


def _links(root: str, jobs: Iterable[str], instance: str | None) -> dict[str, str]:
    """Return the links that `systemctl enable` makes, and their targets."""
    return {
        below(root, f"{UNITS}/{target}.wants/{name}"): f"{UNITS}/{name}"
        for job in jobs
        for shipped, name in zip(unit_names(job), unit_names(job, instance), strict=True)
        if (target := wanted_by(shipped)) is not None
    }


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


def _is_own(path: str) -> bool:
    """Whether there is a file that tsfc wrote."""
    return os.path.lexists(path) and not _is_foreign(path)


def _is_link(link: str, target: str) -> bool:
    try:
        return os.readlink(link) == target
    except OSError:
        return False


def _metrics_paths(path: str) -> list[str]:
    """Return the metrics files that a unit names, if there is one."""
    if not os.path.exists(path):
        return []
    return METRICS_PATH.findall(_read(path))


def _tell_stale(paths: Sequence[str]) -> None:
    """Name the metrics files that no unit writes any more, if they exist."""
    for path in paths:
        if os.path.lexists(path):
            _tell(f"kept {path}; delete it, or Prometheus keeps scraping stale values")


def _write(files: Mapping[str, str], links: Mapping[str, str]) -> None:
    """Write all or nothing: rename the files after all are on disk and linked."""
    with ExitStack() as stack:
        for path, text in files.items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            descriptor = stack.enter_context(atomic_write(path, temporary_path(path), 0o644))
            write_all(descriptor, text.encode())
        for path, target in links.items():
            stack.enter_context(_linked(path, target))


@contextmanager
def _linked(path: str, target: str) -> Generator[None, None, None]:
    """Make a link if there is none; remove it again if the block is not completed."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    exists = os.path.islink(path)
    if exists:
        yield
        return
    with signals.cleaning_up(lambda: os.unlink(path)):
        os.symlink(target, path)
        try:
            yield
        except BaseException:
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
    if not _is_running(root):
        _tell("systemd is not running, so nothing was started or stopped")
        return 0
    for command in commands:
        result = waiting.run(
            systemd.run(
                command,
                action=f"running `{' '.join(command)}`",
                advice="run it by hand to see more" if os.geteuid() == 0 else "run as root",
                timeout=TIMEOUT_SECONDS,
            )
        )
        if isinstance(result, Failure):
            print_error(TOOL, result.failure())
            return 1
    return 0


def _is_running(root: str) -> bool:
    return _is_running_system(root) and os.path.isdir(RUNNING)


def _tell(line: str) -> None:
    """Print a line on standard output. Paths and arguments can have any characters."""
    say(STDOUT, printable(line, 2 * PATH_LIMIT))
