"""Nodes of a lab: what `tailscale status` prints there, and tsfc run on them.

Tests compare tsfc with what `tailscale status` prints.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab import NAT, Lab, Node
from lab.nodes import ENVIRONMENT, PORT
from support.hosts import SOCKET, TAILSCALED_UNIT, Host, hosting, require_bootable
from support.processes import Completed, run, series

ROW = re.compile(
    r"^(?P<ip>[0-9a-f.:]+) +(?P<name>\S+) +(?P<owner>\S+) +(?P<os>\S+) +(?P<state>.*?) *$"
)
TRAFFIC = re.compile(r"(?:, )?tx (?P<tx>\d+) rx (?P<rx>\d+)$")
PATHS = {"direct": "direct", "relay": "derp", "peer-relay": "peer_relay"}
"Values of the label `path` by the words of `tailscale status`."


@dataclass(frozen=True)
class Row:
    """A peer as `tailscale status` prints it."""

    ip: str
    owner: str
    os: str
    is_online: bool
    is_active: bool
    is_exit_node: bool
    path: str
    "Value of the label `path`."
    tx: int
    rx: int


def rows(text: str, own_address: str) -> dict[str, Row]:
    """Return the peers that `tailscale status` prints, by name."""
    found: dict[str, Row] = {}
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
    path = next(
        (PATHS[word.split()[0]] for word in words if word.split() and word.split()[0] in PATHS),
        "idle",
    )
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


def tsfc(node: Node, job: str, *arguments: str) -> Completed:
    """Run a job on the socket of a node."""
    return run(job, "--socket", str(node.socket), *arguments)


def exported(node: Node, path: Path) -> dict[str, float]:
    """Run the exporter on a node; return the series that it writes."""
    ran = tsfc(node, "exporter", "--metrics-path", str(path))
    assert ran.status == 0, ran
    return series(path.read_text())


TAILSCALED_ENVIRONMENT = "/etc/default/tailscaled"
CERTIFICATE = "/etc/ssl/lab.pem"
STATE_DIRECTORY = "/var/lib/tailscale"


@dataclass(frozen=True)
class Booted:
    """A node that is a booted machine: systemd runs tailscaled and tsfc's units."""

    host: Host
    node: Node

    def tailscale(self, *arguments: str, check: bool = True) -> str:
        """Run `tailscale`; return its output. With `check` it must succeed."""
        return self.host.machine.run(
            str(self.node.programs / "tailscale"), *arguments, check=check
        ).stdout

    def path_to(self, name: str) -> str:
        """Return the path to a peer by `tailscale status`; empty if there is none."""
        row = rows(self.tailscale("status", check=False), "").get(name)
        return row.path if row else ""

    def pinged(self, name: str) -> str:
        """Ping a peer once; return the path to it afterwards."""
        self.tailscale("ping", "-c", "1", "--until-direct=false", name, check=False)
        return self.path_to(name)

    def starts_with(self, environment: Mapping[str, str]) -> None:
        """Set the environment of tailscaled from its next start on."""
        self.host.machine.path(TAILSCALED_ENVIRONMENT).write_text(_assignments(environment))


@contextmanager
def booted_node(
    lab: Lab, name: str, nat: NAT, *install: str, environment: Mapping[str, str] | None = None
) -> Generator[Booted]:
    """Add a booted machine to a lab as a node, and install tsfc's units on it.

    `install` are the options of `tsfc units --install`. `environment` is for the first
    start of tailscaled.
    """
    require_bootable()
    node = lab.add(name, nat)
    settings = "".join(
        f"Environment={key}={value}\n"
        for key, value in (ENVIRONMENT | {"SSL_CERT_FILE": CERTIFICATE, "PORT": str(PORT)}).items()
    )
    # As in the unit of Tailscale, systemd's default start limit applies, and the port is a
    # variable.
    flags = " ".join(node.flags(STATE_DIRECTORY, SOCKET, port="${PORT}"))
    unit = f"""[Service]
Type=notify
{settings}EnvironmentFile=-{TAILSCALED_ENVIRONMENT}
RuntimeDirectory=tailscale
StateDirectory=tailscale
ExecStart={node.programs}/tailscaled {flags}
Restart=on-failure
"""
    files = {
        TAILSCALED_UNIT: unit,
        CERTIFICATE: node.certificate.read_text(),
        TAILSCALED_ENVIRONMENT: _assignments(environment or {}),
    }
    with hosting(
        *install, files=files, network=node.place.inside.path, visible=[node.programs]
    ) as host:
        node.socket = host.machine.path(SOCKET)
        booted = Booted(host, node)
        booted.tailscale(*node.up_arguments())
        yield booted


def _assignments(environment: Mapping[str, str]) -> str:
    """Return environment variables in the format of systemd's `EnvironmentFile=`."""
    return "".join(f"{name}={value}\n" for name, value in environment.items())
