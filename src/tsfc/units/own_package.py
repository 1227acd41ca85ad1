"""The running tsfc as the package of the units: its directories and their problems."""

from __future__ import annotations

import os
import stat
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence

import tsfc
from tsfc.units.values import absolute_path


def program(package: str | None = None) -> str:
    """Return the path of the program that units start: by default, this tsfc."""
    return f"{package or sys.prefix}/bin/tsfc"


def visible_directories() -> tuple[str, ...]:
    """Directories that this tsfc needs and that the sandbox may hide.

    pipx installs below the home of its user, a version manager may have installed
    Python there, and a checkout may be anywhere. The sandbox never hides /usr.
    """
    source = os.path.dirname(os.path.dirname(os.path.abspath(tsfc.__file__)))
    return tuple(
        directory
        for directory in dict.fromkeys((sys.prefix, sys.base_prefix, source))
        if not f"{directory}/".startswith("/usr/")
        and (directory == sys.prefix or not directory.startswith(f"{sys.prefix}/"))
    )


def problem(directories: Sequence[str], *, starts_units: bool) -> str | None:
    """Return why units cannot run this tsfc; None if they can.

    Args:
        directories: what `visible_directories` returned.
        starts_units: whether the units start on this system, so that their users must
            be able to read the files.
    """
    # Directories become directives, which have a restricted alphabet.
    unusable = next((path for path in directories if not _is_absolute_path(path)), None)
    if unusable is not None:
        return (
            f"using the tsfc in {sys.prefix}: a unit cannot contain the path {unusable}; "
            "install tsfc elsewhere, such as in /opt/tsfc, or set --package"
        )
    # `python -m tsfc` in a checkout has no program that a unit could start.
    if not os.access(program(), os.X_OK):
        return (
            f"looking for {program()}: no such program; "
            "set --package to the prefix in which tsfc is installed"
        )
    # Root with a umask of 077 installs files that the dynamic users cannot read.
    private = next(
        (
            path
            for path in (*directories, program(), tsfc.__file__)
            if not os.stat(path).st_mode & stat.S_IROTH
        ),
        None,
    )
    if starts_units and private is not None:
        return (
            f"using the tsfc in {sys.prefix}: only its owner may read {private}, and the units "
            "do not run as root; run `chmod -R a+rX` on it"
        )
    return None


def _is_absolute_path(text: str) -> bool:
    try:
        absolute_path(text)
    except ArgumentTypeError:
        return False
    return True
