"""A lab seen by other means than tsfc: what the `tailscale` program says in its own words, and tsfc run on a node."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lab import Node
from support.processes import Ran, run, series

ROW = re.compile(r"^(?P<ip>[0-9a-f.:]+) +(?P<name>\S+) +(?P<owner>\S+) +(?P<os>\S+) +(?P<state>.*?) *$")
TRAFFIC = re.compile(r"(?:, )?tx (?P<tx>\d+) rx (?P<rx>\d+)$")
PATHS = {"direct": "direct", "relay": "derp", "peer-relay": "peer_relay"}
"The metrics' words by those of `tailscale status`."


@dataclass(frozen=True)
class Row:
    """A peer by `tailscale status`, and no more than a person would read there."""

    ip: str
    owner: str
    os: str
    is_online: bool
    is_active: bool
    is_exit_node: bool
    path: str
    "By the metrics' words."
    tx: int
    rx: int


def rows(text: str, own_address: str) -> dict[str, Row]:
    """Returns the peers that `tailscale status` shows, by their names."""
    found = {}
    for line in text.splitlines():
        match = ROW.match(line)
        if match and match["ip"] != own_address:
            found[match["name"]] = _row(match)
    return found


def _row(match: re.Match[str]) -> Row:
    state = match["state"]
    traffic = TRAFFIC.search(state)
    words = {part.strip() for part in TRAFFIC.sub("", state).split(";")}
    is_offline = any(word.startswith("offline") for word in words)
    path = next((PATHS[word.split()[0]] for word in words if word.split() and word.split()[0] in PATHS), "idle")
    return Row(
        ip=match["ip"],
        owner=match["owner"],
        os=match["os"],
        is_online=not is_offline,
        is_active="active" in words,
        is_exit_node="exit node" in words,
        path="offline" if is_offline else path,
        tx=int(traffic["tx"]) if traffic else 0,
        rx=int(traffic["rx"]) if traffic else 0,
    )


def tsfc(node: Node, job: str, *arguments: str, around: str | None = None) -> Ran:
    """Runs a job on a node, over its socket."""
    return run(job, "--socket", str(node.socket), *arguments, around=around)


def exported(node: Node, path: Path, *arguments: str) -> dict[str, float]:
    """Returns the series that the exporter writes on a node."""
    ran = tsfc(node, "exporter", "--metrics-path", str(path), *arguments)
    assert ran.status == 0, ran
    return series(path.read_text())
