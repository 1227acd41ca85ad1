"""Run tsfc in forks of this process, which has imported everything already.

A run can kill itself at its N-th step. Steps are system calls with an effect or a view
on the system: opening, writing, syncing, renaming and removing a file, creating and
listing a directory, locking, connecting, starting a program. The run dies before the step, except
that a write has written half of its data. So a kill after step N is a kill at step N +
1. Or the step fails, as on a broken disk, and so do all later ones if that lasts; a
program starts all the same.

Orders arrive on standard input, one JSON document per line. The exit status of each run
goes to standard output.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import sys
import traceback
from typing import Any

from tsfc.cli import main as cli

for module in (
    "tsfc.core.metrics.exposition",
    *(f"tsfc.shell.jobs.{job}" for job in ("exporter", "keepalive", "native_metrics", "watchdog")),
    "tsfc.shell.runs",
    "tsfc.shell.statedir",
    "tsfc.shell.systemd",
):
    importlib.import_module(module)

AUDITED = {
    "open",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.listdir",
    "fcntl.flock",
    "socket.connect",
    "subprocess.Popen",
}


class Steps:
    """Counts and logs the steps of this process, and kills or fails it at one of them."""

    def __init__(self, order: dict[str, Any], log: int | None) -> None:
        self.number = 0
        self.kill_at: int | None = order["kill_at"]
        self.fail_at: int | None = order["fail_at"]
        self.keeps_failing: bool = order["keeps_failing"]
        self.log = log
        self.write = os.write
        self.fsync = os.fsync

    def install(self) -> None:
        """Start counting. This cannot be undone, so only forks do it."""
        sys.addaudithook(self._audit)
        os.write, os.fsync = self._write, self._fsync  # type: ignore[assignment]

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in AUDITED:
            names = arguments[:2] if event == "os.rename" else arguments[:1]
            self._step(" ".join([event, *map(str, names)]))

    def _write(self, descriptor: int, data: bytes) -> int:
        if self.number == self.kill_at:
            self.write(descriptor, data[: len(data) // 2])
        self._step(f"write {os.readlink(f'/proc/self/fd/{descriptor}')}")
        return self.write(descriptor, data)

    def _fsync(self, descriptor: int) -> None:
        self._step(f"fsync {os.readlink(f'/proc/self/fd/{descriptor}')}")
        self.fsync(descriptor)

    def _step(self, name: str) -> None:
        if self.log is not None:
            self.write(self.log, f"{name}\n".encode())
        if self.number == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        number, self.number = self.number, self.number + 1
        is_disk = " /" in name and "/dev/" not in name and not name.startswith("subprocess")
        if self.fail_at is None or not is_disk:
            return
        if number == self.fail_at or (self.keeps_failing and number > self.fail_at):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def main() -> None:
    """Execute orders until standard input ends."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_run(json.loads(line)))
        _, status = os.waitpid(child, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _run(order: dict[str, Any]) -> int:
    for descriptor, path in (1, order["stdout"]), (2, order["stderr"]):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    os.environ["PATH"] = order["path"]
    log = (
        None
        if order["log"] is None
        else os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    )
    Steps(order, log).install()
    try:
        return cli.main(order["arguments"])
    except BaseException:  # noqa: BLE001 - for the test to see
        os.write(2, traceback.format_exc().encode())
        return 70


if __name__ == "__main__":
    main()
