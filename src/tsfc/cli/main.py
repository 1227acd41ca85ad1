"""The command line: reads it, and starts one job.

What a subcommand needs is imported when it is needed: a start is most of what a run costs, and there are 13 a minute.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from tsfc.shell import defaults, signals

if TYPE_CHECKING:
    from tsfc.core.watchdog.policy import ThresholdPolicy
    from tsfc.shell.tailscaled.observe import RunOptions


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see `{self.prog} --help`\n")

    def _print_message(self, message: str, file: object = None) -> None:
        try:
            os.write(1 if file is sys.stdout else 2, message.encode(errors="replace"))
        except OSError:
            sys.exit(1)


def entry() -> NoReturn:
    """Runs the program as a process.

    It collects no garbage, and it leaves without taking the interpreter apart: a run is over before that pays, and both
    together are a fifth of what it costs. Nothing is buffered that could be lost: every line and every file goes out by
    `os.write`.
    """
    gc.disable()
    os._exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit status: 0 the work was done, 1 it could not be, 2 usage, 128 + N ended by signal N."""
    _open_standard_streams()
    signals.install()
    try:
        options = _parse(sys.argv[1:] if argv is None else argv)
        start: Callable[[argparse.Namespace], int] = options.start
        return start(options)
    except signals.Terminated as ended:
        os.write(
            2, f"tsfc: ended by {signal.Signals(ended.number).name} before it was done\n".encode()
        )
        return 128 + ended.number
    finally:
        signals.uninstall()


def _open_standard_streams() -> None:
    """Makes sure that 0, 1 and 2 are open, lest the first socket becomes standard output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line. Only the command that was asked for gets a parser: to make all of them takes as long as a small job."""
    if argv and argv[0] in COMMANDS:
        return _command_parser(argv[0]).parse_args(argv[1:])
    parser = _Parser(
        prog="tsfc",
        description="See, and keep alive, the peer-to-peer paths of a Tailscale node.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(title="jobs and tools", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.text)
    return parser.parse_args(argv)


def _command_parser(name: str) -> argparse.ArgumentParser:
    command = COMMANDS[name]
    text = f"{command.text[0].upper()}{command.text[1:]}."
    parser = _Parser(prog=f"tsfc {name}", description=text, allow_abbrev=False)
    parser.set_defaults(start=command.start)
    command.add_arguments(parser)
    return parser


def _add_exporter(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, metrics_path=defaults.EXPORTER_PATH)
    _add_status_file(parser)


def _add_native_metrics(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, metrics_path=defaults.NATIVE_METRICS_PATH)
    parser.add_argument(
        "--metrics-file",
        metavar="FILE",
        help="read tailscaled's metrics from FILE (- for standard input) instead of asking",
    )


def _add_keepalive(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, metrics_path=None)
    _add_status_file(parser)
    parser.add_argument(
        "--count",
        type=_positive_int,
        default=3,
        metavar="N",
        help="pings to one peer at most (%(default)s)",
    )
    parser.add_argument(
        "--ping-timeout",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long to wait for one answer (%(default)g)",
    )


def _add_watchdog(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, metrics_path=defaults.WATCHDOG_PATH)
    _add_status_file(parser)
    parser.add_argument(
        "--state-dir",
        default=defaults.STATE_DIR,
        metavar="DIR",
        help="where the state is kept (%(default)s)",
    )
    _add_policy(parser)
    parser.add_argument(
        "--unit", type=_unit, default="tailscaled.service", help="what to restart (%(default)s)"
    )
    parser.add_argument(
        "--restart-socket",
        metavar="PATH",
        help="have it restarted by who listens there, a helper with the right to, instead of by systemctl",
    )
    dry_run = "decide and say, but keep no state, restart nothing, and write metrics only to a --metrics-path that was given"
    parser.add_argument("--dry-run", action="store_true", help=dry_run)


def _add_capture(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    _add_status_file(parser)
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="the capture that is appended to: .ndjson, .ndjson.gz or .ndjson.zst; - for standard output",
    )
    parser.add_argument(
        "--interval", type=_span, metavar="SPAN", help="look again and again, so often: 10s, 1min"
    )
    parser.add_argument(
        "--duration", type=_span, metavar="SPAN", help="and for so long: 1h, 7d (until it is ended)"
    )
    parser.add_argument(
        "--redact",
        action="store_true",
        help="put pseudonyms in the place of names, keys, addresses, users, tags and domains",
    )
    parser.add_argument(
        "--redact-key",
        metavar="KEY",
        help="same key, same pseudonyms (a random one, kept in FILE.key)",
    )
    parser.add_argument(
        "--max-size",
        type=_size,
        metavar="SIZE",
        help="begin a new file where this one would become larger: 100M (never)",
    )
    parser.add_argument(
        "--keep",
        type=_int,
        default=5,
        metavar="N",
        help="how many files that were full are kept, as FILE.1 and so on (%(default)s)",
    )


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-relay-seconds",
        type=_int,
        default=600,
        metavar="N",
        help="on relay for more than this is too long (%(default)s)",
    )
    parser.add_argument(
        "--cooldown-seconds",
        type=_int,
        default=600,
        metavar="N",
        help="after a restart there is no other for this long (%(default)s)",
    )
    parser.add_argument(
        "--exclude-peer",
        action="append",
        default=[],
        metavar="NAME",
        help="never restart because of this peer; can be given again",
    )


