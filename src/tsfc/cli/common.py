"""Shared by several commands: the form of a command, and common options."""

from __future__ import annotations

from argparse import (
    Action,
    ArgumentError,
    ArgumentParser,
    Namespace,
    _ActionsContainer,
    _ArgumentGroup,
)
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tsfc.cli import values
from tsfc.shell import defaults

if TYPE_CHECKING:
    from tsfc.core.watchdog.policy import Policy
    from tsfc.shell.tailscaled.observe import RunOptions


class Command(NamedTuple):
    """A command of the program."""

    summary: str
    "Imperative without a period, for `tsfc --help` and the command's own help."
    add_options: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    """Run the command with its parsed options, and return the exit status.

    It calls `signals.install` before it does anything. Until then the default actions
    are enough.
    """
    page: str
    "Page of the documentation, a file in `docs/`."
    examples: Mapping[str, str]
    "What each example does, by its command line."


def add_source(parser: ArgumentParser, *, has_status_file: bool = True) -> None:
    """Add the options that say how to query tailscaled."""
    group = parser.add_argument_group("source")
    add_socket(group)
    group.add_argument(
        "--source",
        choices=("auto", "localapi", "cli"),
        default="auto",
        help="query the LocalAPI, or run the `tailscale` CLI; auto runs the CLI only if the "
        "socket is unavailable (default: %(default)s)",
    )
    group.add_argument(
        "--tailscale",
        metavar="PROGRAM",
        help="path of the `tailscale` CLI (default: search $PATH)",
    )
    add_timeout(group)
    if has_status_file:
        group.add_argument(
            "--status-file",
            metavar="FILE",
            help="read the status from FILE, or from standard input if FILE is -",
        )
    group.add_argument(
        "--now",
        type=values.unix_time,
        metavar="SECONDS",
        help="Unix time to use instead of the system clock",
    )
    # `run_options` reads these, even if the command lacks the option.
    parser.set_defaults(
        status_file=None, metrics_file=None, metrics_path=None, default_metrics_path=None, label={}
    )


def add_socket(source: _ArgumentGroup) -> None:
    """Add `--socket`."""
    source.add_argument(
        "--socket",
        metavar="PATH",
        help=f"socket of tailscaled's LocalAPI (default: {defaults.SOCKET})",
    )


def add_timeout(source: _ArgumentGroup) -> None:
    """Add `--timeout`."""
    source.add_argument(
        "--timeout",
        type=values.timeout,
        default=10.0,
        metavar="SPAN",
        help="timeout for each call to tailscaled (default: %(default)gs)",
    )


class _AddLabel(Action):
    """Collect the labels of a repeated option; each name at most once."""

    def __call__(
        self,
        parser: ArgumentParser,  # noqa: ARG002 - argparse's interface
        namespace: Namespace,
        label: Any,  # noqa: ANN401 - argparse does not know the type
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        name, value = label
        labels: dict[str, str] = getattr(namespace, self.dest)
        if name in labels:
            raise ArgumentError(self, f"{name!r} is given twice")
        setattr(namespace, self.dest, {**labels, name: value})


def add_metrics_output(parser: ArgumentParser, *, default: str | None) -> None:
    """Add `--metrics-path` and `--label`.

    If `default` is None, no metrics are written without `--metrics-path`.
    """
    group = parser.add_argument_group("output")
    group.add_argument(
        "--metrics-path",
        metavar="PATH",
        help="write the metrics to PATH, or to standard output if PATH is - "
        f"(default: {default or 'write no metrics'})",
    )
    add_label(group)
    parser.set_defaults(default_metrics_path=default)


def add_label(output: _ActionsContainer) -> None:
    """Add `--label`."""
    output.add_argument(
        "--label",
        type=values.label,
        action=_AddLabel,
        default={},
        metavar="NAME=VALUE",
        help="add this label to every series, to tell two tailscaleds on one host apart; can be "
        "repeated",
    )


def add_format(output: _ArgumentGroup) -> None:
    """Add `--format`."""
    output.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="format of the output (default: %(default)s)",
    )


