"""The command line of `tsfc units`: the options of the NixOS modules, as flags."""

from __future__ import annotations

import argparse
import os
import re
import stat
import sys
from collections.abc import Callable

from returns.result import Failure

import tsfc
from tsfc.cli.common import Command
from tsfc.shell.console import print_error
from tsfc.units import install as units
from tsfc.units.table import (
    Choice,
    Table,
    Value,
    checked,
    choices,
    clash,
    default_jobs,
    installation,
)

_ACTS: dict[str, str] = {
    "print": "print the units",
    "install": "write the units, enable them and start them; those that tsfc wrote before are replaced",
    "uninstall": "stop the units and remove them",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what can be done, for which jobs, and a flag for each option: `maxRelaySeconds` of `watchdog` is `--watchdog-max-relay-seconds`."""
    table = units.table()
    parser.set_defaults(table=table)
    acts = parser.add_mutually_exclusive_group(required=True)
    for act, text in _ACTS.items():
        acts.add_argument(f"--{act}", dest="act", action="store_const", const=act, help=text)
    usual = ", ".join(default_jobs(table))
    named = f"whose units: {', '.join(table.jobs)}; where none is named, {usual}, and with --uninstall all"
    parser.add_argument("jobs", nargs="*", metavar="JOB", type=_one_of(table), help=named)
    parser.add_argument(
        "--root",
        type=_directory,
        default="/",
        metavar="DIR",
        help="the file system to change, by its top (%(default)s)",
    )
    for choice in table.shared:
        _add_option(parser, table, choice, None)
    for job, own in table.jobs.items():
        for choice in own.options:
            _add_option(parser, table, choice, job)


def start(options: argparse.Namespace) -> int:
    """Does it, and returns the exit status."""
    table: Table = options.table
    problem = _at_home(table, options)
    if problem is not None:
        print_error(units.TOOL, problem)
        return 1
    meant = options.jobs or (table.jobs if options.act == "uninstall" else default_jobs(table))
    chosen = {job: _values(table, job, options) for job in meant}
    problem = clash(chosen)
    if problem is not None and options.act != "uninstall":
        print_error(units.TOOL, problem)
        return 2
    wanted = {job: installation(table, job, values) for job, values in chosen.items()}
    match options.act:
        case "print":
            return units.show(wanted)
        case "install":
            return units.install(wanted, options.root)
        case _:
            return units.uninstall(wanted, options.root)


def flag(job: str | None, name: str) -> str:
    """Returns the flag for an option of a job, or of all jobs."""
    words = re.sub("[A-Z]", lambda capital: f"-{capital[0].lower()}", name)
    return f"--{words}" if job is None else f"--{job}-{words}"


def _at_home(table: Table, options: argparse.Namespace) -> str | None:
    """Makes this very tsfc the package where none was given, and lets the jobs see it wherever it is; says what is in the way of that, if something is.

    pipx puts it below the home of its user, a version manager may have put Python there, and the source is where it was checked out.
    """
    if options.package is not None:
        return None
    options.package = sys.prefix
    if options.act == "uninstall":
        return None
    places = dict.fromkeys(
        (
            sys.prefix,
            sys.base_prefix,
            os.path.dirname(os.path.dirname(os.path.abspath(tsfc.__file__))),
        )
    )
    own = [
        place
        for place in places
        if not f"{place}/".startswith("/usr/")
        and (place == sys.prefix or not place.startswith(f"{sys.prefix}/"))
    ]
    options.visiblePaths = [*own, *(options.visiblePaths or ())]
    bad = next(
        (place for place in own if isinstance(checked(table, "package", place), Failure)), None
    )
    if bad is not None:
        return f"using the tsfc in {sys.prefix}: a unit cannot name the path {bad}; install it elsewhere, say in /opt/tsfc, or give --package"
    if not os.access(f"{sys.prefix}/bin/tsfc", os.X_OK):
        return f"looking for {sys.prefix}/bin/tsfc: there is no such program; give --package the prefix that tsfc is installed in"
    closed = next(
        (
            place
            for place in (*own, f"{sys.prefix}/bin/tsfc", tsfc.__file__)
            if not os.stat(place).st_mode & stat.S_IROTH
        ),
        None,
    )
    if closed is not None and options.act == "install" and os.path.realpath(options.root) == "/":
        return f"using the tsfc in {sys.prefix}: only its owner may read {closed}, and the units are not root; see that others may: chmod -R a+rX"
    return None


def _add_option(
    parser: argparse.ArgumentParser, table: Table, choice: Choice, job: str | None
) -> None:
    option = table.options[choice.name]
    name = flag(job, choice.name)
    dest = _dest(job, choice.name)
    help_text = option.description.replace("%", "%%").removesuffix(".")
    match choice.default:
        case bool():
            parser.add_argument(name, dest=dest, action="store_true", help=help_text)
        case tuple():
            parser.add_argument(
                name,
                dest=dest,
                action="append",
                type=_checked(table, choice.name),
                metavar="TEXT",
                help=f"{help_text}; can be given again",
            )
        case default:
            shown = "" if default is None else f" ({default})"
            parser.add_argument(
                name,
                dest=dest,
                type=_checked(table, choice.name),
                default=default,
                metavar="VALUE",
                help=f"{help_text}{shown}",
            )


def _values(table: Table, job: str, options: argparse.Namespace) -> dict[str, Value]:
    dests = {choice.name: _dest(None, choice.name) for choice in table.shared} | {
        choice.name: _dest(job, choice.name) for choice in table.jobs[job].options
    }
    given = {name: getattr(options, dest) for name, dest in dests.items()}
    return {
        choice.name: tuple(given[choice.name] or ())
        if isinstance(choice.default, tuple)
        else given[choice.name]
        for choice in choices(table, job)
    }


def _dest(job: str | None, name: str) -> str:
    return name if job is None else f"{job}.{name}"


def _one_of(table: Table) -> Callable[[str], str]:
    def job(text: str) -> str:
        if text not in table.jobs:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no job; the jobs are {', '.join(table.jobs)}"
            )
        return text

    return job


def _directory(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("'' is no directory; the running system's is /")
    return text


def _checked(table: Table, name: str) -> Callable[[str], str]:
    def value(text: str) -> str:
        seen = checked(table, name, text)
        if isinstance(seen, Failure):
            raise argparse.ArgumentTypeError(seen.failure())
        return seen.unwrap()

    return value


COMMANDS = {
    "units": Command("Print, install or remove the systemd units of the jobs", add_arguments, start)
}
