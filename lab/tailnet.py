"""The lab: an internet with its servers, and nodes by name."""

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
from lab.network import FIRST_HOST, INTERNET, LAST_HOST, NAT
from lab.nodes import UNREACHABLE, Node, peers_in

POLL_SECONDS = 0.05
UP_SECONDS = 60.0
LOG_LINES = 8
HELP_SECONDS = 1.0
HELP_TIMEOUT_SECONDS = 5.0
"More than the two seconds that tailscaled takes to look at its engine for who watches it."


class UnmetError(AssertionError):
    """A condition was not met in time; the text has what was seen instead."""


class Lab:
    """A tailnet that is there while the block lasts. All its traffic is in its own network namespaces.

    Args:
        nodes: the kind of NAT by the node's name, for names that are no keywords.
        version: the release that its nodes run, like `v1.102.3`.
        more: the kind of NAT by the node's name.

    Raises:
        builds.BuildError: its programs cannot be built.
        network.NetworkError: its network cannot be set up.
    """

    def __init__(
        self, nodes: Mapping[str, NAT] | None = None, *, version: str = builds.NEWEST, **more: NAT
    ) -> None:
        self._version, self._wanted = version, {**(nodes or {}), **more}
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
        server, self.programs = builds.server(), builds.tailscale(self._version)
        # Short: a socket's path has 108 bytes at most.
        self.directory = Path(tempfile.mkdtemp(prefix="tsfc-lab-", dir="/tmp"))
        stack.callback(shutil.rmtree, self.directory)
        self._places = stack.enter_context(ExitStack())
        self.internet = network.internet(self._places)
        self.admin, self.certificate = (
            self.directory / "control.sock",
            self.directory / "certificate.pem",
        )
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
        stack.callback(self._end)
        self.wait_until(self._control_answers, UP_SECONDS)
        stack.enter_context(self._helping())
        for name, nat in self._wanted.items():
            self.add(name, nat).start()
        self.up(*self._wanted)

    def _end(self) -> None:
        """Ends all processes: without a word to the others, who end as well."""
        for process in (*(node.process for node in self.nodes.values()), self.control):
            if process is not None:
                process.kill()
                process.wait()

    def _control_answers(self) -> bool:
        with suppress(FileNotFoundError, ConnectionRefusedError):
            control.nodes(self.admin)
            return True
        return False

    @contextmanager
    def _helping(self) -> Generator[None]:
        """Helps nodes on, once a second, while the block lasts."""
        over = threading.Event()

        def help_now_and_then() -> None:
            while not over.wait(HELP_SECONDS):
                for node in list(self.nodes.values()):
                    with suppress(OSError, HTTPException, control.AnswerError):
                        self._help(node)

        thread = threading.Thread(target=help_now_and_then)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _help(self, node: Node) -> None:
        """Has a node look at its engine where it seems to have missed what that one does (`control.watch_engine`)."""
        state = node.state(timeout=HELP_TIMEOUT_SECONDS)
        # Asked for each node anew: while one was helped, the others have gone on by themselves.
        known = control.nodes(self.admin, timeout=HELP_TIMEOUT_SECONDS).get(node.name, {})
        if state == "Starting" or (state == "Running" and not known.get("endpoints")):
            control.watch_engine(node.socket, timeout=HELP_TIMEOUT_SECONDS)

    def add(self, name: str, nat: NAT) -> Node:
        """Adds a node, whose tailscaled is not started."""
        number = FIRST_HOST + len(self.nodes)
        assert number <= LAST_HOST, "there are no more addresses"
        directory = self.directory / name
        directory.mkdir()
        node = Node(
            name,
            network.place(nat, number, self.internet, self._places),
            self.programs,
            directory,
            self.certificate,
        )
        self.nodes[name] = node
        return node

    def up(self, *names: str) -> None:
        """Logs nodes in, all at once, and waits until all see each other."""
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
        for name, process in started:
            said, _ = process.communicate(timeout=UP_SECONDS)
            if process.returncode != 0:
                raise UnmetError(f"`tailscale up` on {name}: {said.strip()}\n{self.seen()}")
        self.wait_until(
            lambda: all(self._sees(self.nodes[name], others=len(names) - 1) for name in names),
            UP_SECONDS,
        )
        self.wait_until(
            lambda: all(node["endpoints"] for name, node in self.known().items() if name in names),
            UP_SECONDS,
        )

    def _sees(self, node: Node, *, others: int) -> bool:
        """Reports whether a node is in the tailnet, with so many others online, and each knows a relay."""
        status = node.status()
        online = [peer for peer in peers_in(status) if peer["Online"] and peer["Relay"]]
        return bool(
            status["BackendState"] == "Running"
            and status["Self"]["Online"]
            and len(online) >= others
        )

    def node(self, name: str) -> Node:
        """Returns a node by its name."""
        return self.nodes[name]

    def known(self) -> dict[str, Any]:
        """Returns what the coordination server knows of each node, by its name."""
        return control.nodes(self.admin)

    def set_online(self, name: str, online: bool | None) -> None:  # noqa: FBT001
        """Lets the coordination server say that a node is connected, or not; None: what is so."""
        control.change(self.admin, name, online="auto" if online is None else str(online).lower())

    def expire(self, name: str) -> None:
        """Lets a node's key be one that has expired."""
        control.change(self.admin, name, expires_in="-1h")

    def expire_in(self, name: str, seconds: float) -> None:
        """Lets a node's key expire at that time from now."""
        control.change(self.admin, name, expires_in=f"{seconds}s")

    def tag(self, name: str, tags: Sequence[str]) -> None:
        """Gives a node tags."""
        control.change(self.admin, name, tags=",".join(tags))

    def route(self, name: str, routes: Sequence[str]) -> None:
        """Lets a node serve routes."""
        control.change(self.admin, name, routes=",".join(routes))

    def share_to(self, name: str) -> None:
        """Makes a node one that something is shared to, and that is no peer to be shown."""
        control.change(self.admin, name, sharee="true")

    def block_udp(self, name: str) -> None:
        """Lets a node's router drop all UDP."""
        network.block_udp(self.nodes[name].place)

    def unblock_udp(self, name: str) -> None:
        """Undoes `block_udp`."""
        network.unblock_udp(self.nodes[name].place)

    def restart(self, name: str, **environment: str) -> None:
        """Restarts a node's tailscaled, with this environment."""
        self.nodes[name].restart(**environment)

    def wait_until(self, predicate: Callable[[], object], timeout: float) -> float:
        """Waits until a condition holds, and returns how many seconds that took.

        Raises:
            UnmetError: it did not within `timeout` seconds; says what was seen.
        """
        began = time.monotonic()
        while not (last := predicate()):
            if time.monotonic() - began > timeout:
                what = (
                    f"{predicate.__module__}:{predicate.__code__.co_firstlineno}"
                    if hasattr(predicate, "__code__")
                    else repr(predicate)
                )
                raise UnmetError(
                    f"after {timeout:g} s the condition at {what} is {last!r}\n{self.seen()}"
                )
            time.sleep(POLL_SECONDS)
        return time.monotonic() - began

    def seen(self) -> str:
        """Returns what there is to see: each node's status and the end of its log, and what the coordination server knows."""
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
        with suppress(OSError, control.AnswerError):
            lines += [
                "== control",
                *(f"{name}: {json.dumps(known)}" for name, known in self.known().items()),
            ]
        return "\n".join(lines)
