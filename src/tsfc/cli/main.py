"""Entry point: parse the command line and run one command.

Only the module of the requested command is imported, and a job imports only what it
needs: start-up is most of the cost of a run, and jobs start 13 times a minute.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from tsfc.shell import signals

if TYPE_CHECKING:
    from tsfc.cli.common import Command

COMMANDS = {
    "exporter": "jobs",
    "native-metrics": "jobs",
    "keepalive": "jobs",
    "watchdog": "jobs",
    "agent": "agent",
    "peers": "view",
    "explain": "view",
    "doctor": "view",
    "report-bug": "bugreport",
    "units": "units",
    "mixin": "mixin",
    "capture": "offline",
    "replay": "offline",
    "simulate": "offline",
    "stand-in": "offline",
}
"Module of `tsfc.cli` that defines each command, in the order of `tsfc --help`."
PAGE = "README.md"
"Page of the documentation about the program as a whole."
EXAMPLES = {
    "tsfc doctor": "find what is wrong with this node",
    "tsfc watchdog --help": "print the options of a command",
}
_ERROR_LIMIT = 1000
"Characters of a usage error. It quotes arguments, which have any length."


def entry() -> NoReturn:
    """Run the program as a process, and exit.

    Skip garbage collection and interpreter teardown: a run ends before they pay off,
    and together they are a fifth of its cost. Nothing is lost, because no output is
    buffered: all lines and files are written with `os.write`.
    """
    gc.disable()
    os._exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status.

    0: success. 1: failure. 2: usage error. A signal ends the process with 128 + N.
    """
    _open_standard_streams()
    try:
        options = _parse(sys.argv[1:] if argv is None else argv)
        run: Callable[[argparse.Namespace], int] = options.run
        status = run(options)
        _print_dropped()
        return status
    finally:
        signals.restore_defaults()  # there is nothing left to clean up


def _print_dropped() -> None:
    from tsfc.shell import console  # every command has imported it, but the parser has not

    console.print_dropped()


def _open_standard_streams() -> None:
    """Open descriptors 0 to 2 if they are closed, so that no socket becomes stdout."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line with the parser of the requested command.

    Building the parsers of all commands takes as long as a small job.
    """
    if argv and argv[0] in COMMANDS:
        parser = _command_parser(argv[0])
        parser.arguments = argv[1:]
        return parser.parse_args(argv[1:])
    # What is left is `--help`, `--version` or an error: this parser always exits.
    parser = program_parser()
    add_commands(parser)
    if not argv:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if not argv[0].startswith("-"):
        name = argv[0][:_ERROR_LIMIT]
        parser.error(f"unknown command {name!r}{_did_you_mean(name, COMMANDS)}")
    parser.arguments = argv
    return parser.parse_args(argv)


def program_parser() -> _Parser:
    """Parser of the program without its commands."""
    parser = _Parser(
        prog="tsfc",
        description="See, and keep alive, the peer-to-peer paths of a Tailscale node.",
        allow_abbrev=False,
    )
    parser.page, parser.examples = PAGE, EXAMPLES
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    return parser


def add_commands(
    parser: argparse.ArgumentParser, *, with_options: bool = False
) -> list[argparse.ArgumentParser]:
    """Add the commands to the parser of the program, and return their parsers.

    `tsfc --help` needs only their summaries. The options are for completions.
    """
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    added: list[argparse.ArgumentParser] = []
    for name in COMMANDS:
        command = find_command(name)
        added.append(subparsers.add_parser(name, help=command.summary))
        if with_options:
            command.add_options(added[-1])
    return added


def _command_parser(name: str) -> _Parser:
    command = find_command(name)
    parser = _Parser(prog=f"tsfc {name}", description=f"{command.summary}.", allow_abbrev=False)
    parser.page, parser.examples = command.page, command.examples
    parser.set_defaults(run=command.run)
    command.add_options(parser)
    return parser


def find_command(name: str) -> Command:
    """Command of that name; imports its module."""
    module = import_module(f"tsfc.cli.{COMMANDS[name]}")
    commands: dict[str, Command] = module.COMMANDS
    return commands[name]


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    """Question for a usage error; empty if no known word is similar."""
    from difflib import get_close_matches

    similar = get_close_matches(word, known, n=1)
    return f" (did you mean {similar[0]}?)" if similar else ""


def _path(page: str) -> str:
    """Path of a page of the documentation, in a checkout or as the wheel installs it.

    If it is not installed, the result names the page in the source.
    """
    packages = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    is_checkout = os.path.basename(packages) == "src"
    folder = "../docs" if is_checkout else "../../../share/doc/tsfc/docs"
    path = os.path.join(packages, folder, page)
    return os.path.realpath(path) if os.path.exists(path) else f"docs/{page} in tsfc's source"


class _Parser(argparse.ArgumentParser):
    """Parser whose help has examples, and whose usage errors are one printable line."""

    page = PAGE
    examples: Mapping[str, str] = {}
    arguments: Sequence[str] = ()
    "Arguments that it parses; an error blames an unknown option among them first."

    def format_help(self) -> str:
        examples = "".join(f"  {line}\n      {does}\n" for line, does in self.examples.items())
        return f"{super().format_help()}\nexamples:\n{examples}\nmore: {_path(self.page)}\n"

    def error(self, message: str) -> NoReturn:
        from tsfc.core.text import one_line

        if not message.startswith("unrecognized arguments:"):
            message = self._about_unknown_option() or message
        unknown = re.match("unrecognized arguments: (--[^ =]+)", message)
        hint = _did_you_mean(unknown[1], self._option_string_actions) if unknown else ""
        line = one_line(message, _ERROR_LIMIT) + hint
        self.exit(2, f"{self.prog}: {line}; see `{self.prog} --help`\n")

    def _about_unknown_option(self) -> str:
        """Message about the first unknown option; empty if all are known.

        argparse takes the value of an unknown option for a positional argument, and
        complains about that.
        """
        for argument in self.arguments:
            if argument == "--":
                break
            option = argument.partition("=")[0]
            is_option = option.startswith("--") and " " not in argument
            if is_option and option not in self._option_string_actions:
                return f"unrecognized arguments: {option}"
        return ""

    def _print_message(self, message: str, file: object = None) -> None:
        try:
            os.write(1 if file is sys.stdout else 2, message.encode(errors="replace"))
        except OSError:
            sys.exit(1)


class _Version(argparse.Action):
    """Print the installed version.

    Looking it up takes as long as a job, so it is done only on request.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        parser._print_message(f"tsfc {version('tsfc')}\n", sys.stdout)  # noqa: SLF001
        parser.exit()
