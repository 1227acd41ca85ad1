"""The commands exporter, native-metrics, keepalive and watchdog."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

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


def _exporter(options: Namespace) -> int:
    from tsfc.shell import oneshot, textfile
    from tsfc.shell.jobs import exporter
    from tsfc.shell.system import System

    signals.install()
    system = System("exporter", run_options(options))

    def last_exposition() -> str:
        return textfile.read_previous(system.options.metrics_path)

    return oneshot.run(
        system,
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


def _native_metrics(options: Namespace) -> int:
    from tsfc.shell import oneshot
    from tsfc.shell.jobs import native_metrics
    from tsfc.shell.system import System

    signals.install()
    system = System("native-metrics", run_options(options))
    return oneshot.run(system, lambda host: native_metrics.run(host, labels=system.options.labels))


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


def _keepalive(options: Namespace) -> int:
    from tsfc.core.keepalive import Exclusion
    from tsfc.shell import oneshot
    from tsfc.shell.jobs import keepalive
    from tsfc.shell.system import System

    signals.install()
    excluded = Exclusion(tuple(options.exclude_peer), tuple(options.exclude_os))
    return oneshot.run(
        System("keepalive", run_options(options)),
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
    add_policy(parser).add_argument(
        "--pause",
        metavar="FILE",
        help="restart nothing while FILE exists, with --policy guarded "
        f"(default: {defaults.PAUSE_FILE})",
    )
    add_source(parser)
    add_metrics_output(parser, default=defaults.WATCHDOG_PATH)


def _watchdog(options: Namespace) -> int:
    from msgspec.structs import replace

    from tsfc.core.text import one_line
    from tsfc.shell import oneshot
    from tsfc.shell.console import print_error
    from tsfc.shell.system import DryRun, System

    signals.install()

    # The peers of one tailscaled must not cause restarts of another one.
    socket: str = options.socket or defaults.SOCKET
    has_default_unit = options.unit is None and not options.dry_run
    if has_default_unit and not defaults.is_default_socket(socket):
        print_error(
            "watchdog",
            f"--socket {one_line(socket)} may be that of another tailscaled than "
            f"{defaults.UNIT}, which the watchdog would restart; give --unit",
        )
        return 2
    host_type, settings = System, run_options(options)
    if options.dry_run:
        # A dry run must not replace the metrics of the real watchdog.
        host_type, settings = DryRun, replace(settings, metrics_path=options.metrics_path)
    unit = options.unit or defaults.UNIT
    host = host_type("watchdog", settings, unit, options.restart_socket)
    return oneshot.watchdog(host, state_dir=options.state_dir, policy=policy(options))


COMMANDS = {
    "exporter": Command(
        "Write per-peer metrics from tailscaled's status", _add_exporter, _exporter
    ),
    "native-metrics": Command(
        "Write tailscaled's own metrics", _add_native_metrics, _native_metrics
    ),
    "keepalive": Command(
        "Ping all online peers to keep NAT mappings open", _add_keepalive, _keepalive
    ),
    "watchdog": Command(
        "Restart tailscaled when a peer is stuck on relay", _add_watchdog, _watchdog
    ),
}
