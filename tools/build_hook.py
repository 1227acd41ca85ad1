"""Build hook of hatchling: completions for shells, and manual pages.

They are made from the parsers of the commands when the wheel is built. So they cannot
be out of date, and no run of tsfc pays for them.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import shtab
from argparse_manpage.manpage import Manpage  # type: ignore[import-untyped]
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPLETIONS = {
    "bash": "share/bash-completion/completions/tsfc",
    "zsh": "share/zsh/site-functions/_tsfc",
    "fish": "share/fish/vendor_completions.d/tsfc.fish",
}
"Files of the completions, where packages of each shell look for them."
FILES = frozenset({"CAPTURE", "FILE", "FILE.html", "PATH", "PROGRAM"})
"Metavariables of options whose value is the path of a file."
DIRECTORIES = frozenset({"DIR"})
LITERALS = str.maketrans({"'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})
"Characters that a manual page would print as their typographic forms."


class _Page(NamedTuple):
    """Contents of a manual page."""

    parser: argparse.ArgumentParser
    summary: str
    examples: Mapping[str, str]
    documentation: str
    "File in `docs/`."
    commands: Mapping[str, str] = {}
    "Summaries of the commands that the program has."


class BuildHook(BuildHookInterface[Any]):
    """Adds the files to the wheel, but not to an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the files, and add them to the wheel's shared data."""
        if version == "editable":
            return
        sys.path.insert(0, os.path.join(self.root, "src"))
        self._generated = tempfile.TemporaryDirectory()
        release: str = self.metadata.version  # pyright: ignore[reportUnknownMemberType] - it is generic
        for number, (path, text) in enumerate(generated(release).items()):
            file = Path(self._generated.name, str(number))
            file.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(file)] = path

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatchling's interface
        """Remove the generated files."""
        if version != "editable":
            self._generated.cleanup()


def generated(version: str) -> dict[str, str]:
    """Text of each generated file, by its path below the prefix of an installation."""
    return {
        **{f"share/man/man1/{name}.1": page for name, page in _manual(version).items()},
        **{
            path: shtab.complete(_complete_parser(), shell)
            for shell, path in COMPLETIONS.items()
            if shell in shtab.SUPPORTED_SHELLS  # fish since 1.9
        },
    }


def _complete_parser() -> argparse.ArgumentParser:
    """Parser with all commands, whose options say how to complete their values."""
    from tsfc.cli import main  # noqa: PLC0415 - after the hook has set the path
    from tsfc.offline.simulation import scenario  # noqa: PLC0415
    from tsfc.units.rendering import JOBS  # noqa: PLC0415

    words = {"JOB": JOBS, "SCENARIO": tuple(scenario.builtin())}
    parser = main.program_parser()
    for subparser in main.add_commands(parser, with_options=True):
        for action in subparser._actions:  # noqa: SLF001 - argparse has no public list
            if action.metavar in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar in DIRECTORIES:
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar in words:
                action.choices = words[action.metavar]
    return parser


def _manual(version: str) -> dict[str, str]:
    """Manual pages of the program and of each command, by their names."""
    from tsfc.cli import main  # noqa: PLC0415

    program = main.program_parser()
    commands = {name: main.find_command(name) for name in main.COMMANDS}
    summaries = {f"tsfc {name}": command.summary for name, command in commands.items()}
    pages = {"tsfc": _Page(program, f"{program.description}", main.EXAMPLES, main.PAGE, summaries)}
    for name, command in commands.items():
        parser = argparse.ArgumentParser(f"tsfc {name}", description=f"{command.summary}.")
        command.add_options(parser)
        pages[f"tsfc-{name}"] = _Page(parser, command.summary, command.examples, command.page)
    return {name: _roff(name, page, version) for name, page in pages.items()}


def _roff(name: str, page: _Page, version: str) -> str:
    """Source of a manual page."""
    # The library escapes no "." at the start of a line, which would be a macro.
    page.parser.formatter_class = functools.partial(argparse.HelpFormatter, width=100_000)
    manual: Any = Manpage(page.parser)
    manual.prog, manual.description = name, page.summary.removesuffix(".")
    manual.source, manual.manual = f"tsfc {version}", "tsfc"
    # The library escapes "-", which mandoc does not accept in a date.
    manual.date = f"{date.fromisoformat(manual.date):%B %d, %Y}"
    if page.commands:
        manual.add_section("synopsis", "=", r"\fBtsfc\fR \fICOMMAND\fR [\fIOPTION\fR]...")
        manual.add_section("commands", "=", _definitions(page.commands))
    manual.add_section("examples", "=", _definitions(page.examples))
    pages = "".join(
        f".BR {command.replace(' ', '-')} (1),\n"
        for command in ("tsfc", *page.commands)
        if command != name
    )
    manual.add_section("see also", "=", f"{pages}.I share/doc/tsfc/docs/{page.documentation}")
    return str(manual).translate(LITERALS)


def _definitions(texts: Mapping[str, str]) -> str:
    return "\n".join(
        f".TP\n\\fB{_escaped(term)}\\fR\n{_escaped(text)}" for term, text in texts.items()
    )


def _escaped(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-")
