"""Directories of the file system that lead elsewhere, or that users could redirect."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence

from tsfc.units.rendering import JobSettings

_MOST_LINKS = 40
"Links that the kernel follows in one path (path_resolution(7))."


def redirectable_output(settings: Sequence[JobSettings], root: str) -> str | None:
    """Return why the output of a job is not safe to write; None if all are.

    systemd follows links on the way to the directory of an output, so a user who may
    change a directory on the way could redirect the job to any directory.

    Args:
        settings: the jobs to install.
        root: directory that is `/` for these paths and for links.
    """
    for job in settings:
        if job.output is None:
            continue
        parent = changeable_parent(os.path.dirname(job.output), root)
        if parent is not None:
            return (
                f"installing tailscale-{job.job}.service: users other than root may change "
                f"{parent}, so they could redirect {job.output} to any directory; "
                "choose a path below directories that only root may change. Nothing was changed"
            )
    return None


def changeable_parent(directory: str, root: str) -> str | None:
    """Return the first directory on the way to `directory` that others may change.

    On the way are all directories in which the kernel looks up a name, also behind
    links. `directory` itself may belong to anybody. The sticky bit does not help: it
    does not keep a user from adding entries. None if only root may change all of them.

    Args:
        directory: absolute path; `root` stands for its `/`.
        root: directory at which the way begins; links do not lead out of it.
    """
    place, links = "/", 0
    names = _names(directory)
    while names:
        name = names.pop()
        if name == "..":
            place = os.path.dirname(place)
            continue
        if _others_may_change(below(root, place)):
            return place
        path = os.path.join(place, name)
        try:
            target = os.readlink(below(root, path))
        except FileNotFoundError:  # systemd-tmpfiles creates the rest, as root.
            return None
        except OSError:
            place = path
            continue
        links += 1
        if links > _MOST_LINKS:  # The job reports the loop.
            return None
        place = "/" if target.startswith("/") else place
        names += _names(target)
    return None


def way_out(directories: Iterable[str], root: str) -> tuple[str, str] | None:
    """Return the first directory that links lead out of `root`, and where it leads.

    Args:
        directories: paths below `root`, which need not exist.
        root: directory; `/` contains everything.
    """
    top = os.path.realpath(root)
    for directory in directories:
        target = os.path.realpath(directory)
        if os.path.commonpath((top, target)) != top:
            return directory, target
    return None


def _names(path: str) -> list[str]:
    """Return the components of a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in {"", "."}]


def below(root: str, path: str) -> str:
    """Return an absolute path as it is below the directory that becomes /."""
    return os.path.join(root, path.removeprefix("/"))


def _others_may_change(directory: str) -> bool:
    try:
        status = os.stat(directory, follow_symlinks=False)
    except OSError:
        return False
    return (
        status.st_uid != 0
        or bool(status.st_mode & stat.S_IWOTH)
        or (bool(status.st_mode & stat.S_IWGRP) and status.st_gid != 0)
    )
