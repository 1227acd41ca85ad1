"""The systemd units of the jobs as text.

`files/` has the units with the default options and tsfc in /opt/tsfc. Options change
some of their directives; all other lines are installed as shipped.
Directives: systemd.unit(5), systemd.exec(5), systemd.service(5), systemd.timer(5),
systemd.socket(5).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files

from msgspec import Struct

from tsfc.shell.defaults import UNIT

JOBS = ("exporter", "native-metrics", "keepalive", "watchdog", "capture")
DEFAULT_JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")
"Jobs that are installed if none is named."
AGENT = "agent"
"Name of the agent in the names of its unit and files; it is no job."
AGENT_JOBS = ("exporter", "native-metrics", "keepalive", "watchdog")
"Jobs that the agent can run."
RESTART_SOCKET = "/run/tailscale-watchdog/restart.sock"
"`ListenStream=` of tailscale-watchdog-restart.socket."
NOTIFY_SOCKET = "/run/tailscale-watchdog/notify.sock"
"`ListenStream=` of tailscale-watchdog-notify.socket."
OWN_DIRECTORY, OWN_GROUP = "/var/lib/tsfc", "tsfc"
"Directory and group in which jobs write metrics without a capability."
CAPTURE_DIRECTORY = "/var/lib/tailscale-capture"
"State directory of `capture`."
_CAPABILITY = "CAP_DAC_OVERRIDE"
_OF_WATCHDOG = "^(After|BindReadOnlyPaths|StateDirectory)=\\S*tailscale-watchdog.*\n"
"Lines of the agent's unit that it has only with the watchdog."
_SHIPPED_ACCESS = (
    "^(BindPaths|AmbientCapabilities|StateDirectoryMode|StateDirectory=tailscale-capture).*\n"
)
"Lines of the shipped units that `_access` replaces."
_HELPERS = ("tailscale-watchdog-restart.socket", "tailscale-watchdog-restart@.service")
_NOTIFIERS = ("tailscale-watchdog-notify.socket", "tailscale-watchdog-notify@.service")
"The watchdog has them if it tells somebody."
_OWN_NAMES = (
    "tailscale-(exporter|native-metrics|keepalive|watchdog-restart|watchdog-notify|watchdog|"
    "capture|agent)"
)
"Names of the units and their directories, which get the suffix of an instance."
_AGENT_SOCKET = "tailscale-agent.socket"
"The agent has it if it listens."
DROP_IN = "tailscale-watchdog.conf"
"Name of the drop-in of the unit that the helper restarts."
_DROP_IN_TEXT = """[Service]
# The file only exists during a restart on another port.
EnvironmentFile=-/run/tailscale-watchdog-restart/port.env
"""


class JobSettings(Struct, frozen=True, kw_only=True):
    """What the options decide about the units of one job, or of the agent."""

    job: str
    command: tuple[str, ...]
    "Program and arguments of `ExecStart=`."
    own_arguments: tuple[str, ...] = ()
    "Those of the job alone, without the ones that all jobs have."
    interval: str = ""
    "Time span from the start of one run to the start of the next."
    readable_paths: tuple[str, ...]
    "Paths that the sandbox shows to the job; the first is the directory of the socket."
    output: str | None
    "File that the job writes; None if it writes none."
    directory_mode: str = "-"
    "Mode of a new directory of `output`, as in tmpfiles.d(5); `-` is 0755."
    restarted_unit: str = UNIT
    "Unit that the helper of the watchdog restarts."
    cooldown_seconds: int = 600
    "The helper restarts the unit at most once in about this time."
    max_relay_seconds: int = 600
    "The helper does not restart a unit that was started more recently than this."
    has_other_port: bool = False
    "The helper may restart the unit on another port."
    notified_program: str | None = None
    "Program that is told what is new; None if nobody is told."
    instance: str | None = None
    "Name of a set of units for another tailscaled; None for the usual units."
    is_in_agent: bool = False
    "The agent runs the job, so it has no service and no timer."
    listen: str | None = None
    "`ListenStream=` of the agent; None if it answers no requests."
    runs: tuple[JobSettings, ...] = ()
    "Jobs that the agent runs; empty for a job."
    options: tuple[str, ...] = ()
    "Arguments of `tsfc units` that were given for this job."


def unit_names(job: str, instance: str | None = None) -> tuple[str, ...]:
    """Return the names of the units of a job, or of the agent."""
    return tuple(of_instance(name, instance) for name in _shipped_names(job))


def wanted_by(unit: str) -> str | None:
    """Return the target that starts a unit at boot; None for an activated service."""
    found = re.search(r"^WantedBy=(.+)$", _shipped(unit), re.MULTILINE)
    return found[1] if found else None


def of_instance(text: str, instance: str | None) -> str:
    """Return `text` with the names of units and directories of an instance.

    `tailscale-watchdog.timer` becomes `tailscale-watchdog-work.timer`, for example.
    """
    return text if instance is None else re.sub(_OWN_NAMES, rf"\g<0>-{instance}", text)


def render_units(settings: JobSettings) -> dict[str, str]:
    """Return the text of each unit of a job, or of the agent, by its name."""
    names = _shipped_names(settings.job)
    if settings.is_in_agent:
        names = tuple(name for name in names if name in (*_HELPERS, *_NOTIFIERS))
    if settings.listen is None:
        names = tuple(name for name in names if name != _AGENT_SOCKET)
    if settings.notified_program is None:
        names = tuple(name for name in names if name not in _NOTIFIERS)
    return {
        of_instance(name, settings.instance): _render(
            name, of_instance(_shipped(name), settings.instance), settings
        )
        for name in names
    }


def render_drop_in(settings: JobSettings) -> dict[str, str]:
    """Return the drop-in of the restarted unit, by its path below the units, if any."""
    if not settings.has_other_port:
        return {}
    path = f"{settings.restarted_unit}.d/{DROP_IN}"
    name, text = (of_instance(text, settings.instance) for text in (path, _DROP_IN_TEXT))
    return {name: text}


def render_tmpfiles(settings: JobSettings) -> str | None:
    """Return the lines of tmpfiles.d(5) that create the directory of the output."""
    if settings.output is None or _has_state_directory(settings):
        return None
    if _is_in_own_directory(settings):
        return f"d {OWN_DIRECTORY} 0775 root {OWN_GROUP} -\n"
    return f"d {os.path.dirname(settings.output)} {settings.directory_mode} - - -\n"


def render_sysusers(settings: JobSettings) -> str | None:
    """Return the lines of sysusers.d(5) that create the group of the directory."""
    return f"g {OWN_GROUP} - -\n" if _is_in_own_directory(settings) else None


def output_conflict(settings: Sequence[JobSettings]) -> str | None:
    """Return a message if two jobs have the same output; None otherwise."""
    writers: dict[str, str] = {}
    for job in settings:
        if job.output is None:
            continue
        if job.output in writers:
            return (
                f"{writers[job.output]} and {job.job} both write {job.output}; "
                "give each job a file of its own"
            )
        writers[job.output] = job.job
    return None


def _shipped_names(job: str) -> tuple[str, ...]:
    if job == AGENT:
        return ("tailscale-agent.service", _AGENT_SOCKET)
    helpers = (*_HELPERS, *_NOTIFIERS) if job == "watchdog" else ()
    return (f"tailscale-{job}.service", f"tailscale-{job}.timer", *helpers)


def _shipped(name: str) -> str:
    return files("tsfc.units").joinpath("files", name).read_text(encoding="utf-8")


def _render(name: str, text: str, settings: JobSettings) -> str:
    if name in _HELPERS:
        return _render_helper(text, settings)
    if name in _NOTIFIERS:
        return _render_notifier(text, settings)
    if settings.listen is not None and name == _AGENT_SOCKET:
        return _set(text, "ListenStream", settings.listen)
    return (
        _render_timer(text, settings.interval)
        if name.endswith(".timer")
        else _render_service(text, settings)
    )


def _render_service(text: str, settings: JobSettings) -> str:
    text = _set(text, "ExecStart", " ".join(map(_quoted, settings.command)))
    text = text.replace(
        "BindReadOnlyPaths=-/run/tailscale\n",
        "".join(f"BindReadOnlyPaths=-{path}\n" for path in settings.readable_paths),
    )
    if settings.job == AGENT and all(job.job != "watchdog" for job in settings.runs):
        text = re.sub(_OF_WATCHDOG, "", text, flags=re.MULTILINE)
    if settings.listen is not None:
        socket = of_instance(_AGENT_SOCKET, settings.instance)
        # Another program may hold the address. The jobs run anyway.
        of_socket = f"Wants={socket}\nPartOf={socket}\nAfter={socket}\n"
        text = text.replace("[Unit]\n", f"[Unit]\n{of_socket}")
    text = re.sub(_SHIPPED_ACCESS, "", text, flags=re.MULTILINE)
    service, install, target = text.partition("\n[Install]\n")
    service = _set(service, "CapabilityBoundingSet", "")
    for directives in _access(settings):
        service = _set(service, *directives)
    return service + install + target


def _access(settings: JobSettings) -> Iterator[tuple[str, *tuple[str, ...]]]:
    """Yield the directives that let a job write its output, each with its values."""
    writers = [job for job in (*settings.runs, settings) if job.output is not None]
    if not writers:
        return
    if _has_state_directory(settings):
        # systemd keeps it in /var/lib/private, which only root may enter.
        name = os.path.basename(of_instance(CAPTURE_DIRECTORY, settings.instance))
        yield "StateDirectory", name
        yield "StateDirectoryMode", "0700"
        return
    yield "BindPaths", *dict.fromkeys(f"-{_directory(job)}" for job in writers)
    # The watchdog needs the capability for the socket of its helper, too.
    if all(_is_in_own_directory(job) and job.job != "watchdog" for job in writers):
        yield "SupplementaryGroups", OWN_GROUP
        return
    # The directory may belong to any user, even a dynamic one, so the job needs the
    # capability to ignore file modes.
    yield "CapabilityBoundingSet", _CAPABILITY
    yield "AmbientCapabilities", _CAPABILITY


def _has_state_directory(settings: JobSettings) -> bool:
    own = of_instance(CAPTURE_DIRECTORY, settings.instance)
    return settings.job == "capture" and _directory(settings) == own


def _is_in_own_directory(settings: JobSettings) -> bool:
    return settings.job != "capture" and _directory(settings) == OWN_DIRECTORY


def _directory(settings: JobSettings) -> str | None:
    return None if settings.output is None else os.path.dirname(settings.output)


def _render_timer(text: str, interval: str) -> str:
    return _set(_set(text, "OnBootSec", interval), "OnUnitActiveSec", interval)


def _render_helper(text: str, settings: JobSettings) -> str:
    text = text.replace(UNIT, settings.restarted_unit)
    text = text.replace('"COOLDOWN=600"', f'"COOLDOWN={settings.cooldown_seconds}"')
    return text.replace('"MAX_RELAY=600"', f'"MAX_RELAY={settings.max_relay_seconds}"')


def _render_notifier(text: str, settings: JobSettings) -> str:
    program = settings.notified_program
    if program is None or "\nExecStart=" not in text:
        return text
    return _set(text, "ExecStart", _quoted(program))


def _set(text: str, directive: str, *values: str) -> str:
    """Return the text with new values of a directive, in its place or at the end."""
    lines = "".join(f"{directive}={value}\n" for value in values)
    new, count = re.subn(f"^{directive}=.*\n", lambda _: lines, text, flags=re.MULTILINE)
    return new if count else f"{text}{lines}"


def _quoted(argument: str) -> str:
    """Quote an argument for `ExecStart=`, like `escapeSystemdExecArg` of nixpkgs.

    JSON's escapes are those of C, which systemd reads.
    """
    return json.dumps(argument, ensure_ascii=False).replace("%", "%%").replace("$", "$$")
