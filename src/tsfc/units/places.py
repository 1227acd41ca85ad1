"""Directories that the sandbox of the units must not show to the jobs.

The sandbox shows the whole directory of the socket, and makes the whole directory of an
output writable. A job with `CAP_DAC_OVERRIDE` ignores file modes there, so no other
program may use these directories. `nix/places.nix` has the same rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN_DIRECTORIES = (
    "/dev",
    "/home",
    "/proc",
    "/root",
    "/run/user",
    "/sys",
    "/tmp",  # noqa: S108 - named, not used
    "/var/tmp",  # noqa: S108 - named, not used
)
"Directories that the sandbox hides or replaces; a job cannot reach files in them."

SYSTEM_TREES = (
    "/bin",
    "/boot",
    "/efi",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix",
    "/run/credentials",
    "/run/dbus",
    "/run/lock",
    "/run/log",
    "/run/systemd",
    "/run/udev",
    "/sbin",
    "/usr",
    "/var/lib/dbus",
    "/var/lib/systemd",
    "/var/lib/tailscale",
    "/var/lib/tailscale-watchdog",
    "/var/lock",
    "/var/log/journal",
    "/var/spool/cron",
)
"Directories whose content belongs to the system, tailscaled or the watchdog."

SHARED_DIRECTORIES = (
    "/media",
    "/mnt",
    "/opt",
    "/run",
    "/run/private",
    "/srv",
    "/var",
    "/var/backups",
    "/var/cache",
    "/var/cache/private",
    "/var/crash",
    "/var/db",
    "/var/empty",
    "/var/games",
    "/var/lib",
    "/var/lib/private",
    "/var/local",
    "/var/log",
    "/var/log/private",
    "/var/mail",
    "/var/opt",
    "/var/spool",
)
"Directories in which each program has a directory of its own."

_TAILSCALED = "(/run/tailscale[^/]*)/.+"
"Path in a runtime directory of a tailscaled: `/run/tailscale-work/tailscaled.sock`."
_HELPER = "/run/tailscale-watchdog(-[^/]*)?/.+"
"Path in the directory of the privileged restart helper's socket, or of an instance's."


def output_problem(path: str, example: str) -> str | None:
    """Return why a job must not write the file `path`; None if it may.

    Args:
        path: absolute, without `.` and `..`.
        example: a suitable directory, for the message.

    Returns:
        A phrase that completes "PATH is …" and ends in what to do.
    """
    path = _without_link(path)
    directory = path.rpartition("/")[0]
    own = f"choose a directory of its own, such as {example}"
    if hidden := _hidden(path):
        return hidden
    if directory in SHARED_DIRECTORIES:
        return f"directly in {directory}, all of which the job could then change; {own}"
    if tree := _ancestor(path, SYSTEM_TREES):
        return f"in {tree}, which belongs to the system; {own}"
    if runtime := re.fullmatch(_TAILSCALED, path):
        return f"in {runtime[1]}, which belongs to tailscaled; {own}"
    return None


def socket_problem(path: str) -> str | None:
    """Return why the units must not use the socket `path`; None if they may.

    tailscaled makes a new socket at each start, so the sandbox shows its directory.
    That must be tailscaled's own: `/run/tailscale*`, or below.

    Args:
        path: absolute, without `.` and `..`.

    Returns:
        A phrase that completes "PATH is …" and ends in what to do.
    """
    path = _without_link(path)
    if hidden := _hidden(path):
        return hidden
    if re.fullmatch(_TAILSCALED, path) and not re.fullmatch(_HELPER, path):
        return None
    return (
        "not in /run/tailscale or /run/tailscale-NAME, and the jobs could then use everything "
        'in its directory; start tailscaled with "--socket=/run/tailscale/tailscaled.sock" '
        "and RuntimeDirectory=tailscale"
    )


def _hidden(path: str) -> str | None:
    directory = _ancestor(path, HIDDEN_DIRECTORIES)
    if directory is None:
        return None
    return f"in {directory}, which the sandbox of the units hides; choose another directory"


def _ancestor(path: str, directories: Iterable[str]) -> str | None:
    return next((each for each in directories if path.startswith(f"{each}/")), None)


def _without_link(path: str) -> str:
    """Return the path without the link that `/var/run` is."""
    return path.removeprefix("/var") if path.startswith("/var/run/") else path
