"""The commands peers, explain and doctor."""

from __future__ import annotations

import gc
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tsfc.cli import values
from tsfc.cli.common import (
    Command,
    add_format,
    add_ping_timeout,
    add_source,
    add_watchdog_metrics,
    run_options,
)
from tsfc.shell import signals

if TYPE_CHECKING:
    from tsfc.view.look import Pinging


def _add_peers(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--all",
        action="store_true",
        help="show the peers that `tailscale status` hides, too: Mullvad exit nodes, Funnel "
        "ingress nodes and sharees",
    )
    parser.add_argument(
        "--ping", action="store_true", help="ping each peer once, and show the latency"
    )
    add_ping_timeout(parser)
    parser.add_argument(
        "--watch",
        nargs="?",
        type=values.timeout,
        const=2.0,
        metavar="SPAN",
        help="refresh at this interval (default: %(const)gs)",
    )
    choice = parser.add_argument_group("selection")
    choice.add_argument(
        "--sort",
        choices=values.COLUMNS,
        default="watchdog",
        metavar="KEY",
        help="sort by peer, path, since, handshake, received, sent, ping or watchdog: names and "
        "paths in their order, numbers with the largest first (default: %(default)s, problems "
        "first)",
    )
    choice.add_argument(
        "--only",
        type=values.paths,
        default=(),
        metavar="PATH,…",
        help="show only peers on these paths: direct, peer-relay, relay, idle, offline, no-path",
    )
    choice.add_argument(
        "--filter",
        default="",
        metavar="TEXT",
        help="show only peers with TEXT in the column peer, path or watchdog; case is ignored",
    )
    _add_view_source(parser)
    add_format(parser.add_argument_group("output"))
    parser.set_defaults(usage_error=parser.error)


def _peers(options: Namespace) -> int:
    from tsfc.shell.tailscaled.observe import STANDARD_INPUT
    from tsfc.view import command
    from tsfc.view.selection import Selection

    if options.watch is not None and options.status_file == STANDARD_INPUT:
        options.usage_error(
            "--watch reads the status again and again, and standard input has it only once; "
            "set --status-file to a file"
        )
    signals.install()
    gc.enable()  # with --watch, the process keeps running
    return command.run(
        run_options(options),
        command.Options(
            watchdog_metrics=options.watchdog_metrics,
            pinging=_pinging(options),
            refresh_seconds=options.watch,
            is_json=options.format == "json",
            shows_all=options.all,
            selection=Selection(options.sort, options.only, options.filter),
        ),
    )


def _add_explain(parser: ArgumentParser) -> None:
    parser.add_argument(
        "peer",
        metavar="PEER",
        help="the peer, or this node: its name in `tsfc peers`, FQDN, Tailscale IP, node ID "
        "(StableNodeID), node key or host name",
    )
    parser.add_argument(
        "--ping",
        action="store_true",
        help="ping the peer until it replies directly, at most three times, and say what came",
    )
    add_ping_timeout(parser)
    _add_view_source(parser)
    add_format(parser.add_argument_group("output"))


def _explain(options: Namespace) -> int:
    from tsfc.view import command

    signals.install()
    return command.explain(
        run_options(options),
        command.Options(
            watchdog_metrics=options.watchdog_metrics,
            pinging=_pinging(options),
            is_json=options.format == "json",
        ),
        options.peer,
    )


def _pinging(options: Namespace) -> Pinging | None:
    from tsfc.view.look import Pinging

    return Pinging(options.ping_timeout) if options.ping else None


def _doctor(options: Namespace) -> int:
    from tsfc.view import command

    signals.install()
    return command.diagnose(run_options(options), command.Options(options.watchdog_metrics))


def _add_view_source(parser: ArgumentParser) -> None:
    add_source(parser)
    add_watchdog_metrics(parser, "next to it is the watchdog's snapshot")


COMMANDS = {
    "peers": Command(
        "Show the path of each peer, and what the watchdog will do about it",
        _add_peers,
        _peers,
        "jobs.md",
        {
            "tsfc peers --watch": "refresh the table every two seconds",
            "tsfc peers --all --format json": "print all peers for a script",
        },
    ),
    "explain": Command(
        "Explain the watchdog's verdict on one peer",
        _add_explain,
        _explain,
        "jobs.md",
        {
            "tsfc explain nas": "say whether and when the watchdog restarts tailscaled because "
            "of nas",
            "tsfc explain 100.64.0.7": "find the peer by its Tailscale IP",
        },
    ),
    "doctor": Command(
        "Find what is wrong with this node, and say what to do",
        _add_view_source,
        _doctor,
        "troubleshooting.md",
        {
            "tsfc doctor": "check this node",
            "tsfc doctor --status-file status.json": "check the output of `tailscale status "
            "--json` of another node",
        },
    ),
}
