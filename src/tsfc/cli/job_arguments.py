"""Check the arguments of a job before its unit is written."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import NoReturn

from tsfc.cli import agent, common, jobs, offline

_COMMANDS = {**jobs.COMMANDS, **agent.COMMANDS, **offline.COMMANDS}


class _Refused(Exception):  # noqa: N818 - argparse's errors end the process; this one returns
    """What the parser of a job does not accept. The text says why."""


class _Parser(ArgumentParser):
    """Parser that raises instead of ending the process; `--help` is an error, too."""

    def error(self, message: str) -> NoReturn:
        raise _Refused(message)

    def print_help(self, file: object = None) -> NoReturn:  # noqa: ARG002 - argparse's interface
        raise _Refused("--help is not an option of a unit")


def problem(job: str, arguments: Sequence[str]) -> str | None:
    """Return why `tsfc JOB` would refuse these arguments; None if it accepts them.

    `job` can be the agent: then the options that it gives to its jobs count, too.
    """
    at = job
    try:
        parser = _Parser(prog=f"tsfc {job}", allow_abbrev=False)
        _COMMANDS[job].add_options(parser)
        options = parser.parse_args(arguments)
        if job in agent.COMMANDS:
            for at in options.jobs:
                agent.job_options(at, options)
            return None
        if job == "watchdog":
            common.policy(options)
    except _Refused as refused:
        return f"{at} would not accept its arguments: {refused}; see `tsfc {at} --help`"
    return None