def _add_comparison(parser: argparse.ArgumentParser) -> None:
    _add_policy(parser)
    compare = "do it under each of these values of a policy option, and print one table; given again: the product"
    parser.add_argument(
        "--compare", action="append", default=[], metavar="OPTION=VALUE,…", help=compare
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="what to print (%(default)s)"
    )
    parser.add_argument(
        "--report", metavar="FILE.html", help="write a page to look at; takes tsfc[report]"
    )
    parser.add_argument(
        "--cluster",
        metavar="tcp://HOST:PORT",
        help="have a Dask cluster do it, by the address of its scheduler",
    )


def _add_replay(parser: argparse.ArgumentParser) -> None:
    source = "NDJSON, plain, gzip or zstd; a directory of statuses (*.json); - for standard input"
    parser.add_argument("captures", nargs="+", metavar="CAPTURE", help=source)
    _add_comparison(parser)
    parser.add_argument(
        "--from",
        dest="since",
        type=_moment,
        default=0.0,
        metavar="T",
        help="observations from then on: Unix time or ISO 8601",
    )
    parser.add_argument(
        "--to",
        dest="until",
        type=_moment,
        default=math.inf,
        metavar="T",
        help="observations before then",
    )
    parser.add_argument(
        "--metrics-path",
        metavar="PATH",
        help="write the watchdog's metrics as they stood at the end; - for standard output",
    )


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scenario", nargs="?", metavar="SCENARIO", help="a built-in one, or a TOML file"
    )
    _add_comparison(parser)
    parser.add_argument(
        "--list", action="store_true", help="name the built-in scenarios, and what each shows"
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of scenarios")
    parser.add_argument("--days", type=_days, metavar="N", help="how long (what the scenario says)")
    parser.add_argument(
        "--seed", type=_int, default=0, metavar="N", help="same seed, same result (%(default)s)"
    )
    parser.add_argument(
        "--runs",
        type=_positive_int,
        default=1,
        metavar="N",
        help="so many seeds, from --seed on, and how the results are spread (%(default)s)",
    )
    parser.add_argument("--capture", metavar="FILE", help="write what was observed as a capture")


def _add_view(parser: argparse.ArgumentParser) -> None:
    _add_source(parser)
    _add_status_file(parser)
    parser.add_argument(
        "--watchdog-metrics",
        default=defaults.WATCHDOG_PATH,
        metavar="PATH",
        help="the metrics of the watchdog, which say what it remembers (%(default)s)",
    )


def _add_peers(parser: argparse.ArgumentParser) -> None:
    _add_view(parser)
    parser.add_argument(
        "--ping", action="store_true", help="ping each peer once, and show how long that took"
    )
    parser.add_argument(
        "--ping-timeout",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="bound on a ping (%(default)g)",
    )
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=2.0,
        metavar="SECONDS",
        help="draw it again and again, so often (%(const)g)",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="what to print (%(default)s)"
    )


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("peer", metavar="PEER", help="its name, as `tsfc peers` shows it")
    _add_view(parser)


def _add_stand_in(parser: argparse.ArgumentParser) -> None:
    played = parser.add_mutually_exclusive_group(required=True)
    played.add_argument(
        "--capture", metavar="FILE", help="play a capture: NDJSON, one observation a line"
    )
    played.add_argument(
        "--scenario",
        metavar="SCENARIO",
        help="play an imagined tailnet, a built-in one or a TOML file; SIGHUP restarts its tailscaled",
    )
    parser.add_argument("--socket", required=True, metavar="PATH", help="where to listen")
    parser.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="N",
        help="seconds of the capture per second (%(default)g)",
    )
    parser.add_argument(
        "--loop",
        action="store_true",
        help="begin again after the last observation, instead of staying at it",
    )