def add_watchdog_metrics(parser: ArgumentParser, use: str) -> None:
    """Add `--watchdog-metrics`. `use` is the clause of its help that says what for."""
    parser.add_argument_group("watchdog").add_argument(
        "--watchdog-metrics",
        default=defaults.WATCHDOG_PATH,
        metavar="PATH",
        help=f"metrics file of the watchdog; {use} (default: %(default)s)",
    )


def add_ping_timeout(parser: ArgumentParser) -> None:
    """Add `--ping-timeout`."""
    parser.add_argument(
        "--ping-timeout",
        type=values.timeout,
        default=5.0,
        metavar="SPAN",
        help="timeout for each ping (default: %(default)gs)",
    )


def add_policy(parser: ArgumentParser) -> _ArgumentGroup:
    """Add the options of the watchdog's policy, and return their group.

    The defaults repeat those of the policies, so that `--help` does not import them.
    """
    group = parser.add_argument_group("policy")
    group.add_argument(
        "--policy",
        choices=("documented", "guarded"),
        default="documented",
        help="documented: restart tailscaled whenever a peer is on relay for too long; guarded: "
        "only where a restart is likely to help (default: %(default)s)",
    )
    group.add_argument(
        "--max-relay-seconds",
        type=values.whole_seconds,
        default=600,
        metavar="SPAN",
        help="restart tailscaled if a peer is on relay for longer (default: 10min)",
    )
    group.add_argument(
        "--cooldown-seconds",
        type=values.whole_seconds,
        default=600,
        metavar="SPAN",
        help="minimum time between two restarts (default: 10min)",
    )
    group.add_argument(
        "--exclude-peer",
        action="append",
        default=[],
        metavar="NAME",
        help="never restart tailscaled because of this peer: label `peer`, FQDN, Tailscale IP, "
        "StableNodeID or host name; can be repeated",
    )
    group.add_argument(
        "--budget",
        type=values.budget,
        metavar="N",
        help="maximum number of restarts in 24 hours that did not help, with --policy guarded "
        "(default: 6)",
    )
    group.add_argument(
        "--remedies",
        type=values.remedies,
        metavar="REMEDY,…",
        help="what may be done, with --policy guarded: restart; other-port, which restarts "
        "tailscaled on another UDP port; or restart,other-port (default: restart)",
    )
    # `policy` reads these, even if the command lacks the option.
    parser.set_defaults(pause=None, compare=[], usage_error=parser.error)
    return group


def run_options(options: Namespace) -> RunOptions:
    """Options that every job has."""
    from tsfc.shell.tailscaled.observe import RunOptions

    path: str | None = options.metrics_path
    return RunOptions(
        source=options.source,
        socket=options.socket,
        tailscale=options.tailscale,
        timeout=options.timeout,
        status_file=options.status_file,
        metrics_file=options.metrics_file,
        now=options.now,
        metrics_path=options.default_metrics_path if path is None else path,
        labels=options.label,
    )


def policy(options: Namespace) -> Policy:
    """Policy of the watchdog; a usage error if it lacks a given option."""
    from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
    from tsfc.core.watchdog.remedy import Remedy

    excluded = frozenset(options.exclude_peer)
    if options.policy == "guarded":
        usual = GuardedPolicy()
        return GuardedPolicy(
            max_relay_seconds=options.max_relay_seconds,
            cooldown_seconds=options.cooldown_seconds,
            excluded=excluded,
            remedies=tuple(map(Remedy, options.remedies or usual.remedies)),
            budget=usual.budget if options.budget is None else options.budget,
            pause_file=options.pause or usual.pause_file,
        )
    # Of two policies that are compared, only one has these options.
    if not any(text.startswith("policy=") for text in options.compare):
        for name in ("budget", "remedies", "pause"):
            if getattr(options, name) is not None:
                options.usage_error(f"--{name} needs --policy guarded")
    return ThresholdPolicy(
        max_relay_seconds=options.max_relay_seconds,
        cooldown_seconds=options.cooldown_seconds,
        excluded=excluded,
    )
