"""The command line of `tsfc units`: the options of the NixOS modules, as flags.

`maxRelaySeconds` of the job `watchdog` is `--watchdog-max-relay-seconds`.

An option that is not given is absent from the parsed options. So an installation can
keep the options of the installed units, and change only the given ones.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from argparse import SUPPRESS
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from returns.result import Failure, Result, Success

from tsfc.cli import job_arguments
from tsfc.cli import values as cli_values
from tsfc.cli.common import Command
from tsfc.core import listen_address
from tsfc.core.text import printable
from tsfc.shell import defaults, signals
from tsfc.shell.console import print_error
from tsfc.units import install, own_package, values
from tsfc.units.rendering import (
    AGENT,
    AGENT_JOBS,
    DEFAULT_JOBS,
    JOBS,
    NOTIFY_SOCKET,
    RESTART_SOCKET,
    JobSettings,
    of_instance,
    output_conflict,
)

_SOCKET = defaults.SOCKET.removeprefix("/var")
"`/var/run` is a link to `/run`, and the sandbox hides `/var`."
Options = Mapping[str, Any]
"Given options by their names in the parsed command line, such as `exporter_interval`."
DEFAULTS: Options = {
    "package": None,
    "tailscale_package": None,
    "socket": _SOCKET,
    "metrics_dir": defaults.METRICS_DIR,
    "visible_paths": [],
    "labels": [],
    "agent": False,
    "agent_metrics_path": defaults.AGENT_PATH,
    "agent_adaptive_keepalive": False,
    "agent_listen": None,
    "agent_listen_anywhere": False,
    "exporter_interval": "30s",
    "exporter_metrics_path": defaults.EXPORTER_PATH,
    "exporter_accept_health": [],
    "exporter_omit_users": False,
    "exporter_args": [],
    "native_metrics_interval": "15s",
    "native_metrics_metrics_path": defaults.NATIVE_METRICS_PATH,
    "native_metrics_args": [],
    "keepalive_interval": "10s",
    "keepalive_exclude_peers": [],
    "keepalive_exclude_os": [],
    "keepalive_metrics_path": None,
    "keepalive_args": [],
    "watchdog_interval": "1min",
    "watchdog_max_relay_seconds": "10min",
    "watchdog_cooldown_seconds": "10min",
    "watchdog_exclude_peers": [],
    "watchdog_policy": "documented",
    "watchdog_budget": "6",
    "watchdog_remedies": "restart",
    "watchdog_dry_run": False,
    "watchdog_notify_exec": None,
    "watchdog_unit": defaults.UNIT,
    "watchdog_metrics_path": defaults.WATCHDOG_PATH,
    "watchdog_args": [],
    "capture_interval": "1min",
    "capture_output": "/var/lib/tailscale-capture/status.ndjson.zst",
    "capture_redact": False,
    "capture_args": [],
}
"Values of the options that are neither given nor kept."
_SHARED = frozenset(
    {"package", "tailscale_package", "socket", "metrics_dir", "visible_paths", "labels"}
)
"Options of all jobs."
_OF_AGENT = frozenset(name for name in DEFAULTS if re.match("agent(_|$)", name))
"Options of all jobs that the agent can run, even of those that are not named."
_OF_PACKAGES = frozenset({"upgrade", "uninstall-own"})
"Actions for the scripts of packages: on the units that run this tsfc, and on no other."
_OF_GUARDED = ("watchdog_budget", "watchdog_remedies")
"Options that only the guarded policy has."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions, the jobs and an option for each setting of a job."""
    _add_actions(parser)
    parser.add_argument(
        "jobs",
        nargs="*",
        metavar="JOB",
        type=_job,
        help=f"{', '.join(JOBS)} (default: the installed jobs; if there are none, "
        f"{', '.join(DEFAULT_JOBS)}; with --uninstall, all)",
    )
    parser.add_argument(
        "--root",
        type=_directory,
        default="/",
        metavar="DIR",
        help="root of the file system to change; its units are only started if it is that of the "
        "running system (default: %(default)s)",
    )
    parser.add_argument(
        "--instance",
        type=cli_values.instance,
        metavar="NAME",
        help="units of their own for another tailscaled on this host, such as "
        "tailscale-exporter-NAME.service; needs --socket and, for the watchdog, --watchdog-unit",
    )
    parser.add_argument(
        "--reset",
        action="store_true",
        help="do not keep the options of the installed units",
    )
    parser.add_argument(
        "--unset",
        type=_option_name,
        action="append",
        default=[],
        metavar="OPTION",
        help="do not keep this option, such as watchdog-dry-run; repeatable",
    )
    _add_settings(parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that are kept: absent from the parsed options if not given."""

    def group(title: str) -> argparse._ArgumentGroup:
        return parser.add_argument_group(title, argument_default=SUPPRESS)

    _add_shared(group("all jobs"))
    _add_agent(group("agent"))
    _add_exporter(group("exporter"))
    _add_native_metrics(group("native-metrics"))
    _add_keepalive(group("keepalive"))
    _add_watchdog(group("watchdog"))
    _add_capture(group("capture"))


class _Choice(NamedTuple):
    """What the command line and the installed units decide together."""

    settings: list[JobSettings]
    "One for each job."
    kept: dict[str, list[str]]
    "Jobs by each argument that they keep, printable and quoted for a shell."


class _Problem(NamedTuple):
    """Why nothing can be printed or installed."""

    line: str
    status: int = 2
    "Exit status."


def start(options: argparse.Namespace) -> int:
    """Perform the action and return the exit status."""
    signals.install()
    if options.action in _OF_PACKAGES:
        return _change_own(options)
    named = tuple(dict.fromkeys(options.jobs))
    if options.action == "uninstall":
        return _uninstall(options, named or JOBS)
    installed = install.installed_jobs(options.root, options.instance)
    jobs = named or installed or DEFAULT_JOBS
    # The agent runs all jobs that it can run, or none.
    has_agent = "agent" in options or bool(install.agent_jobs(options.root, options.instance))
    others = [job for job in installed if job in AGENT_JOBS and job not in jobs]
    return _perform(options, jobs, others if has_agent and {*jobs} & {*AGENT_JOBS} else ())


def _change_own(options: argparse.Namespace) -> int:
    """Upgrade or uninstall the units that run this tsfc, also those of instances."""
    if options.jobs or options.instance or options.reset or options.unset or _given(options):
        line = f"--{options.action} accepts no job, and no option except --root; leave them out"
        print_error(install.TOOL, line)
        return 2
    change = _uninstall if options.action == "uninstall-own" else _upgrade
    found = install.jobs_that_run(own_package.program(), options.root)
    return max(
        (
            change(argparse.Namespace(**{**vars(options), "instance": instance}), jobs)
            for instance, jobs in found.items()
        ),
        default=0,
    )


def _upgrade(options: argparse.Namespace, jobs: Sequence[str]) -> int:
    return _perform(options, jobs, ())


def _uninstall(options: argparse.Namespace, jobs: Sequence[str]) -> int:
    """Remove jobs; an agent that also runs other jobs stays for them."""
    root, instance = options.root, options.instance
    in_agent = install.agent_jobs(root, instance)
    left = [job for job in in_agent if job not in jobs]
    if not left:
        return install.uninstall((*jobs, AGENT), root, instance)
    if len(left) == len(in_agent):
        return install.uninstall(jobs, root, instance)
    status = _perform(options, left, ())
    return status if status != 0 else install.uninstall(jobs, root, instance)


def _perform(options: argparse.Namespace, jobs: Sequence[str], others: Sequence[str]) -> int:
    """Print or install jobs, with other installed jobs that the agent runs, too."""
    choice = _choose(options, jobs, others)
    if isinstance(choice, Failure):
        problem: _Problem = choice.failure()
        print_error(install.TOOL, problem.line)
        return problem.status
    settings, kept = choice.unwrap()
    if options.action == "print":
        return install.show(settings)
    return install.install(
        settings, options.root, kept=kept, is_upgrade=options.action == "upgrade"
    )


def _choose(
    options: argparse.Namespace, named: Sequence[str], others: Sequence[str]
) -> Result[_Choice, _Problem]:
    """Return the settings of jobs.

    Args:
        options: the command line.
        named: the jobs that the options concern.
        others: more installed jobs, which only keep their options, but move into the
            agent or out of it.
    """
    jobs = [job for job in JOBS if job in {*named, *others}]
    given = _given(options)
    for name in (*given, *options.unset):
        if not any(_concerns(name, job) for job in named):
            return Failure(
                _Problem(
                    f"{_flag(name)} has no effect: its job is not one of {', '.join(named)}; "
                    "name the job, too"
                )
            )
    kept: dict[str, Options] = {}
    for job in jobs:
        found = _kept(job, options, is_named=job in named)
        if isinstance(found, Failure):
            return Failure(_Problem(found.failure(), 1))
        kept[job] = {
            name: value
            for name, value in found.unwrap().items()
            if name not in given or not (job in named or name in _OF_AGENT)
        }
    chosen = _with_agent(
        {
            job: {
                **kept[job],
                **{
                    name: given[name]
                    for name in given
                    if _concerns(name, job) and (job in named or name in _OF_AGENT)
                },
            }
            for job in jobs
        }
    )
    problem = (
        _other_tailscaled_problem(chosen, options.instance)
        or _policy_problem(chosen)
        or _agent_problem(chosen, given)
    )
    if problem is not None:
        return Failure(_Problem(problem))
    # Without --package the units run this tsfc, which the sandbox has to show to them.
    own_directories: tuple[str, ...] = ()
    if any("package" not in settings for settings in chosen.values()):
        own_directories = own_package.visible_directories()
        starts_units = options.action != "print" and os.path.realpath(options.root) == "/"
        problem = own_package.problem(own_directories, starts_units=starts_units)
        if problem is not None:
            return Failure(_Problem(problem, 1))
    settings = [
        job_settings(argparse.Namespace(**chosen[job]), job, own_directories, options.instance)
        for job in jobs
    ]
    runs = tuple(each for each in settings if each.is_in_agent)
    if runs:
        of_first = argparse.Namespace(**chosen[runs[0].job])
        settings.append(agent_settings(of_first, runs))
    problem = output_conflict(settings) or next(
        filter(None, (job_arguments.problem(each.job, each.command[2:]) for each in settings)), None
    )
    if problem is not None:
        return Failure(_Problem(problem))
    return Success(_Choice(settings, _jobs_by_argument(kept)))


def _given(options: argparse.Namespace) -> Options:
    """Return the settings on the command line."""
    return {name: value for name, value in vars(options).items() if name in DEFAULTS}


def _kept(job: str, options: argparse.Namespace, *, is_named: bool) -> Result[Options, str]:
    """Return the options of the installed units of a job that are not reset."""
    if options.reset and is_named:
        return Success({})
    found = install.installed_options(job, options.root, options.instance)
    if isinstance(found, Failure):
        return found
    parsed = _parse(found.unwrap())
    if isinstance(parsed, Failure):
        return Failure(
            f"keeping the options of {job}: {parsed.failure()}; "
            "give all options again with --reset. Nothing was changed"
        )
    return Success(
        {
            name: value
            for name, value in parsed.unwrap().items()
            if name not in options.unset or not (is_named or name in _OF_AGENT)
        }
    )


def _with_agent(chosen: Mapping[str, Options]) -> dict[str, Options]:
    """Give the options of the agent to all jobs that it can run, or to none."""
    of_agent = {
        name: options[name]
        for options in chosen.values()
        for name in DEFAULTS
        if name in _OF_AGENT & options.keys()
    }
    if "agent" not in of_agent:
        of_agent = {}
    return {
        job: {name: value for name, value in options.items() if name not in _OF_AGENT}
        | (of_agent if job in AGENT_JOBS else {})
        for job, options in chosen.items()
    }


def _parse(arguments: Sequence[str]) -> Result[Options, str]:
    """Parse recorded arguments, with the checks of the command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    _add_settings(parser)
    try:
        parsed, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        return Failure(str(error))
    if unknown:
        return Failure(f"this version has no option {unknown[0]}")
    return Success(vars(parsed))


def _as_arguments(options: Options) -> tuple[str, ...]:
    """Return the arguments of the command line that give these options."""
    return tuple(chain(*(_option_arguments(name, options[name]) for name in options)))


def _option_arguments(name: str, value: str | list[str] | bool) -> list[str]:  # noqa: FBT001 - the value of a flag
    flag = _flag(name)
    if isinstance(value, bool):
        return [flag]
    if name.endswith("_args") and not isinstance(value, str):
        return [f"{flag}={shlex.join(value)}"]
    return [f"{flag}={text}" for text in ([value] if isinstance(value, str) else value)]


def _jobs_by_argument(kept: Mapping[str, Options]) -> dict[str, list[str]]:
    jobs: dict[str, list[str]] = {}
    for job, options in kept.items():
        for argument in _as_arguments(options):
            jobs.setdefault(shlex.quote(printable(argument, 300)), []).append(job)
    return jobs


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _concerns(name: str, job: str) -> bool:
    """Whether an option is one of this job, or of all jobs."""
    if name in _OF_AGENT:
        return job in AGENT_JOBS
    return name in _SHARED or name.startswith(f"{job.replace('-', '_')}_")


def _other_tailscaled_problem(chosen: Mapping[str, Options], instance: str | None) -> str | None:
    """Return why the socket and the unit may be those of two daemons; None if not."""
    without_socket = [job for job, options in chosen.items() if "socket" not in options]
    if instance is not None and without_socket:
        return (
            f"--instance {instance} is for another tailscaled than that of {_SOCKET}; give --socket"
        )
    watchdog = chosen.get("watchdog", {"watchdog_dry_run": True})
    if "watchdog_unit" in watchdog or "watchdog_dry_run" in watchdog:
        return None
    socket = watchdog.get("socket", _SOCKET)
    if instance is None and defaults.is_default_socket(socket):
        return None
    return (
        f"--socket {socket} may be that of another tailscaled than {defaults.UNIT}, which the "
        "watchdog would restart; give --watchdog-unit"
    )


def _policy_problem(chosen: Mapping[str, Options]) -> str | None:
    """Return why an option has no effect under the policy; None if all have one."""
    watchdog = chosen.get("watchdog", {})
    if watchdog.get("watchdog_policy") == "guarded":
        return None
    useless = next((name for name in _OF_GUARDED if name in watchdog), None)
    if useless is None:
        return None
    return (
        f"{_flag(useless)} is an option of the guarded policy; give --watchdog-policy guarded, "
        f"or drop a kept option with --unset {_flag(useless).removeprefix('--')}"
    )


def _agent_problem(chosen: Mapping[str, Options], given: Options) -> str | None:
    """Return why the agent cannot run the jobs as they are; None if it can."""
    jobs = [job for job, options in chosen.items() if "agent" in options]
    if not jobs:
        useless = sorted(_OF_AGENT & given.keys())
        return f"{_flag(useless[0])} is an option of the agent; give --agent" if useless else None
    for name in sorted(_SHARED):
        of_first, *of_others = (chosen[job].get(name) for job in jobs)
        if any(value != of_first for value in of_others):
            return (
                f"the jobs of the agent are one process, but differ in {_flag(name)}; "
                "give it without the names of jobs, to set it for all"
            )
    for job in jobs:
        interval = chosen[job].get(_name(job, "interval"), "1min")
        try:
            cli_values.interval(interval)
        except argparse.ArgumentTypeError:
            return f"{_flag(_name(job, 'interval'))} {interval}: the agent needs 1s or more"
    return _listen_problem(chosen[jobs[0]])


def _listen_problem(options: Options) -> str | None:
    """Return why the agent must not listen on the address; None if it may."""
    is_anywhere = "agent_listen_anywhere" in options
    if "agent_listen" not in options:
        return (
            "--agent-listen-anywhere has no effect without --agent-listen; give it, too, "
            "or drop a kept option with --unset agent-listen-anywhere"
            if is_anywhere
            else None
        )
    address = options["agent_listen"]
    found = listen_address.parsed(address)
    if found is None or is_anywhere or listen_address.is_near(found[0]):
        return None
    return f"--agent-listen {address}: {listen_address.far_problem('--agent-listen-anywhere')}"


def _add_actions(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_mutually_exclusive_group(required=True)
    for action, text in {
        "print": "print the units that --install would write",
        "install": "write, enable and start the units; replaces units that tsfc wrote before, "
        "and keeps their options",
        "uninstall": "stop and remove the units",
        "upgrade": "rewrite all units that run this tsfc, with their options and also those of "
        "instances; enables none, and restarts only the running ones (for packages)",
        "uninstall-own": "stop and remove all units that run this tsfc, also those of instances "
        "(for packages)",
    }.items():
        actions.add_argument(
            f"--{action}", dest="action", action="store_const", const=action, help=text
        )


def _add_shared(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--package",
        type=values.absolute_path,
        metavar="DIR",
        help="prefix in which tsfc is installed (default: that of this tsfc)",
    )
    group.add_argument(
        "--tailscale-package",
        type=values.absolute_path,
        metavar="DIR",
        help="prefix of the Tailscale whose CLI is used when the socket is unavailable "
        "(default: tailscaled counts as down)",
    )
    group.add_argument(
        "--socket",
        type=values.socket_path,
        metavar="PATH",
        help=f"LocalAPI socket of tailscaled (default: {_SOCKET})",
    )
    group.add_argument(
        "--metrics-dir",
        type=values.metrics_directory,
        metavar="DIR",
        help="directory of all metrics files whose path is not given; a missing one is created "
        f"(default: {DEFAULTS['metrics_dir']})",
    )
    group.add_argument(
        "--visible-paths",
        type=values.absolute_path,
        action="append",
        metavar="PATH",
        help="path that the sandbox shows to the jobs, read-only; repeatable",
    )
    group.add_argument(
        "--labels",
        type=_label,
        action="append",
        metavar="NAME=VALUE",
        help="label of all series of the jobs, if Prometheus collects several tailscaleds of one "
        "host; repeatable (default: tailscaled=NAME with --instance, else none)",
    )


def _add_agent(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--agent",
        action="store_const",
        const=True,
        help=f"run {', '.join(AGENT_JOBS)} in one process that stays, tailscale-agent.service, "
        "instead of starting each by a timer; go back with --unset agent",
    )
    group.add_argument(
        "--agent-adaptive-keepalive",
        action="store_const",
        const=True,
        help="ping a peer again only before tailscaled gives up its direct path",
    )
    group.add_argument(
        "--agent-listen",
        type=values.listen_address,
        metavar="ADDRESS",
        help="answer HTTP requests on IP:PORT, or on a Unix socket in /run/tsfc; the IP must be "
        "loopback or one of Tailscale's (default: no requests)",
    )
    group.add_argument(
        "--agent-listen-anywhere",
        action="store_const",
        const=True,
        help="listen on any other IP address, too",
    )
    _add_metrics_path(group, AGENT)


def _add_exporter(group: argparse._ArgumentGroup) -> None:
    _add_interval(group, "exporter")
    group.add_argument(
        "--exporter-accept-health",
        type=values.argument,
        action="append",
        metavar="PATTERN",
        help="count health messages that match this shell pattern apart from the others; "
        "repeatable",
    )
    group.add_argument(
        "--exporter-omit-users",
        action="store_const",
        const=True,
        help="leave the label `user`, the login names of the peers' owners, empty",
    )
    _add_metrics_path(group, "exporter")
    _add_extra_args(group, "exporter")


def _add_native_metrics(group: argparse._ArgumentGroup) -> None:
    _add_interval(group, "native-metrics")
    _add_metrics_path(group, "native-metrics")
    _add_extra_args(group, "native-metrics")


def _add_keepalive(group: argparse._ArgumentGroup) -> None:
    _add_interval(group, "keepalive")
    group.add_argument(
        "--keepalive-exclude-peers",
        type=values.argument,
        action="append",
        metavar="NAME",
        help="never ping this peer, named as for `tsfc keepalive --exclude-peer`; repeatable",
    )
    group.add_argument(
        "--keepalive-exclude-os",
        type=values.argument,
        action="append",
        metavar="OS",
        help="never ping peers with this operating system, such as iOS or android; repeatable",
    )
    _add_metrics_path(group, "keepalive")
    _add_extra_args(group, "keepalive")


def _add_watchdog(group: argparse._ArgumentGroup) -> None:
    _add_interval(group, "watchdog")
    group.add_argument(
        "--watchdog-max-relay-seconds",
        type=values.seconds,
        metavar="SPAN",
        help="restart tailscaled if a peer is on relay for longer "
        f"(default: {DEFAULTS['watchdog_max_relay_seconds']})",
    )
    group.add_argument(
        "--watchdog-cooldown-seconds",
        type=values.seconds,
        metavar="SPAN",
        help="time after a restart without another one "
        f"(default: {DEFAULTS['watchdog_cooldown_seconds']})",
    )
    group.add_argument(
        "--watchdog-exclude-peers",
        type=values.argument,
        action="append",
        metavar="NAME",
        help="never restart because of this peer, named as for `tsfc watchdog --exclude-peer`; "
        "repeatable",
    )
    group.add_argument(
        "--watchdog-policy",
        type=values.policy,
        metavar="POLICY",
        help="documented: restart tailscaled whenever a peer is on relay for too long; guarded: "
        f"only where a restart is likely to help (default: {DEFAULTS['watchdog_policy']})",
    )
    group.add_argument(
        "--watchdog-budget",
        type=values.budget,
        metavar="N",
        help="maximum number of restarts in 24 hours that did not help, with the guarded policy "
        f"(default: {DEFAULTS['watchdog_budget']})",
    )
    group.add_argument(
        "--watchdog-remedies",
        type=values.remedies,
        metavar="REMEDY,…",
        help="what the guarded policy may do: restart, or restart,other-port, which also restarts "
        "tailscaled on another UDP port; not where a firewall opens only one port "
        f"(default: {DEFAULTS['watchdog_remedies']})",
    )
    group.add_argument(
        "--watchdog-dry-run",
        action="store_const",
        const=True,
        help="log decisions, but keep no state and restart nothing",
    )
    group.add_argument(
        "--watchdog-notify-exec",
        type=values.absolute_path,
        metavar="PROGRAM",
        help="program to start when there is news, as for `tsfc watchdog --notify-exec`, in a "
        "unit of its own that has network access",
    )
    group.add_argument(
        "--watchdog-unit",
        type=values.service_name,
        metavar="UNIT",
        help=f"unit to restart (default: {defaults.UNIT})",
    )
    _add_metrics_path(group, "watchdog")
    _add_extra_args(group, "watchdog")


def _add_capture(group: argparse._ArgumentGroup) -> None:
    _add_interval(group, "capture")
    group.add_argument(
        "--capture-output",
        type=values.capture_path,
        metavar="PATH",
        help="capture to append to; a missing directory is created for root only, because a "
        f"status names people and places (default: {DEFAULTS['capture_output']})",
    )
    group.add_argument(
        "--capture-redact",
        action="store_const",
        const=True,
        help="replace names, keys, addresses, users, tags and domains by pseudonyms",
    )
    _add_extra_args(group, "capture")


def _add_interval(group: argparse._ArgumentGroup, job: str) -> None:
    group.add_argument(
        f"--{job}-interval",
        type=values.time_span,
        metavar="SPAN",
        help="time between the starts of two runs, and from boot to the first run "
        f"(default: {DEFAULTS[_name(job, 'interval')]})",
    )


def _add_metrics_path(group: argparse._ArgumentGroup, job: str) -> None:
    default = DEFAULTS[_name(job, "metrics_path")]
    file = None if default is None else f"{os.path.basename(default)} in --metrics-dir"
    group.add_argument(
        f"--{job}-metrics-path",
        type=values.metrics_path,
        metavar="PATH",
        help="file to write metrics to; a missing directory is created "
        f"(default: {file or 'no metrics'})",
    )


def _add_extra_args(group: argparse._ArgumentGroup, job: str) -> None:
    group.add_argument(
        f"--{job}-args",
        type=_extra_args,
        action="extend",
        metavar="ARGUMENTS",
        help=f"additional options of `tsfc {job}`, as in a shell: --{job}-args='--timeout 5s'",
    )
    # The spelling of tsfc 0.1: one argument, repeatable.
    group.add_argument(
        f"--{job}-extra-args",
        dest=f"{job}_args".replace("-", "_"),
        type=values.argument,
        action="append",
        help=SUPPRESS,
    )


def job_settings(
    options: argparse.Namespace,
    job: str,
    own_directories: Iterable[str],
    instance: str | None = None,
) -> JobSettings:
    """Return the settings of a job.

    Args:
        options: the given and the kept options; others have their defaults.
        job: one of `JOBS`.
        own_directories: what the job may read if it runs the tsfc that runs now.
        instance: name of the set of units; None for the usual one.
    """
    # In one order, so that the record of the same options is the same.
    given = {name: vars(options)[name] for name in DEFAULTS if name in options}
    options = argparse.Namespace(**(_defaults(instance, given.get("metrics_dir")) | given))
    output = options.capture_output if job == "capture" else _option(options, job, "metrics_path")
    return JobSettings(
        job=job,
        command=(
            own_package.program(options.package),
            job,
            *_arguments(options, job, instance, shared=_shared(options), labels=_labels(options)),
            *_option(options, job, "args"),
        ),
        own_arguments=(
            *_arguments(options, job, instance, shared=(), labels=()),
            *_option(options, job, "args"),
        ),
        interval=_option(options, job, "interval"),
        readable_paths=tuple(
            dict.fromkeys(
                (
                    os.path.dirname(options.socket),
                    *(own_directories if options.package is None else ()),
                    *options.visible_paths,
                )
            )
        ),
        output=output,
        directory_mode=":0700" if job == "capture" else "-",
        restarted_unit=options.watchdog_unit,
        cooldown_seconds=cli_values.whole_seconds(options.watchdog_cooldown_seconds),
        max_relay_seconds=cli_values.whole_seconds(options.watchdog_max_relay_seconds),
        notified_program=options.watchdog_notify_exec if job == "watchdog" else None,
        has_other_port=job == "watchdog" and "other-port" in options.watchdog_remedies,
        instance=instance,
        is_in_agent=options.agent and job in AGENT_JOBS,
        options=_as_arguments(given),
    )


def agent_settings(options: argparse.Namespace, runs: tuple[JobSettings, ...]) -> JobSettings:
    """Return the settings of the agent.

    Args:
        options: the given and the kept options of one of its jobs; all share those that
            the agent needs.
        runs: the settings of its jobs.
    """
    first = runs[0]
    metrics_dir = vars(options).get("metrics_dir")
    options = argparse.Namespace(**(_defaults(first.instance, metrics_dir) | vars(options)))
    instance = () if first.instance is None else ("--instance", first.instance)
    return JobSettings(
        job=AGENT,
        command=(
            *(first.command[0], AGENT, "--jobs", ",".join(job.job for job in runs)),
            *(*instance, *_shared(options), *_labels(options)),
            *("--metrics-path", options.agent_metrics_path),
            *(("--adaptive-keepalive",) if options.agent_adaptive_keepalive else ()),
            *(("--listen", "systemd") if options.agent_listen is not None else ()),
            *chain(*map(_job_in_agent, runs)),
        ),
        readable_paths=first.readable_paths,
        output=options.agent_metrics_path,
        listen=options.agent_listen,
        instance=first.instance,
        runs=runs,
    )


def _job_in_agent(settings: JobSettings) -> Iterable[str]:
    """Return the arguments of the agent for one of its jobs."""
    yield from (f"--{settings.job}-interval", settings.interval)
    # A value that begins with "-" needs the "=".
    if settings.own_arguments:
        yield f"--{settings.job}-args={shlex.join(settings.own_arguments)}"


def _defaults(instance: str | None, metrics_dir: str | None) -> dict[str, Any]:
    """Return the defaults of the options; an instance has its own files and labels."""
    ending = ".prom" if instance is None else f"-{instance}.prom"
    paths = {
        name: os.path.join(
            metrics_dir or DEFAULTS["metrics_dir"],
            f"{os.path.basename(value).removesuffix('.prom')}{ending}",
        )
        for name, value in DEFAULTS.items()
        if name.endswith("metrics_path") and value is not None
    }
    if instance is None:
        return {**DEFAULTS, **paths}
    return {
        **DEFAULTS,
        **paths,
        "capture_output": of_instance(DEFAULTS["capture_output"], instance),
        "labels": [f"tailscaled={instance}"],
    }


def _option(options: argparse.Namespace, job: str, name: str) -> Any:  # noqa: ANN401 - argparse does not know the types
    return getattr(options, _name(job, name))


def _name(job: str, name: str) -> str:
    return f"{job.replace('-', '_')}_{name}"


def _shared(options: argparse.Namespace) -> Sequence[str]:
    socket = ("--socket", options.socket)
    if options.tailscale_package is None:
        return socket
    return ("--tailscale", f"{options.tailscale_package}/bin/tailscale", *socket)


def _labels(options: argparse.Namespace) -> Sequence[str]:
    return tuple(chain(*(("--label", label) for label in options.labels)))


def _arguments(
    options: argparse.Namespace,
    job: str,
    instance: str | None,
    *,
    shared: Sequence[str],
    labels: Sequence[str],
) -> list[str]:
    match job:
        case "capture":
            return [
                *("--max-size", "64M", "--keep", "5", *shared),
                *("--output", options.capture_output),
                *(["--redact"] if options.capture_redact else []),
            ]
        case "watchdog":
            state = (
                ()
                if instance is None
                else ("--state-dir", of_instance(defaults.STATE_DIR, instance))
            )
            return [
                *("--restart-socket", of_instance(RESTART_SOCKET, instance), *state, *shared),
                *("--max-relay-seconds", _seconds(options.watchdog_max_relay_seconds)),
                *("--cooldown-seconds", _seconds(options.watchdog_cooldown_seconds)),
                *chain(*(("--exclude-peer", peer) for peer in options.watchdog_exclude_peers)),
                *_policy_arguments(options, instance),
                *(["--dry-run"] if options.watchdog_dry_run else []),
                *_notify_arguments(options, instance),
                *("--unit", options.watchdog_unit),
                *("--metrics-path", options.watchdog_metrics_path),
                *labels,
            ]
        case "exporter":
            patterns = options.exporter_accept_health
            return [
                *shared,
                *chain(*(("--accept-health", pattern) for pattern in patterns)),
                *("--metrics-path", options.exporter_metrics_path),
                *(["--omit-users"] if options.exporter_omit_users else []),
                *labels,
            ]
        case "keepalive":
            path = options.keepalive_metrics_path
            return [
                *(*shared, *(["--metrics-path", path] if path is not None else [])),
                *chain(*(("--exclude-peer", peer) for peer in options.keepalive_exclude_peers)),
                *chain(*(("--exclude-os", system) for system in options.keepalive_exclude_os)),
                *labels,
            ]
        case _:
            return [*shared, "--metrics-path", _option(options, job, "metrics_path"), *labels]


def _notify_arguments(options: argparse.Namespace, instance: str | None) -> list[str]:
    if options.watchdog_notify_exec is None:
        return []
    return ["--notify-socket", of_instance(NOTIFY_SOCKET, instance)]


def _seconds(text: str) -> str:
    """Return the seconds of a time span as the modules write them."""
    return str(cli_values.whole_seconds(text))


def _policy_arguments(options: argparse.Namespace, instance: str | None) -> list[str]:
    if options.watchdog_policy == "documented":
        return []
    pause = () if instance is None else ("--pause", of_instance(defaults.PAUSE_FILE, instance))
    return [
        *("--policy", options.watchdog_policy, "--budget", options.watchdog_budget),
        *("--remedies", options.watchdog_remedies, *pause),
    ]


def _job(text: str) -> str:
    if text not in JOBS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a job; the jobs are {', '.join(JOBS)}")
    return text


def _option_name(text: str) -> str:
    name = text.removeprefix("--").replace("-", "_").replace("_extra_args", "_args")
    if name not in DEFAULTS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an option of the units, such as watchdog-dry-run"
        )
    return name


def _label(text: str) -> str:
    if not re.fullmatch("(?!__)[A-Za-z_][A-Za-z0-9_]*=.*", values.argument(text), re.DOTALL):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as 'tailscaled=work'")
    return text


def _extra_args(text: str) -> list[str]:
    return cli_values.arguments(values.argument(text))


def _directory(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("'' is not a directory; the running system's root is /")
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a directory; create it first")
    return text


COMMANDS = {
    "units": Command(
        "Print, install or remove the systemd units of the jobs",
        add_arguments,
        start,
        "units.md",
        {
            "tsfc units --print": "print the units, and change nothing",
            "tsfc units --install --watchdog-policy guarded": "install and start them",
        },
    )
}
