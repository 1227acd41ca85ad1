"""The commands capture, replay, simulate and stand-in."""

from __future__ import annotations

import gc
import math
from argparse import ArgumentParser, Namespace, _ArgumentGroup
from typing import TYPE_CHECKING

from tsfc.cli import values
from tsfc.cli.common import Command, add_format, add_policy, add_source, policy, run_options
from tsfc.shell import signals

if TYPE_CHECKING:
    from tsfc.offline.comparison import Comparison


def _add_capture(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--interval",
        type=values.period,
        metavar="SPAN",
        help="repeat at this interval, such as 10s or 1min (default: capture once)",
    )
    parser.add_argument(
        "--duration",
        type=values.period,
        metavar="SPAN",
        help="with --interval, stop after this time, such as 1h or 7d (default: never)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="append to FILE (.ndjson, .ndjson.gz or .ndjson.zst), or write to standard output "
        "if FILE is -",
    )
    output.add_argument(
        "--max-size",
        type=values.size,
        metavar="SIZE",
        help="rotate the file before it exceeds SIZE, such as 100M (default: never)",
    )
    output.add_argument(
        "--keep",
        type=values.integer,
        default=5,
        metavar="N",
        help="number of rotated files to keep, as FILE.1, FILE.2, … (default: %(default)s)",
    )
    output.add_argument(
        "--redact",
        action="store_true",
        help="replace names, keys, addresses, users, tags and domains with pseudonyms",
    )
    output.add_argument(
        "--redact-key",
        metavar="KEY",
        help="redact with KEY; the same key gives the same pseudonyms (default: a random key, "
        "saved in FILE.key)",
    )
    add_source(parser)


def _capture(options: Namespace) -> int:
    from tsfc.offline.capture import record

    signals.install()
    gc.enable()  # with --interval, the process keeps running
    return record.run(
        run_options(options),
        record.Options(
            output=options.output,
            interval=options.interval,
            duration=options.duration,
            redact=options.redact or options.redact_key is not None,
            redact_key=options.redact_key,
            max_size=options.max_size,
            keep=options.keep,
        ),
    )


def _add_replay(parser: ArgumentParser) -> None:
    parser.add_argument(
        "captures",
        nargs="+",
        metavar="CAPTURE",
        help="NDJSON file (plain, gzip or zstd), directory of statuses (*.json), or - for "
        "standard input",
    )
    parser.add_argument(
        "--from",
        dest="since",
        type=values.time,
        default=0.0,
        metavar="TIME",
        help="skip observations before TIME (Unix time or ISO 8601)",
    )
    parser.add_argument(
        "--to",
        dest="until",
        type=values.time,
        default=math.inf,
        metavar="TIME",
        help="skip observations at or after TIME",
    )
    output = _add_comparison(parser)
    output.add_argument(
        "--metrics-path",
        metavar="PATH",
        help="write the watchdog's metrics at the end of the capture to PATH, or to standard "
        "output if PATH is -",
    )


def _replay(options: Namespace) -> int:
    from tsfc.offline import replay

    signals.install()
    return replay.run(
        replay.Options(
            sources=tuple(options.captures),
            comparison=_comparison(options),
            since=options.since,
            until=options.until,
            metrics_path=options.metrics_path,
        )
    )


def _add_simulate(parser: ArgumentParser) -> None:
    parser.add_argument(
        "scenario",
        nargs="?",
        metavar="SCENARIO",
        help="name of a built-in scenario, or a TOML file",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the built-in scenarios and their summaries"
    )
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of scenarios")
    parser.add_argument(
        "--days",
        type=values.days,
        metavar="DAYS",
        help="simulated time: a number of days, or a time span such as 12h (default: the "
        "scenario's duration)",
    )
    parser.add_argument(
        "--seed",
        type=values.integer,
        default=0,
        metavar="SEED",
        help="seed of the random numbers; the same seed gives the same result "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--runs",
        type=values.positive_integer,
        default=1,
        metavar="N",
        help="number of seeds, from --seed on; print the distribution of the results "
        "(default: %(default)s)",
    )
    output = _add_comparison(parser)
    output.add_argument(
        "--capture", metavar="FILE", help="write the simulated observations to a capture"
    )


