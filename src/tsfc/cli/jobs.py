"""The commands exporter, native-metrics, keepalive and watchdog."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from tsfc.cli import values
from tsfc.cli.common import (
    Command,
    add_metrics_output,
    add_ping_timeout,
    add_policy,
    add_source,
    policy,
    run_options,
)
from tsfc.shell import defaults, signals

if TYPE_CHECKING:
    from returns.result import Result

    from tsfc.shell.notifier import Notifier
    from tsfc.shell.system import System
    from tsfc.shell.waiting import Waiting


def _add_exporter(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--accept-health",
        action="append",
        default=[],
        metavar="PATTERN",
        help="count health messages that match this shell pattern apart from the others, for "
        "example '*accept-routes*'; upper and lower case are the same; can be repeated",
    )
    parser.add_argument(
        "--omit-users",
        action="store_true",
        help="leave the label user of tailscale_peer_info empty; it has the login names of the "
        "peers' owners",
    )
    add_source(parser)
    add_metrics_output(parser, default=defaults.EXPORTER_PATH)


def _exporter(options: Namespace, host: System) -> Waiting[int]:
    from tsfc.shell import runs, textfile
    from tsfc.shell.jobs import exporter

    def last_exposition() -> str:
        return textfile.read_previous(host.options.metrics_path)

    return runs.run(
        host,
        lambda host: exporter.run(
            host,
            last_exposition=last_exposition,
            accept_health=options.accept_health,
            omits_users=options.omit_users,
        ),
    )


def _add_native_metrics(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--metrics-file",
        metavar="FILE",
        help="read tailscaled's metrics from FILE, or from standard input if FILE is -",
    )
    add_source(parser, has_status_file=False)
    add_metrics_output(parser, default=defaults.NATIVE_METRICS_PATH)


def _native_metrics(_: Namespace, host: System) -> Waiting[int]:
    from tsfc.shell import runs
    from tsfc.shell.jobs import native_metrics

    labels = host.options.labels
    return runs.run(host, lambda host: native_metrics.run(host, labels=labels))


def _add_keepalive(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--count",
        type=values.positive_integer,
        default=3,
        metavar="N",
        help="maximum number of pings per peer (default: %(default)s)",
    )
    add_ping_timeout(parser)
    parser.add_argument(
        "--exclude-peer",
        action="append",
        default=[],
        metavar="NAME",
        help="never ping this peer: label `peer`, FQDN, Tailscale IP, StableNodeID or host name; "
        "can be repeated",
    )
    parser.add_argument(
        "--exclude-os",
        action="append",
        default=[],
        metavar="OS",
        help="never ping peers with this operating system, such as iOS or android, whose "
        "batteries pings would drain; can be repeated",
    )
    add_source(parser)
    add_metrics_output(parser, default=None)


def _keepalive(options: Namespace, host: System) -> Waiting[int]:
    from tsfc.core.keepalive import Exclusion
    from tsfc.shell import runs
    from tsfc.shell.jobs import keepalive

    excluded = Exclusion(tuple(options.exclude_peer), tuple(options.exclude_os))
    return runs.run(
        host,
        lambda host: keepalive.run(
            host, count=options.count, ping_timeout=options.ping_timeout, excluded=excluded
        ),
    )


def _add_watchdog(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--state-dir",
        default=defaults.STATE_DIR,
        metavar="DIR",
        help="directory of the state (default: %(default)s)",
    )
    parser.add_argument(
        "--unit",
        type=values.unit_name,
        metavar="UNIT",
        help=f"systemd unit to restart (default: {defaults.UNIT}; required with the --socket of "
        "another tailscaled, but not with --dry-run)",
    )
    parser.add_argument(
        "--restart-socket",
        metavar="PATH",
        help="ask the privileged helper on this socket to restart the unit, instead of "
        "running systemctl",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the decisions, but save no state and restart nothing; write metrics only "
        "if --metrics-path is given",
    )
    notifier = parser.add_mutually_exclusive_group()
    notifier.add_argument(
        "--notify-exec",
        metavar="PROGRAM",
        help="start PROGRAM after each run that has news, such as a restart; its standard input "
        "has a line of JSON for each",
    )
    notifier.add_argument(
        "--notify-socket",
        metavar="PATH",
        help="send these lines to this Unix socket instead; the units use it to start PROGRAM "
        "outside of the watchdog's sandbox",
    )
    add_policy(parser).add_argument(
        "--pause",
        metavar="FILE",
        help="restart nothing while FILE exists, with --policy guarded "
        f"(default: {defaults.PAUSE_FILE})",
    )
    add_source(parser)
    add_metrics_output(parser, default=defaults.WATCHDOG_PATH)


def _watchdog(options: Namespace, host: System) -> Waiting[int]:
    from tsfc.shell import runs

    return runs.watchdog(
        host, state_dir=options.state_dir, policy=policy(options), notifier=_notifier(options)
    )


def _notifier(options: Namespace) -> Notifier | None:
    if options.notify_exec is None and options.notify_socket is None:
        return None
    from tsfc.shell.notifier import Listener, Program

    if options.notify_exec is not None:
        return Program(options.notify_exec)
    return Listener(options.notify_socket)


RUNS = {
    "exporter": _exporter,
    "native-metrics": _native_metrics,
    "keepalive": _keepalive,
    "watchdog": _watchdog,
}
"What one run of each job does, given its options and its surroundings."


def system(job: str, options: Namespace) -> Result[System, str]:
    """The real surroundings of a job. A failure is a usage error."""
    from msgspec.structs import replace
    from returns.result import Failure, Success

    from tsfc.core.text import one_line
    from tsfc.shell.system import System

    settings = run_options(options)
    if job != "watchdog":
        return Success(System(job, settings))

    # The peers of one tailscaled must not cause restarts of another one.
    socket: str = options.socket or defaults.SOCKET
    has_default_unit = options.unit is None and not options.dry_run
    if has_default_unit and not defaults.is_default_socket(socket):
        return Failure(
            f"--socket {one_line(socket)} may be that of another tailscaled than "
            f"{defaults.UNIT}, which the watchdog would restart; give --unit"
        )
    if options.dry_run:
        # A dry run must not replace the metrics of the real watchdog.
        settings = replace(settings, metrics_path=options.metrics_path)
    unit = options.unit or defaults.UNIT
    return Success(System(job, settings, unit, options.restart_socket, is_dry_run=options.dry_run))


def _run(job: str) -> Callable[[Namespace], int]:
    """The command of a job: run it once."""

    def command(options: Namespace) -> int:
        from returns.result import Failure

        from tsfc.shell import waiting
        from tsfc.shell.console import print_error

        signals.install()
        host = system(job, options)
        if isinstance(host, Failure):
            print_error(job, host.failure())
            return 2
        return waiting.run(RUNS[job](options, host.unwrap()))

    return command


COMMANDS = {
    "exporter": Command(
        "Write per-peer metrics from tailscaled's status",
        _add_exporter,
        _run("exporter"),
        "jobs.md",
        {
            "tsfc exporter --metrics-path -": "print the metrics instead of writing a file",
            "tsfc exporter --omit-users": "write them without the login names of the owners",
        },
    ),
    "native-metrics": Command(
        "Write tailscaled's own metrics",
        _add_native_metrics,
        _run("native-metrics"),
        "jobs.md",
        {
            "tsfc native-metrics": "write the metrics to the default file",
            "tsfc native-metrics --metrics-path -": "print them instead",
        },
    ),
    "keepalive": Command(
        "Ping all online peers to keep NAT mappings open",
        _add_keepalive,
        _run("keepalive"),
        "jobs.md",
        {
            "tsfc keepalive --exclude-os iOS --exclude-os android": "spare the batteries of phones",
            "tsfc keepalive --metrics-path -": "print the result of each ping",
        },
    ),
    "watchdog": Command(
        "Restart tailscaled when a peer is stuck on relay",
        _add_watchdog,
        _run("watchdog"),
        "policy.md",
        {
            "tsfc watchdog --dry-run": "print the decisions, and restart nothing",
            "tsfc watchdog --policy guarded --exclude-peer nas": "restart tailscaled only where "
            "it is likely to help, and never because of nas",
        },
    ),
}
