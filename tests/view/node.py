"""A node under test: its status, its watchdog, and what the commands print about it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.corpus import NAMES_FROM_HELL
from support.processes import Completed, run
from support.statuses import PATHS, encoded, peer
from support.terminals import output_of

NOW = 1_800_000_000
POLICY = ("--max-relay-seconds", "600", "--cooldown-seconds", "600")
HIDDEN_PEERS = (
    peer("us", "idle", DNSName="us-nyc-wg-301.mullvad.ts.net.", ExitNodeOption=True),
    *(
        peer("funnel-ingress-node", "idle", DNSName="", ID=stable_id, ShareeNode=True)
        for stable_id in ("nF1", "nF2")
    ),
    peer("guest", "idle", ShareeNode=True),
)
"Peers that `tailscale status` hides."
ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Node:
    """A node whose status is a file in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.status = directory / "status.json"
        self.metrics = directory / "watchdog.prom"
        "The metrics of its watchdog."
        self.snapshot = directory / "watchdog.json"

    def run_watchdog(
        self, at: int, *peers: Mapping[str, Any], policy: tuple[str, ...] = POLICY
    ) -> None:
        """Run the watchdog. A restart fails, because nothing listens on its socket."""
        self.status.write_bytes(encoded(*map(dict, peers)))
        ran = run(
            *("watchdog", "--now", str(at)),
            *("--status-file", str(self.status)),
            *("--state-dir", f"{self.directory}/state"),
            *("--metrics-path", str(self.metrics)),
            *("--restart-socket", f"{self.directory}/none"),
            *policy,
        )
        assert ran.status in {0, 1}

    def options(self, now: int = NOW) -> tuple[str, ...]:
        """Options with which a command reads the files of this node."""
        return (
            *("--status-file", str(self.status)),
            *("--watchdog-metrics", str(self.metrics)),
            *("--now", str(now)),
        )

    def run(
        self, command: tuple[str, ...], *peers: Mapping[str, Any], now: int = NOW, **fields: Any
    ) -> Completed:
        """Run `peers` or `explain` while the node has these peers and status fields."""
        self.status.write_bytes(encoded(*map(dict, peers), **fields))
        return run(*command, *self.options(now))

    def with_many_peers(self, number: int) -> tuple[str, ...]:
        """Give the node this number of peers and some with odd names.

        Return the command line of `tsfc peers`.
        """
        names = [
            *(name for name in NAMES_FROM_HELL if name),
            *(f"a-rather-long-name-of-a-machine-{index}" for index in range(number)),
        ]
        paths = list(PATHS)
        self.status.write_bytes(
            encoded(
                *(
                    peer("x", paths[index % 5], HostName=name, DNSName="", ID=f"n{index}")
                    for index, name in enumerate(names)
                )
            )
        )
        return ("peers", *self.options())


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of each row of the table, by the peer in its first column."""
    lines = [re.split(r" {2,}", line) for line in text.splitlines()]
    titles = next(number for number, cells in enumerate(lines) if cells[0] == "peer")
    return {cells[0]: cells[1:] for cells in lines[titles + 1 :] if cells[0]}


def run_on_terminal(
    *arguments: str, columns: int, lines: int = 50, env: Mapping[str, str] = {}
) -> str:
    """Run tsfc on a terminal of that size, and return its output."""
    # A terminal of that size, and no variables that override it.
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "cols", str(columns), "rows", str(lines)], stdin=theirs, check=True)
    unset = {"NO_COLOR", "COLUMNS", "LINES"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"TERM": "xterm-256color"} | dict(env)

    # Read until the program closes the terminal.
    process = subprocess.Popen(
        [sys.executable, "-m", "tsfc", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)

    return output_of(process, ours).decode().replace("\r\n", "\n")