def _simulate(options: Namespace) -> int:
    from tsfc.offline import simulate

    signals.install()
    if options.list:
        return simulate.print_list()
    if options.schema:
        return simulate.print_schema()
    return simulate.run(
        simulate.Options(
            scenario=options.scenario,
            comparison=_comparison(options),
            days=options.days,
            seed=options.seed,
            runs=options.runs,
            capture=options.capture,
        )
    )


def _add_comparison(parser: ArgumentParser) -> _ArgumentGroup:
    """Add the options of both replay and simulate, and return their group "output"."""
    parser.add_argument(
        "--cluster",
        metavar="tcp://HOST:PORT",
        help="run on the Dask cluster with this scheduler",
    )
    add_policy(parser).add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="OPTION=VALUE,…",
        help="try each value of a policy option, and print one table; repeat the option to try "
        "every combination",
    )
    output = parser.add_argument_group("output")
    add_format(output)
    output.add_argument(
        "--report",
        metavar="FILE.html",
        help="write an HTML report; needs the extra 'report' of tsfc",
    )
    return output


def _comparison(options: Namespace) -> Comparison:
    from tsfc.offline.comparison import Comparison

    return Comparison(
        policy=policy(options),
        comparisons=tuple(options.compare),
        is_json=options.format == "json",
        report=options.report,
        cluster=options.cluster,
    )


def _add_stand_in(parser: ArgumentParser) -> None:
    content = parser.add_mutually_exclusive_group(required=True)
    content.add_argument(
        "--capture", metavar="FILE", help="play a capture (NDJSON, one observation per line)"
    )
    content.add_argument(
        "--scenario",
        metavar="SCENARIO",
        help="play a simulated tailnet, from a built-in scenario or a TOML file; SIGHUP restarts "
        "the simulated tailscaled",
    )
    parser.add_argument("--socket", required=True, metavar="PATH", help="socket to listen on")
    parser.add_argument(
        "--speed",
        type=values.speed,
        default=1.0,
        metavar="FACTOR",
        help="how many times faster than real time to play (default: %(default)g)",
    )
    parser.add_argument(
        "--loop",
        action="store_true",
        help="start again after the last observation (default: keep serving it)",
    )


def _stand_in(options: Namespace) -> int:
    from tsfc.offline.fake_tailscaled import server as fake_tailscaled

    signals.install_for_server()
    gc.enable()  # the server keeps running
    if options.scenario is not None:
        return fake_tailscaled.play_scenario(options.scenario, options.socket, speed=options.speed)
    return fake_tailscaled.play_capture(
        options.capture, options.socket, speed=options.speed, loop=options.loop
    )


COMMANDS = {
    "capture": Command(
        "Append the status of tailscaled to a capture",
        _add_capture,
        _capture,
        "offline.md",
        {
            "tsfc capture --interval 1min --output week.ndjson.zst": "record until interrupted",
            "tsfc capture --redact --output shared.ndjson": "record one status with pseudonyms, "
            "to share it",
        },
    ),
    "replay": Command(
        "Show what the watchdog would have done during a capture",
        _add_replay,
        _replay,
        "offline.md",
        {
            "tsfc replay week.ndjson.zst": "print each decision, and a summary",
            "tsfc replay week.ndjson.zst --compare policy=documented,guarded": "compare the "
            "policies",
        },
    ),
    "simulate": Command(
        "Show what the watchdog would do in a simulated tailnet",
        _add_simulate,
        _simulate,
        "offline.md",
        {
            "tsfc simulate --list": "print the built-in scenarios",
            "tsfc simulate stuck-nat --compare policy=documented,guarded": "compare the policies "
            "in one of them",
        },
    ),
    "stand-in": Command(
        "Play a capture or a scenario as a fake tailscaled",
        _add_stand_in,
        _stand_in,
        "offline.md",
        {
            "tsfc stand-in --scenario flapping --socket ./tailscaled.sock": "play a scenario; "
            "other commands read it with the same --socket",
            "tsfc stand-in --capture week.ndjson.zst --socket ./tailscaled.sock --speed 60": "play "
            "a capture, one hour in each minute",
        },
    ),
}
