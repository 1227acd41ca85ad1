"""Types of the options of `tsfc units`, for argparse.

A valid path, time span or name needs no quotes in a unit. `nix/types.nix` accepts the
same values, and `nix/places.nix` the same directories.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable

from tsfc.core import duration
from tsfc.core.listen_address import parsed
from tsfc.shell.defaults import METRICS_DIR
from tsfc.units.places import output_problem, socket_problem
from tsfc.units.rendering import CAPTURE_DIRECTORY

Value = Callable[[str], str]
"Returns the text if it is valid; raises ArgumentTypeError otherwise."

_COMPONENT = "/[.]?[A-Za-z0-9_@+=,~-][A-Za-z0-9_.@+=,~-]*"
"One component of a path, with the slash before it; `.` and `..` are none."
_LISTEN_IP = r"([0-9.]+|\[[0-9a-f:]+\]):[1-9][0-9]{0,4}"
"Form of `IP:PORT` that systemd reads, too; an IPv6 address is in brackets."
_LISTEN_PATH = "/run/tsfc(-[A-Za-z0-9_-]{1,32})?/[A-Za-z0-9_-]{1,32}[.]sock"
"systemd replaces a file of that name, so it must be in a directory of tsfc's own."


def time_span(text: str) -> str:
    """Accept a time span, longer than 0, which systemd reads, too."""
    if not duration.parse(text):
        raise ArgumentTypeError(
            f"{text!r} is not a time span longer than 0, such as {duration.EXAMPLES}"
        )
    return text


def absolute_path(text: str) -> str:
    """Accept an absolute path."""
    return _path(text, f"({_COMPONENT})+", "an absolute path", "/opt/tsfc")


def metrics_path(text: str) -> str:
    """Accept the path of a metrics file that the sandbox can show alone."""
    path = _path(
        text,
        f"({_COMPONENT})+{_COMPONENT}[.]prom",
        'an absolute path of a ".prom" file in a directory',
        "/var/lib/alloy/tailscale.prom",
    )
    return _without_problem(path, output_problem(path, METRICS_DIR))


def metrics_directory(text: str) -> str:
    """Accept the path of a directory in which jobs may write their metrics."""
    path = absolute_path(text)
    return _without_problem(path, output_problem(f"{path}/tailscale.prom", METRICS_DIR))


def capture_path(text: str) -> str:
    """Accept the path of a capture that the sandbox can show alone."""
    path = _path(
        text,
        rf"({_COMPONENT})+{_COMPONENT}[.]ndjson([.](gz|zst))?",
        'an absolute path of a ".ndjson", ".ndjson.gz" or ".ndjson.zst" file in a directory',
        "/srv/captures/status.ndjson.zst",
    )
    return _without_problem(path, output_problem(path, CAPTURE_DIRECTORY))


def socket_path(text: str) -> str:
    """Accept the path of a Unix socket in a directory of tailscaled's own."""
    path = _path(
        text,
        f"({_COMPONENT}){{2,}}",
        "an absolute path of a socket in a directory",
        "/run/tailscale/tailscaled.sock",
    )
    return _without_problem(path, socket_problem(path))


def listen_address(text: str) -> str:
    """Accept IP:PORT, or the path of a Unix socket in a directory of tsfc's own."""
    is_ip = re.fullmatch(_LISTEN_IP, text) and parsed(text) is not None
    if not is_ip and not re.fullmatch(_LISTEN_PATH, text):
        raise ArgumentTypeError(
            f'{text!r} is not IP:PORT, such as "127.0.0.1:9199" or "[::1]:9199", or the path of a '
            'socket in /run/tsfc or /run/tsfc-NAME, such as "/run/tsfc/agent.sock"'
        )
    return text


def service_name(text: str) -> str:
    """Accept the full name of a service."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9:_.@-]*[.]service", text):
        raise ArgumentTypeError(
            f'{text!r} is not a service name that ends in ".service", such as "tailscaled.service"'
        )
    return text


def seconds(text: str) -> str:
    """Accept a time span of whole seconds."""
    if duration.parse_whole(text) is None:
        raise ArgumentTypeError(
            f"{text!r} is not a time span of whole seconds up to {duration.MAX_SECONDS}, such as "
            f"{duration.EXAMPLES}"
        )
    return text


def policy(text: str) -> str:
    """Accept the name of a policy of the watchdog."""
    if text not in {"documented", "guarded"}:
        raise ArgumentTypeError(f"{text!r} is not a policy: documented or guarded")
    return text


def budget(text: str) -> str:
    """Accept a number of restarts in a day."""
    if not re.fullmatch("[0-9]|1[0-9]|2[0-4]", text):
        raise ArgumentTypeError(f"{text!r} is not a whole number from 0 to 24")
    return text


def remedies(text: str) -> str:
    """Accept a list of remedies of the watchdog, each once."""
    if text not in {"restart", "other-port", "restart,other-port", "other-port,restart"}:
        raise ArgumentTypeError(f"{text!r} is not restart, other-port, or restart,other-port")
    return text


def argument(text: str) -> str:
    """Accept any text in UTF-8. Other bytes arrive as lone surrogates (PEP 383)."""
    if re.search("[\ud800-\udfff]", text):
        raise ArgumentTypeError(f"{text!r} is not UTF-8")
    return text


def _path(text: str, pattern: str, expected: str, example: str) -> str:
    if not re.fullmatch(pattern, text):
        raise ArgumentTypeError(
            f'{text!r} is not {expected}, without spaces, "%" or "..", such as "{example}"'
        )
    return text


def _without_problem(path: str, problem: str | None) -> str:
    if problem is not None:
        raise ArgumentTypeError(f"{path!r} is {problem}")
    return path
