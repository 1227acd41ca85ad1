"""The lab: the internet, its servers and the nodes."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab import builds, control, network
from lab.background import in_background
from lab.network import FIRST_HOST, INTERNET, LAST_HOST, NAT
from lab.nodes import PORT, UNREACHABLE, Node, peers_in

POLL_SECONDS = 0.05
UP_SECONDS = 60.0
LOG_LINES = 8
REFRESH_SECONDS = 1.0
"Interval between two checks for nodes with an outdated engine status."
REFRESH_TIMEOUT_SECONDS = 5.0
"Timeout of a refresh; tailscaled reads its engine status after two seconds."


class UnmetError(AssertionError):
    """A condition was not met in time. The message describes the state of the lab."""


class Lab:
    """A tailnet that exists within a `with` block, in its own namespaces.

    Args:
        nodes: the kind of NAT, by name of the node.
        version: the Tailscale release of the nodes, such as `v1.102.3`.
        more: more nodes, as keywords.

    Raises:
        builds.BuildError: a program cannot be built.
        network.NetworkError: the network cannot be created.
        UnmetError: a server or a node did not start in time.
    """

    def __init__(
        self, nodes: Mapping[str, NAT] | None = None, *, version: str = builds.NEWEST, **more: NAT
    ) -> None:
        self._version, self._nats = version, {**(nodes or {}), **more}
        self.nodes: dict[str, Node] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _open(self, stack: ExitStack) -> None:
        # The programs, a directory and the internet. The path of the directory is short
        # because that of a socket is limited to 108 bytes.
        server, self.programs = builds.server(), builds.tailscale(self._version)
        self.directory = Path(tempfile.mkdtemp(prefix="tsfc-lab-", dir="/tmp"))
        stack.callback(shutil.rmtree, self.directory)
        self._places = stack.enter_context(ExitStack())
        self.internet = network.create_internet(self._places)
        # The coordination server, DERP and STUN; setpriv ends them together with this
        # process.
        self.admin = self.directory / "control.sock"
        self.certificate = self.directory / "certificate.pem"
        with (self.directory / "control.log").open("ab") as log:
            command = self.internet.command(
                str(server),
                "-ip",
                INTERNET,
                "-admin",
                str(self.admin),
                "-certificate",
                str(self.certificate),
            )
            self.control = subprocess.Popen(
                ["setpriv", "--pdeathsig=KILL", *command],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        stack.callback(self._kill)
        self.wait_until(self._is_control_up, UP_SECONDS)
        # The nodes.
        stack.enter_context(self._refreshing())
        for name, nat in self._nats.items():
            self.add(name, nat).start()
        self.up(*self._nats)

    def _kill(self) -> None:
        # An orderly shutdown would only cost time: all peers end as well.
        for process in (*(node.process for node in self.nodes.values()), self.control):
            if process is not None:
                process.kill()
                process.wait()

    def _is_control_up(self) -> bool:
        with suppress(FileNotFoundError, ConnectionRefusedError):
            control.nodes(self.admin)
            return True
        return False

    @contextmanager
    def _refreshing(self) -> Generator[None]:
        """Refresh outdated engine statuses (`control.refresh_engine_status`)."""

        def refresh_all(end: threading.Event) -> None:
            while not end.wait(REFRESH_SECONDS):
                for node in list(self.nodes.values()):
                    with suppress(OSError, HTTPException, control.ResponseError):
                        self._refresh(node)

        with in_background(refresh_all):
            yield

    def _refresh(self, node: Node) -> None:
        """Refresh the engine status of a node that seems stuck or has no endpoints."""
        state = node.state(timeout=REFRESH_TIMEOUT_SECONDS)
        # Read per node, not once for all: a refresh takes seconds, in which records
        # change.
        record = control.nodes(self.admin, timeout=REFRESH_TIMEOUT_SECONDS).get(node.name, {})
        if state == "Starting" or (state == "Running" and not record.get("endpoints")):
            control.refresh_engine_status(node.socket, timeout=REFRESH_TIMEOUT_SECONDS)

    def add(self, name: str, nat: NAT) -> Node:
        """Add a node. Its tailscaled is not started."""
        number = FIRST_HOST + len(self.nodes)
        assert number <= LAST_HOST, "no address left"
        directory = self.directory / name
        directory.mkdir()
        node = Node(
            name,
            network.create_place(nat, number, self.internet, self._places),
            self.programs,
            directory,
            self.certificate,
        )
        self.nodes[name] = node
        return node

    def up(self, *names: str) -> None:
        """Log nodes in, all at once, and wait until each sees the others."""
        # Run `tailscale up` on all of them at the same time.
        started: list[tuple[str, subprocess.Popen[str]]] = []
        for name in names:
            node = self.nodes[name]
            self.wait_until(node.socket.exists, UP_SECONDS)
            process = subprocess.Popen(
                node.command(*node.up_arguments()),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            started.append((name, process))
        # Each must succeed.
        for name, process in started:
            output, _ = process.communicate(timeout=UP_SECONDS)
            if process.returncode != 0:
                raise UnmetError(f"`tailscale up` on {name}: {output.strip()}\n{self.describe()}")
        # Each must see the others, and the coordination server must have the endpoints
        # of all.
        self.wait_until(
            lambda: all(self._sees(self.nodes[name], others=len(names) - 1) for name in names),
            UP_SECONDS,
        )
        self.wait_until(
            lambda: all(
                node["endpoints"] for name, node in self.control_nodes().items() if name in names
            ),
            UP_SECONDS,
        )

    def _sees(self, node: Node, *, others: int) -> bool:
        """Whether a node is online and sees this many online peers with a relay."""
        status = node.status()
        online = [peer for peer in peers_in(status) if peer["Online"] and peer["Relay"]]
        return bool(
            status["BackendState"] == "Running"
            and status["Self"]["Online"]
            and len(online) >= others
        )

    def node(self, name: str) -> Node:
        """Return a node."""
        return self.nodes[name]

    def control_nodes(self) -> dict[str, Any]:
        """Return the coordination server's record of each node, by host name."""
        return control.nodes(self.admin)

    def set_online(self, name: str, online: bool | None) -> None:  # noqa: FBT001
        """Let the server report a node as online or offline; None: as it is."""
        control.update(self.admin, name, online="auto" if online is None else str(online).lower())

    def expire(self, name: str) -> None:
        """Let the key of a node be expired."""
        control.update(self.admin, name, expires_in="-1h")

    def expire_in(self, name: str, seconds: float) -> None:
        """Let the key of a node expire in this many seconds."""
        control.update(self.admin, name, expires_in=f"{seconds}s")

    def tag(self, name: str, tags: Sequence[str]) -> None:
        """Set the tags of a node."""
        control.update(self.admin, name, tags=",".join(tags))

    def route(self, name: str, routes: Sequence[str]) -> None:
        """Set the routes that a node may serve."""
        control.update(self.admin, name, routes=",".join(routes))

    def share_to(self, name: str) -> None:
        """Make a node a sharee, which `tailscale status` hides."""
        control.update(self.admin, name, sharee="true")

    def block_udp(self, name: str) -> None:
        """Drop all UDP at the router of a node."""
        network.block_udp(self.nodes[name].place)

    def unblock_udp(self, name: str) -> None:
        """Undo `block_udp`."""
        network.unblock_udp(self.nodes[name].place)

    def block_port(self, name: str) -> None:
        """Drop what a node sends from the UDP port of tailscaled, at its router."""
        network.block_port(self.nodes[name].place, PORT)

    def block_control(self, name: str) -> None:
        """Refuse a node's connections to the coordination server, at its router."""
        network.block_control(self.nodes[name].place)

    def silence_control(self, name: str) -> None:
        """Drop all packets between a node and the coordination server, both ways."""
        network.silence_control(self.nodes[name].place)

    def unblock_control(self, name: str) -> None:
        """Undo `block_control` or `silence_control`."""
        network.unblock_control(self.nodes[name].place)

    def block_wireguard(self, name: str) -> None:
        """Drop a node's WireGuard packets at its router, and pass disco and STUN."""
        network.block_wireguard(self.nodes[name].place)

    def unblock_wireguard(self, name: str) -> None:
        """Undo `block_wireguard`."""
        network.unblock_wireguard(self.nodes[name].place)

    def readdress(self, name: str) -> None:
        """Give the router of a node another address; its NAT keeps the old mappings."""
        network.readdress(self.nodes[name].place)

    def restart(self, name: str, **environment: str) -> None:
        """Restart the tailscaled of a node, with more environment variables."""
        self.nodes[name].restart(**environment)

    def wait_until(self, predicate: Callable[[], object], timeout: float) -> float:
        """Wait until a condition holds, and return the seconds that it took.

        Raises:
            UnmetError: it does not hold within `timeout` seconds.
        """
        start = time.monotonic()
        while not (value := predicate()):
            if time.monotonic() - start > timeout:
                where = (
                    f"{predicate.__module__}:{predicate.__code__.co_firstlineno}"
                    if hasattr(predicate, "__code__")
                    else repr(predicate)
                )
                raise UnmetError(
                    f"after {timeout:g} s the condition at {where} is {value!r}\n{self.describe()}"
                )
            time.sleep(POLL_SECONDS)
        return time.monotonic() - start

    def describe(self) -> str:
        """Describe the lab: statuses, last lines of the logs, the server's records."""
        lines: list[str] = []
        for node in self.nodes.values():
            state = node.state()
            lines.append(f"== {node.name}, {node.place.nat.value}, {state}")
            if state != UNREACHABLE:
                lines.append(node.tailscale("status", check=False).rstrip())
            if node.log.exists():
                lines += [
                    f"   {line}"
                    for line in node.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                ]
        with suppress(OSError, control.ResponseError):
            lines += [
                "== control",
                *(f"{name}: {json.dumps(node)}" for name, node in self.control_nodes().items()),
            ]
        return "\n".join(lines)
