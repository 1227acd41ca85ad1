"""The command line of `tsfc units`: the options of the NixOS modules, as flags.

`maxRelaySeconds` of the job `watchdog` is `--watchdog-max-relay-seconds`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from itertools import chain
from typing import Any

from tsfc.cli.common import Command
from tsfc.shell import defaults
from tsfc.shell.console import print_error
from tsfc.units import install, own_package, values
from tsfc.units.rendering import (
    DEFAULT_JOBS,
    JOBS,
    RESTART_SOCKET,
    JobSettings,
    output_conflict,
)

_SOCKET = defaults.SOCKET.removeprefix("/var")
"`/var/run` is a link to `/run`, and the sandbox hides `/var`."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions, the jobs and an option for each setting of a job."""
    _add_actions(parser)
    parser.add_argument(
        "jobs",
        nargs="*",
        metavar="JOB",
        type=_job,
        help=f"{', '.join(JOBS)} (default: {', '.join(DEFAULT_JOBS)}; with --uninstall, all)",
    )
    parser.add_argument(
        "--root",
        type=_directory,
        default="/",
        metavar="DIR",
        help="root of the file system to change (default: %(default)s)",
    )
    _add_shared(parser.add_argument_group("all jobs"))
    _add_exporter(parser.add_argument_group("exporter"))
    _add_native_metrics(parser.add_argument_group("native-metrics"))
    _add_keepalive(parser.add_argument_group("keepalive"))
    _add_watchdog(parser.add_argument_group("watchdog"))
    _add_capture(parser.add_argument_group("capture"))


def start(options: argparse.Namespace) -> int:
    """Perform the action and return the exit status."""
    jobs = tuple(dict.fromkeys(options.jobs))
    if options.action == "uninstall":
        return install.uninstall(jobs or JOBS, options.root)
    # Without --package the units run this tsfc, which the sandbox has to show to them.
    own_directories: tuple[str, ...] = ()
    if options.package is None:
        own_directories = own_package.visible_directories()
        starts_units = options.action == "install" and os.path.realpath(options.root) == "/"
        problem = own_package.problem(own_directories, starts_units=starts_units)
        if problem is not None:
            print_error(install.TOOL, problem)
            return 1
    settings = [job_settings(options, job, own_directories) for job in jobs or DEFAULT_JOBS]
    conflict = output_conflict(settings)
    if conflict is not None:
        print_error(install.TOOL, conflict)
        return 2
    if options.action == "print":
        return install.show(settings)
    return install.install(settings, options.root)


