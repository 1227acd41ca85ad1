"""A node of the lab: one tailscaled in the network of its router."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import control
from lab.network import INTERNET, Place

LOGIN_SERVER = f"https://{INTERNET}"
PORT = 41641
"UDP port of tailscaled. A fixed port keeps the NAT mapping over a restart."
ENVIRONMENT = {
    "TS_NO_LOGS_NO_SUPPORT": "1",
    "TS_DISABLE_PORTMAPPER": "1",
    "TS_ASSUME_NETWORK_UP_FOR_TEST": "1",
    "TS_PANIC_IF_HIT_MAIN_CONTROL": "1",
    "TS_NETCHECK_GENERATE_204_URL": f"http://{INTERNET}/generate_204",
}
"Keeps tailscaled inside the lab: no log server, port mapping or Tailscale service."
NEVER_DIRECT = {"TS_DEBUG_NEVER_DIRECT_UDP": "1"}
"Keeps tailscaled on relay until its next start (v1.88 and newer)."
ALWAYS_DERP = {"TS_DEBUG_ALWAYS_USE_DERP": "1"}
"The same for every release, by another mechanism: tailscaled does not use UDP at all."
COMMAND_SECONDS = 60.0
PING_SECONDS = 5.0
"Timeout of one ping, as in `tailscale ping`."
UNREACHABLE = "unreachable"
"Returned instead of a backend state if tailscaled does not respond."
PINGS = 3
"Maximum number of pings per peer in one round of keepalive."


def peers_in(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the peers of a status."""
    peers: dict[str, dict[str, Any]] = status["Peer"] or {}
    return list(peers.values())


@dataclass
class Node:
    """A node."""

    name: str
    "Host name."
    place: Place
    programs: Path
    "Directory of `tailscale` and `tailscaled`."
    directory: Path
    "Directory for the state, the socket and the log."
    certificate: Path
    "Certificate of the coordination server, which the node must trust."
    socket: Path = field(init=False)
    "Socket of the LocalAPI."
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Set the default socket."""
        self.socket = self.directory / "tailscaled.sock"

    @property
    def log(self) -> Path:
        """Log file of tailscaled."""
        return self.directory / "tailscaled.log"

    @property
    def pid(self) -> int:
        """Process ID of tailscaled, which must be running."""
        assert self.process, f"tailscaled of {self.name} is not running"
        return self.process.pid

    def flags(self, state: str, socket: str, port: str = str(PORT)) -> list[str]:
        """Return the flags of tailscaled: no network device, no log server."""
        return [
            "--tun=userspace-networking",
            f"--statedir={state}",
            f"--socket={socket}",
            f"--port={port}",
            "--no-logs-no-support",
        ]

    def start(self, **environment: str) -> None:
        """Start tailscaled with more environment variables; do not wait for it."""
        assert self.process is None, f"tailscaled of {self.name} is already running"
        tailscaled = [
            str(self.programs / "tailscaled"),
            *self.flags(str(self.directory), str(self.socket)),
        ]
        # setpriv ends tailscaled together with this process.
        command = ["setpriv", "--pdeathsig=KILL", *self.place.inside.command(*tailscaled)]
        with self.log.open("ab") as log:
            # tailscaled keeps its log settings in /var/lib/tailscale whatever
            # --statedir is.
            private = {
                "HOME": str(self.directory),
                "TS_LOGS_DIR": str(self.directory),
                "SSL_CERT_FILE": str(self.certificate),
            }
            # In its own session, so that Ctrl-C in the terminal does not reach it.
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]} | private | ENVIRONMENT | environment,
                start_new_session=True,
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to tailscaled, if it is running, and wait until it ends."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(COMMAND_SECONDS)
            self.process = None

    def restart(self, **environment: str) -> None:
        """Stop tailscaled, and start it with these additional environment variables."""
        self.stop()
        self.start(**environment)

    def freeze(self) -> None:
        """Suspend tailscaled (SIGSTOP): connections succeed, requests hang."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `tailscale` for this node."""
        return self.place.inside.command(
            str(self.programs / "tailscale"), f"--socket={self.socket}", *arguments
        )

    def tailscale(self, *arguments: str, check: bool = True) -> str:
        """Run `tailscale` for this node and return its standard output.

        Fails if the exit status is not 0, unless `check` is false.
        """
        run = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert not check or run.returncode == 0, (
            f"tailscale {' '.join(arguments)} on {self.name}: {run.stdout}{run.stderr}"
        )
        return run.stdout

    def up(self) -> None:
        """Log the node in, and wait until it is."""
        self.tailscale(*self.up_arguments())

    def up_arguments(self) -> list[str]:
        """Return the arguments of `tailscale` that log the node in."""
        # --reset: for a moment after a logout the preferences differ from the flags,
        # and `up` refuses to change preferences that the command line does not mention.
        return [
            "up",
            f"--login-server={LOGIN_SERVER}",
            f"--hostname={self.name}",
            "--accept-dns=false",
            "--timeout=50s",
            "--reset",
        ]

    def request(
        self, url: str, method: str = "GET", *, timeout: float = COMMAND_SECONDS
    ) -> dict[str, Any]:
        """Return the LocalAPI's JSON response; `url` is relative to `/localapi/v0/`."""
        return control.request_json(self.socket, method, f"/localapi/v0/{url}", timeout=timeout)

    def status(self, *, timeout: float = COMMAND_SECONDS) -> dict[str, Any]:
        """Return the status."""
        return self.request("status", timeout=timeout)

    def peers(self) -> list[dict[str, Any]]:
        """Return the peers in the status."""
        return peers_in(self.status())

    def peer(self, name: str) -> dict[str, Any]:
        """Return a peer in the status, by host name; empty if there is none."""
        return {peer["HostName"]: peer for peer in self.peers()}.get(name, {})

    def state(self, *, timeout: float = COMMAND_SECONDS) -> str:
        """Return the backend state, or `UNREACHABLE`."""
        with contextlib.suppress(OSError, control.ResponseError):
            return str(self.status(timeout=timeout)["BackendState"])
        return UNREACHABLE

    def ping(self, peer: str, kind: str = "disco") -> dict[str, Any]:
        """Ping a peer once. Return the first response; empty after the timeout."""
        address = self.peer(peer)["TailscaleIPs"][0]
        with contextlib.suppress(TimeoutError):
            return self.request(
                f"ping?ip={address}&type={kind}&size=0", "POST", timeout=PING_SECONDS
            )
        return {}

    def ping_burst(self, peer: str, pings: int = PINGS) -> float:
        """Ping a peer as keepalive and `tailscale ping -c` do.

        The pings are one second apart and end with the first direct response. Return
        the time of the last ping on the monotonic clock.
        """
        last = 0.0
        for number in range(pings):
            if number:
                time.sleep(1)
            last = time.monotonic()
            if self.ping(peer).get("Endpoint"):
                break
        return last

    def is_direct(self, peer: str) -> bool:
        """Whether the path to a peer is direct."""
        return bool(self.peer(peer).get("CurAddr"))

    def is_relayed(self, peer: str) -> bool:
        """Whether the path to a peer is DERP, by the rules of `tailscale status`."""
        status = self.peer(peer)
        return bool(
            status.get("Active")
            and status["Relay"]
            and not status["CurAddr"]
            and not status.get("PeerRelay")
        )

    def cpu_seconds(self) -> float:
        """Return the CPU time that tailscaled has used."""
        # schedstat has nanoseconds per thread; /proc/PID/stat only hundredths of a
        # second.
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
