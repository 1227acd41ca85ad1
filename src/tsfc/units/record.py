"""The options of installed units, read from the unit files of a job.

The service of each job has a comment with the arguments of `tsfc units` that were given
for this job; the service of the agent has one for each of its jobs. Thus the record
belongs to the file that it describes: both are written together, and removed together.
Defaults are not recorded, so a new version can change them.

tsfc 0.1 recorded nothing. Its options are read from the directives.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.units.rendering import AGENT_JOBS

_PREFIX, _PREFIX_IN_AGENT = "# Options: ", "# Options of {}: "
_JSON_STRING = r'"(?:[^"\\]|\\.)*"'


class _Record(Struct, frozen=True, forbid_unknown_fields=True):
    arguments: tuple[str, ...]
    version: Literal[1] = 1


class UnitFiles(NamedTuple):
    """The installed units of a job that depend on its options, as text."""

    service: str
    timer: str


def record(arguments: tuple[str, ...]) -> str:
    """Return the comment that records the arguments of a job, as a line."""
    return f"{_PREFIX}{msgspec.json.encode(_Record(arguments)).decode()}\n"


def record_in_agent(job: str, arguments: tuple[str, ...]) -> str:
    """Return the comment that records the arguments of a job in the agent."""
    return record(arguments).replace(_PREFIX, _PREFIX_IN_AGENT.format(job), 1)


def jobs_of_agent(service: str) -> tuple[str, ...]:
    """Return the jobs that the service of the agent records; all if none is found."""
    lines = tuple(
        job for job in AGENT_JOBS if f"\n{_PREFIX_IN_AGENT.format(job)}" in f"\n{service}"
    )
    return lines or AGENT_JOBS


def recorded_in_agent(job: str, service: str) -> Result[tuple[str, ...], str]:
    """Return the arguments of `tsfc units` that put a job in the agent.

    A failure is a phrase that says why they are unknown.
    """
    found = re.search(f"^{_PREFIX_IN_AGENT.format(job)}(.*)$", service, re.MULTILINE)
    return Failure("there is no record of them") if found is None else _decoded(found[1])


def recorded_arguments(job: str, files: UnitFiles) -> Result[tuple[str, ...], str]:
    """Return the arguments of `tsfc units` that installed the units of a job.

    A failure is a phrase that says why they are unknown.
    """
    found = re.search(f"^{_PREFIX}(.*)$", files.service, re.MULTILINE)
    if found is None:
        return _arguments_of_0_1(job, files)
    return _decoded(found[1])


def _decoded(text: str) -> Result[tuple[str, ...], str]:
    try:
        return Success(msgspec.json.decode(text, type=_Record).arguments)
    except msgspec.MsgspecError as error:
        return Failure(f"the record is damaged, or of a newer tsfc ({error})")


def program_of(service: str) -> str | None:
    """Return the program that a service starts; None if tsfc did not write it."""
    return next(iter(_command(service)), None)


class _Argument(NamedTuple):
    """An argument of a job, in the order of the command line."""

    name: str
    option: str | None
    "Option of `tsfc units` that sets it; None if it was always the same."
    is_flag: bool = False
    is_repeatable: bool = False
    suffix: str = ""
    "End of the argument that the option does not have."


_SHARED_0_1 = (
    _Argument("--tailscale", "tailscale-package", suffix="/bin/tailscale"),
    _Argument("--socket", "socket"),
)
_ARGUMENTS_0_1 = {
    "exporter": (*_SHARED_0_1, _Argument("--metrics-path", "exporter-metrics-path")),
    "native-metrics": (*_SHARED_0_1, _Argument("--metrics-path", "native-metrics-metrics-path")),
    "keepalive": (*_SHARED_0_1, _Argument("--metrics-path", "keepalive-metrics-path")),
    "watchdog": (
        _Argument("--restart-socket", None),
        *_SHARED_0_1,
        _Argument("--max-relay-seconds", "watchdog-max-relay-seconds"),
        _Argument("--cooldown-seconds", "watchdog-cooldown-seconds"),
        _Argument("--exclude-peer", "watchdog-exclude-peers", is_repeatable=True),
        _Argument("--dry-run", "watchdog-dry-run", is_flag=True),
        _Argument("--unit", "watchdog-unit"),
        _Argument("--metrics-path", "watchdog-metrics-path"),
    ),
    "capture": (
        _Argument("--max-size", None),
        _Argument("--keep", None),
        *_SHARED_0_1,
        _Argument("--output", "capture-output"),
        _Argument("--redact", "capture-redact", is_flag=True),
    ),
}
_DEFAULTS_0_1 = {
    "--socket=/run/tailscale/tailscaled.sock",
    "--exporter-interval=30s",
    "--exporter-metrics-path=/var/lib/alloy/tailscale-peers.prom",
    "--native-metrics-interval=15s",
    "--native-metrics-metrics-path=/var/lib/alloy/tailscale-native.prom",
    "--keepalive-interval=10s",
    "--watchdog-interval=1min",
    "--watchdog-max-relay-seconds=600",
    "--watchdog-cooldown-seconds=600",
    "--watchdog-unit=tailscaled.service",
    "--watchdog-metrics-path=/var/lib/alloy/tailscale-watchdog.prom",
    "--capture-interval=1min",
    "--capture-output=/var/lib/tailscale-capture/status.ndjson.zst",
}
"""Defaults of tsfc 0.1, which must not follow those of this version.