def _add_units(parser: argparse.ArgumentParser) -> None:
    from tsfc.cli import units as cli_units

    cli_units.add_arguments(parser)


class _Version(argparse.Action):
    """Prints the installed version; looked up only then, for that takes as long as a job."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        parser._print_message(f"tsfc {version('tsfc')}\n", sys.stdout)  # noqa: SLF001
        parser.exit()


def _add_common(parser: argparse.ArgumentParser, *, metrics_path: str | None) -> None:
    where = "not written" if metrics_path is None else metrics_path
    _add_source(parser)
    parser.add_argument(
        "--metrics-path",
        metavar="PATH",
        help=f"where the metrics go, - for standard output ({where})",
    )
    parser.set_defaults(default_metrics_path=metrics_path)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--socket", metavar="PATH", help=f"tailscaled's LocalAPI socket ({defaults.SOCKET})"
    )
    parser.add_argument(
        "--source",
        choices=("auto", "localapi", "cli"),
        default="auto",
        help="ask over the socket, or run `tailscale`; auto: the socket, else the program",
    )
    parser.add_argument("--tailscale", metavar="PATH", help="the program to run (from PATH)")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="bound on one call to tailscaled (%(default)g)",
    )
    parser.add_argument(
        "--now", type=_unix_time, metavar="SECONDS", help="Unix time to use instead of the clock"
    )
    parser.set_defaults(
        status_file=None, metrics_file=None, metrics_path=None, default_metrics_path=None
    )


def _add_status_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--status-file",
        metavar="FILE",
        help="read the status from FILE (- for standard input) instead of asking",
    )


def _exporter(options: argparse.Namespace) -> int:
    from tsfc.shell import oneshot, textfile
    from tsfc.shell.host import System
    from tsfc.shell.jobs import exporter

    host = System("exporter", _run_options(options))

    def last_exposition() -> str:
        return textfile.read_previous(host.options.metrics_path)

    return oneshot.run(host, lambda host: exporter.run(host, last_exposition=last_exposition))


def _native_metrics(options: argparse.Namespace) -> int:
    from tsfc.shell import oneshot
    from tsfc.shell.host import System
    from tsfc.shell.jobs import native_metrics

    return oneshot.run(System("native-metrics", _run_options(options)), native_metrics.run)


def _keepalive(options: argparse.Namespace) -> int:
    from tsfc.shell import oneshot
    from tsfc.shell.host import System
    from tsfc.shell.jobs import keepalive

    return oneshot.run(
        System("keepalive", _run_options(options)),
        lambda host: keepalive.run(host, count=options.count, ping_timeout=options.ping_timeout),
    )


def _watchdog(options: argparse.Namespace) -> int:
    from tsfc.shell import oneshot
    from tsfc.shell.host import DryRun, System

    if options.dry_run:
        options.default_metrics_path = None
    host_type = DryRun if options.dry_run else System
    host = host_type("watchdog", _run_options(options), options.unit, options.restart_socket)
    return oneshot.watchdog(host, state_dir=options.state_dir, policy=_policy(options))


def _capture(options: argparse.Namespace) -> int:
    from tsfc.offline.capture import record as recording

    gc.enable()  # with --interval it stays
    told = recording.Options(
        output=options.output,
        interval=options.interval,
        duration=options.duration,
        redact=options.redact or options.redact_key is not None,
        redact_key=options.redact_key,
        max_size=options.max_size,
        keep=options.keep,
    )
    return recording.run(_run_options(options), told)


def _replay(options: argparse.Namespace) -> int:
    from tsfc.offline import replay

    told = replay.Options(
        sources=tuple(options.captures),
        policy=_policy(options),
        comparisons=tuple(options.compare),
        since=options.since,
        until=options.until,
        is_json=options.format == "json",
        metrics_path=options.metrics_path,
        report=options.report,
        cluster=options.cluster,
    )
    return replay.run(told)


def _simulate(options: argparse.Namespace) -> int:
    from tsfc.offline import simulate

    if options.list:
        return simulate.print_list()
    if options.schema:
        return simulate.print_schema()
    told = simulate.Options(
        scenario=options.scenario,
        policy=_policy(options),
        comparisons=tuple(options.compare),
        days=options.days,
        seed=options.seed,
        runs=options.runs,
        is_json=options.format == "json",
        capture=options.capture,
        report=options.report,
        cluster=options.cluster,
    )
    return simulate.run(told)


def _peers(options: argparse.Namespace) -> int:
    from tsfc.view import command as peers

    gc.enable()  # with --watch it stays
    told = peers.Options(
        options.watchdog_metrics,
        options.ping,
        options.ping_timeout,
        options.watch,
        options.format == "json",
    )
    return peers.run(_run_options(options), told)


def _explain(options: argparse.Namespace) -> int:
    from tsfc.view import command as peers

    return peers.explain(
        _run_options(options), peers.Options(options.watchdog_metrics), options.peer
    )


def _policy(options: argparse.Namespace) -> ThresholdPolicy:
    from tsfc.core.watchdog.policy import ThresholdPolicy

    return ThresholdPolicy(
        options.max_relay_seconds, options.cooldown_seconds, frozenset(options.exclude_peer)
    )


def _stand_in(options: argparse.Namespace) -> int:
    from tsfc.offline import fake_tailscaled as stand_in

    gc.enable()  # this one stays
    if options.scenario is not None:
        return stand_in.play_scenario(options.scenario, options.socket, speed=options.speed)
    return stand_in.play_capture(
        options.capture, options.socket, speed=options.speed, loop=options.loop
    )


def _units(options: argparse.Namespace) -> int:
    from tsfc.cli import units as cli_units

    return cli_units.start(options)


def _run_options(options: argparse.Namespace) -> RunOptions:
    from tsfc.shell.tailscaled.observe import RunOptions

    return RunOptions(
        source=options.source,
        socket=options.socket,
        tailscale=options.tailscale,
        timeout=options.timeout,
        status_file=options.status_file,
        metrics_file=options.metrics_file,
        now=options.now,
        metrics_path=options.default_metrics_path
        if options.metrics_path is None
        else options.metrics_path,
    )


def _number(text: str, low: float, high: float, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number


def _seconds(text: str) -> float:
    return _number(text, 0.001, 86400, "a number of seconds from 0.001 to 86400")


def _unix_time(text: str) -> float:
    return _number(text, 0, 253402300799, "a Unix time in seconds")


def _moment(text: str) -> float:
    from datetime import UTC, datetime

    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        return _number(
            text, 0, 253402300799, "a Unix time in seconds, or a time such as 2026-11-25T06:30:00Z"
        )
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()


def _days(text: str) -> float:
    return _number(text, 0.001, 3660, "a number of days from 0.001 to 3660")


def _span(text: str) -> float:
    found = re.fullmatch(r"([0-9.]{1,12}) *([a-z]*)", text)
    unit = {"": 1, "s": 1, "min": 60, "h": 3600, "d": 86400}.get(found[2]) if found else None
    if found is None or unit is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time span such as 10s, 5min, 1h or 7d")
    return _number(found[1], 0.001, 1e9, "a number") * unit


def _size(text: str) -> int:
    from tsfc.offline.capture.record import size

    read = size(text)
    if read is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 500k, 100M or 2G")
    return read


def _speed(text: str) -> float:
    return _number(text, 0.001, 1e6, "a number from 0.001 to 1000000")


def _int(text: str, low: int = 0) -> int:
    if not (text.isascii() and text.isdigit() and low <= int(text[:11]) <= 10**9):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to 1000000000")
    return int(text)


def _positive_int(text: str) -> int:
    return _int(text, low=1)


def _unit(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9:_.@\\-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a unit")
    return text


class _Command(NamedTuple):
    text: str
    start: Callable[[argparse.Namespace], int]
    add_arguments: Callable[[argparse.ArgumentParser], None]


COMMANDS = {
    "exporter": _Command(
        "write per-peer metrics from tailscaled's status", _exporter, _add_exporter
    ),
    "native-metrics": _Command(
        "write tailscaled's own metrics", _native_metrics, _add_native_metrics
    ),
    "keepalive": _Command(
        "ping all online peers, so that NAT mappings stay open", _keepalive, _add_keepalive
    ),
    "watchdog": _Command(
        "restart tailscaled when a peer is stuck on relay", _watchdog, _add_watchdog
    ),
    "peers": _Command(
        "show who is on which path, and what the watchdog makes of it", _peers, _add_peers
    ),
    "explain": _Command("explain one peer in sentences", _explain, _add_explain),
    "units": _Command("print, install or remove the systemd units of the jobs", _units, _add_units),
    "capture": _Command("append what is seen of tailscaled to a capture", _capture, _add_capture),
    "replay": _Command(
        "replay a capture: what the watchdog would have said and done", _replay, _add_replay
    ),
    "simulate": _Command(
        "imagine a tailnet, and what the watchdog would do there", _simulate, _add_simulate
    ),
    "stand-in": _Command(
        "play a capture on a socket, as a small LocalAPI server", _stand_in, _add_stand_in
    ),
}
