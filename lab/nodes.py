"""One node of a lab: a tailscaled in its place in the network."""

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
"The one that a real node has: with a port that stays the same, so does the mapping of its NAT."
ENVIRONMENT = {
    "TS_NO_LOGS_NO_SUPPORT": "1",
    "TS_DISABLE_PORTMAPPER": "1",
    "TS_ASSUME_NETWORK_UP_FOR_TEST": "1",
    "TS_PANIC_IF_HIT_MAIN_CONTROL": "1",
    "TS_NETCHECK_GENERATE_204_URL": f"http://{INTERNET}/generate_204",
}
"How tailscaled keeps to the lab: no log server, no search for a router to map ports, no other coordination server."
NEVER_DIRECT = {"TS_DEBUG_NEVER_DIRECT_UDP": "1"}
"Makes a start of tailscaled one that is stuck on relay (v1.88 and newer)."
ALWAYS_DERP = {"TS_DEBUG_ALWAYS_USE_DERP": "1"}
"The same for every release, and by another way: there is no UDP at all."
COMMAND_SECONDS = 60.0
PING_SECONDS = 5.0
"How long `tailscale ping` waits for an answer."
UNREACHABLE = "unreachable"
"Instead of a backend state."
PINGS = 3
"Of one round of keepalive, at most."


def peers_in(status: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what a status has of the peers."""
    peers: dict[str, dict[str, Any]] = status["Peer"] or {}
    return list(peers.values())


@dataclass
class Node:
    """A node, by its host name."""

    name: str
    place: Place
    programs: Path
    "Where its `tailscale` and `tailscaled` are."
    directory: Path
    "Its own: state, socket, log."
    certificate: Path
    "Of the coordination server, which it has to trust."
    socket: Path = field(init=False)
    "The LocalAPI's."
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Lets the socket be in its directory."""
        self.socket = self.directory / "tailscaled.sock"

    @property
    def log(self) -> Path:
        """What tailscaled says."""
        return self.directory / "tailscaled.log"

    @property
    def pid(self) -> int:
        """The process id of its tailscaled, which runs."""
        assert self.process, f"tailscaled of {self.name} does not run"
        return self.process.pid

    def flags(self, state: str, socket: str) -> list[str]:
        """Returns the flags of tailscaled that a node of a lab has: no device, so that it takes none of the machine's, and no logs that leave it."""
        return [
            "--tun=userspace-networking",
            f"--statedir={state}",
            f"--socket={socket}",
            f"--port={PORT}",
            "--no-logs-no-support",
        ]

    def start(self, **environment: str) -> None:
        """Starts its tailscaled, with more environment, and does not wait for anything."""
        assert self.process is None, f"tailscaled of {self.name} runs already"
        tailscaled = [
            str(self.programs / "tailscaled"),
            *self.flags(str(self.directory), str(self.socket)),
        ]
        # setpriv: it ends with the process that has the lab. A session of its own: the terminal's Ctrl-C is for that process alone.
        command = ["setpriv", "--pdeathsig=KILL", *self.place.inside.command(*tailscaled)]
        with self.log.open("ab") as log:
            # Its logs' settings would else be in the machine's own /var/lib/tailscale, whatever --statedir says.
            own = {
                "HOME": str(self.directory),
                "TS_LOGS_DIR": str(self.directory),
                "SSL_CERT_FILE": str(self.certificate),
            }
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]} | own | ENVIRONMENT | environment,
                start_new_session=True,
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends its tailscaled, and waits for that."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(COMMAND_SECONDS)
            self.process = None

    def restart(self, **environment: str) -> None:
        """Ends its tailscaled and starts it again, with this environment."""
        self.stop()
        self.start(**environment)

    def freeze(self) -> None:
        """Stops it where it is (SIGSTOP): its socket still takes connections, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Undoes `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line of `tailscale` for this node."""
        return self.place.inside.command(
            str(self.programs / "tailscale"), f"--socket={self.socket}", *arguments
        )

    def tailscale(self, *arguments: str, check: bool = True) -> str:
        """Runs `tailscale` for this node to its end and returns what it printed; with `check` it has to succeed."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"tailscale {' '.join(arguments)} on {self.name}: {done.stdout}{done.stderr}"
        )
        return done.stdout

    def up(self) -> None:
        """Logs it in, and waits until it is."""
        self.tailscale(*self.up_arguments())

    def up_arguments(self) -> list[str]:
        """Returns the arguments of `tailscale` that log it in."""
        # --reset: after a logout the settings are others for a moment, which `up` then wants to be told of.
        return [
            "up",
            f"--login-server={LOGIN_SERVER}",
            f"--hostname={self.name}",
            "--accept-dns=false",
            "--timeout=50s",
            "--reset",
        ]

    def answer(self, url: str, method: str = "GET", *, timeout: float = COMMAND_SECONDS) -> bytes:
        """Returns what its LocalAPI answers, below `/localapi/v0/`."""
        return control.ask(self.socket, method, f"/localapi/v0/{url}", timeout=timeout)

    def status(self, *, timeout: float = COMMAND_SECONDS) -> dict[str, Any]:
        """Returns its status."""
        return control.read(self.answer("status", timeout=timeout))

    def peers(self) -> list[dict[str, Any]]:
        """Returns what its status has of its peers."""
        return peers_in(self.status())

    def peer(self, name: str) -> dict[str, Any]:
        """Returns what its status has of a peer, by its host name; nothing where there is none."""
        return {peer["HostName"]: peer for peer in self.peers()}.get(name, {})

    def state(self, *, timeout: float = COMMAND_SECONDS) -> str:
        """Returns its backend state; `UNREACHABLE` where it does not answer."""
        with contextlib.suppress(OSError, control.AnswerError):
            return str(self.status(timeout=timeout)["BackendState"])
        return UNREACHABLE

    def ping(self, peer: str, kind: str = "disco") -> dict[str, Any]:
        """Sends one ping to a peer and returns its first answer; nothing where there was none in time."""
        address = self.peer(peer)["TailscaleIPs"][0]
        with contextlib.suppress(TimeoutError):
            return control.read(
                self.answer(f"ping?ip={address}&type={kind}&size=0", "POST", timeout=PING_SECONDS)
            )
        return {}

    def ping_burst(self, peer: str, pings: int = PINGS) -> float:
        """Pings a peer as `tailscale ping -c` and keepalive do: one second apart, until a direct answer. Returns when the last was sent (monotonic clock)."""
        sent = 0.0
        for number in range(pings):
            if number:
                time.sleep(1)
            sent = time.monotonic()
            if self.ping(peer).get("Endpoint"):
                break
        return sent

    def is_direct(self, peer: str) -> bool:
        """Reports whether a packet to the peer would go directly."""
        return bool(self.peer(peer).get("CurAddr"))

    def is_relayed(self, peer: str) -> bool:
        """Reports whether a packet to the peer would go through DERP, by the words of `tailscale status`."""
        seen = self.peer(peer)
        return bool(
            seen.get("Active")
            and seen["Relay"]
            and not seen["CurAddr"]
            and not seen.get("PeerRelay")
        )

    def cpu_seconds(self) -> float:
        """Returns the CPU time that its tailscaled has taken."""
        # Of all threads, in nanoseconds: /proc/PID/stat has it in hundredths of a second.
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