Whether they were given is unknown; they count as not given.
"""


def _arguments_of_0_1(job: str, files: UnitFiles) -> Result[tuple[str, ...], str]:
    command = _command(files.service)
    interval = re.search(r"^OnUnitActiveSec=(.+)$", files.timer, re.MULTILINE)
    if command[1:2] != (job,):
        return Failure("there is no record of them, and ExecStart= is not that of tsfc 0.1")
    if interval is None:
        return Failure("there is no record of them, and no OnUnitActiveSec= in the timer")
    arguments = (
        *_path_arguments(command, files.service),
        *_job_arguments(job, command[2:]),
        f"--{job}-interval={interval[1]}",
    )
    return Success(tuple(argument for argument in arguments if argument not in _DEFAULTS_0_1))


def _command(service: str) -> tuple[str, ...]:
    """Return the arguments of `ExecStart=`; none if tsfc 0.1 did not write it."""
    line = re.search(rf"^ExecStart=({_JSON_STRING}(?: {_JSON_STRING})*)$", service, re.MULTILINE)
    quoted: list[str] = re.findall(_JSON_STRING, line[1]) if line else []
    try:
        return tuple(json.loads(text).replace("%%", "%").replace("$$", "$") for text in quoted)
    except ValueError:
        return ()


def _path_arguments(command: tuple[str, ...], service: str) -> Iterator[str]:
    """Yield the arguments for the package, and for the paths that the sandbox shows.

    If the package is one of them, it is the tsfc that installed the units. The next
    paths may be those of its Python; showing them again does no harm.
    """
    package = command[0].removesuffix("/bin/tsfc")
    shown = re.findall(r"^BindReadOnlyPaths=-(.+)$", service, re.MULTILINE)
    own = {"/etc/ld.so.cache", package} | {
        os.path.dirname(value)
        for name, value in pairwise(command)
        if name in {"--socket", "--restart-socket"}
    }
    if package not in shown:
        yield f"--package={package}"
    for path in shown:
        if path not in own:
            yield f"--visible-paths={path}"


def _job_arguments(job: str, words: tuple[str, ...]) -> Iterator[str]:
    """Yield the options that set the arguments of a job; the rest are extra ones."""
    for argument in _ARGUMENTS_0_1[job]:
        while words[:1] == (argument.name,):
            size = 1 if argument.is_flag else 2
            if argument.option is not None:
                value = "" if argument.is_flag else f"={''.join(words[1:2])}"
                yield f"--{argument.option}{value.removesuffix(argument.suffix)}"
            words = words[size:]
            if not argument.is_repeatable:
                break
    for word in words:
        yield f"--{job}-extra-args={word}"
