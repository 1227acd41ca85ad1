"""Whether this process can see a directory that another program replaced.

tailscaled's unit has `RuntimeDirectory=tailscale`, so each restart replaces the
directory of its socket. An admin may replace that of the metrics. A sandbox shows the
one that existed when its process started.
"""

from __future__ import annotations

import os


def is_deleted(directory: str) -> bool:
    """Whether the directory at this path is deleted and only a mount keeps it."""
    try:
        return os.stat(directory).st_nlink == 0
    except OSError:
        return False


def cannot_appear(directory: str) -> bool:
    """Whether there is no such directory, and this process would not see a new one.

    Nothing appears on a file system that is read-only, such as `/run` in a sandbox.
    """
    if os.path.exists(directory):
        return False
    parent = os.path.dirname(directory)
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    return bool(os.statvfs(parent).f_flag & os.ST_RDONLY)
