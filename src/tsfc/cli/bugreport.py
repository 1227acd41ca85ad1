"""The command report-bug."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from tsfc.cli.common import Command, add_source, add_watchdog_metrics, run_options
from tsfc.shell import signals


def _add_report_bug(parser: ArgumentParser) -> None:
    parser.add_argument(
        "peers",
        nargs="*",
        metavar="PEER",
        help="print the pseudonym of this peer, so that you can mention it in the issue",
    )
    add_source(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        metavar="FILE",
        help="write to FILE, which must not exist (default: tsfc-report-TIME.txt)",
    )
    add_watchdog_metrics(parser, "the other files in its directory are read, too")


def _report_bug(options: Namespace) -> int:
    from tsfc.bugreport import command

    signals.install()
    return command.run(
        run_options(options),
        command.Options(
            watchdog_metrics=options.watchdog_metrics,
            output=options.output,
            peers=tuple(options.peers),
        ),
    )


COMMANDS = {
    "report-bug": Command(
        "Write a file for a bug report, with pseudonyms instead of names",
        _add_report_bug,
        _report_bug,
        "troubleshooting.md",
        {
            "tsfc report-bug": "write tsfc-report-DATE-TIME.txt in this directory",
            "tsfc report-bug nas": "also print which pseudonym nas has in the file",
        },
    ),
}