def _add_actions(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_mutually_exclusive_group(required=True)
    for action, text in {
        "print": "print the units",
        "install": "write, enable and start the units; replaces units that tsfc wrote before",
        "uninstall": "stop and remove the units",
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
        default=_SOCKET,
        metavar="PATH",
        help="LocalAPI socket of tailscaled (default: %(default)s)",
    )
    group.add_argument(
        "--visible-paths",
        type=values.absolute_path,
        action="append",
        default=[],
        metavar="PATH",
        help="path that the sandbox shows to the jobs, read-only; repeatable",
    )


def _add_exporter(group: argparse._ArgumentGroup) -> None:
    _add_interval(group, "exporter", "30s")
    group.add_argument(
        "--exporter-accept-health",
        type=values.argument,
        action="append",
        default=[],
        metavar="PATTERN",
        help="count health messages that match this shell pattern apart from the others; "
        "repeatable",
    )
    group.add_argument(
        "--exporter-omit-users",
        action="store_true",
        help="leave the label `user`, the login names of the peers' owners, empty",
    )
    _add_metrics_path(group, "exporter", defaults.EXPORTER_PATH)
    _add_extra_args(group, "exporter")


def _add_native_metrics(group: argparse._ArgumentGroup) -> None:
    _add_interval(group, "native-metrics", "15s")
    _add_metrics_path(group, "native-metrics", defaults.NATIVE_METRICS_PATH)
    _add_extra_args(group, "native-metrics")


def _add_keepalive(group: argparse._ArgumentGroup) -> None:
    _add_interval(group, "keepalive", "10s")
    group.add_argument(
        "--keepalive-exclude-peers",
        type=values.argument,
        action="append",
        default=[],
        metavar="NAME",
        help="never ping this peer, named as in the label `peer`; repeatable",
    )
    group.add_argument(
        "--keepalive-exclude-os",
        type=values.argument,
        action="append",
        default=[],
        metavar="OS",
        help="never ping peers with this operating system, such as iOS or android; repeatable",
    )
    _add_metrics_path(group, "keepalive", None)
    _add_extra_args(group, "keepalive")


def _add_watchdog(group: argparse._ArgumentGroup) -> None:
    _add_interval(group, "watchdog", "1min")
    group.add_argument(
        "--watchdog-max-relay-seconds",
        type=values.seconds,
        default="600",
        metavar="SECONDS",
        help="restart tailscaled if a peer is on relay for longer (default: %(default)s)",
    )
    group.add_argument(
        "--watchdog-cooldown-seconds",
        type=values.seconds,
        default="600",
        metavar="SECONDS",
        help="time after a restart without another one (default: %(default)s)",
    )
    group.add_argument(
        "--watchdog-exclude-peers",
        type=values.argument,
        action="append",
        default=[],
        metavar="NAME",
        help="never restart because of this peer, named as in the label `peer`; repeatable",
    )
    group.add_argument(
        "--watchdog-dry-run",
        action="store_true",
        help="log decisions, but keep no state and restart nothing",
    )
    group.add_argument(
        "--watchdog-unit",
        type=values.service_name,
        default="tailscaled.service",
        metavar="UNIT",
        help="unit to restart (default: %(default)s)",
    )
    _add_metrics_path(group, "watchdog", defaults.WATCHDOG_PATH)
    _add_extra_args(group, "watchdog")


def _add_capture(group: argparse._ArgumentGroup) -> None:
    _add_interval(group, "capture", "1min")
    group.add_argument(
        "--capture-output",
        type=values.capture_path,
        default="/var/lib/tailscale-capture/status.ndjson.zst",
        metavar="PATH",
        help="capture to append to; a missing directory is created for root only, because a "
        "status names people and places (default: %(default)s)",
    )
    group.add_argument(
        "--capture-redact",
        action="store_true",
        help="replace names, keys, addresses, users, tags and domains by pseudonyms",
    )
    _add_extra_args(group, "capture")


def _add_interval(group: argparse._ArgumentGroup, job: str, default: str) -> None:
    group.add_argument(
        f"--{job}-interval",
        type=values.time_span,
        default=default,
        metavar="TIME",
        help="time between the starts of two runs, and from boot to the first run "
        "(default: %(default)s)",
    )


def _add_metrics_path(group: argparse._ArgumentGroup, job: str, default: str | None) -> None:
    group.add_argument(
        f"--{job}-metrics-path",
        type=values.metrics_path,
        default=default,
        metavar="PATH",
        help="file to write metrics to; a missing directory is created "
        f"(default: {default or 'no metrics'})",
    )


def _add_extra_args(group: argparse._ArgumentGroup, job: str) -> None:
    group.add_argument(
        f"--{job}-extra-args",
        type=values.argument,
        action="append",
        default=[],
        metavar="ARGUMENT",
        help="additional argument of the job; repeatable",
    )


def job_settings(
    options: argparse.Namespace, job: str, own_directories: Iterable[str]
) -> JobSettings:
    """Return the settings of a job, which may also read `own_directories`."""
    output = options.capture_output if job == "capture" else _option(options, job, "metrics_path")
    return JobSettings(
        job=job,
        command=(
            f"{options.package or sys.prefix}/bin/tsfc",
            job,
            *_arguments(options, job),
            *_option(options, job, "extra_args"),
        ),
        interval=_option(options, job, "interval"),
        readable_paths=(
            os.path.dirname(options.socket),
            *own_directories,
            *options.visible_paths,
        ),
        output=output,
        directory_mode=":0700" if job == "capture" else "-",
        restarted_unit=options.watchdog_unit,
        cooldown_seconds=int(options.watchdog_cooldown_seconds),
        max_relay_seconds=int(options.watchdog_max_relay_seconds),
    )


def _option(options: argparse.Namespace, job: str, name: str) -> Any:  # noqa: ANN401 - argparse does not know the types
    return getattr(options, f"{job.replace('-', '_')}_{name}")


def _arguments(options: argparse.Namespace, job: str) -> list[str]:
    shared = ["--socket", options.socket]
    if options.tailscale_package is not None:
        shared = ["--tailscale", f"{options.tailscale_package}/bin/tailscale", *shared]
    match job:
        case "watchdog":
            return [
                *("--restart-socket", RESTART_SOCKET, *shared),
                *("--max-relay-seconds", options.watchdog_max_relay_seconds),
                *("--cooldown-seconds", options.watchdog_cooldown_seconds),
                *chain(*(("--exclude-peer", peer) for peer in options.watchdog_exclude_peers)),
                *(["--dry-run"] if options.watchdog_dry_run else []),
                *("--unit", options.watchdog_unit),
                *("--metrics-path", options.watchdog_metrics_path),
            ]
        case "capture":
            return [
                *("--max-size", "64M", "--keep", "5", *shared),
                *("--output", options.capture_output),
                *(["--redact"] if options.capture_redact else []),
            ]
        case "exporter":
            patterns = options.exporter_accept_health
            return [
                *shared,
                *chain(*(("--accept-health", pattern) for pattern in patterns)),
                *("--metrics-path", options.exporter_metrics_path),
                *(["--omit-users"] if options.exporter_omit_users else []),
            ]
        case "keepalive":
            path = options.keepalive_metrics_path
            return [
                *(*shared, *(["--metrics-path", path] if path is not None else [])),
                *chain(*(("--exclude-peer", peer) for peer in options.keepalive_exclude_peers)),
                *chain(*(("--exclude-os", system) for system in options.keepalive_exclude_os)),
            ]
        case _:
            return [*shared, "--metrics-path", _option(options, job, "metrics_path")]


def _job(text: str) -> str:
    if text not in JOBS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a job; the jobs are {', '.join(JOBS)}")
    return text


def _directory(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("'' is not a directory; the running system's root is /")
    return text


COMMANDS = {
    "units": Command("Print, install or remove the systemd units of the jobs", add_arguments, start)
}
