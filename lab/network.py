"""The network of a lab: an internet, and behind it a router for each node, each in a network namespace of its own.

The namespaces have no name. They live as long as this process holds them open, or a process runs in them, and those end with this one: so nothing
is left of a lab, whatever it ended of. Addresses are of the ranges for documentation (RFC 5737): 192.0.2.0/24 is the internet, 198.51.100.0/24 has
the local networks.
"""

from __future__ import annotations

import enum
import os
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

INTERNET = "192.0.2.1"
"Where the coordination server, DERP and STUN are, and what routes to nowhere else."
FIRST_HOST, LAST_HOST = 2, 63
"Numbers of nodes: the internet has an address for each, and the local networks are of four addresses each."


class NAT(enum.Enum):
    """What is between a node and the internet."""

    EASY = "easy"
    "A router that keeps the source port: the same mapping for all destinations (RFC 4787, endpoint-independent), so hole punching works."
    HARD = "hard"
    "A router that takes a random source port for each destination (address- and port-dependent mapping), so it does not."
    NO_UDP = "noudp"
    "An easy one that drops all UDP."
    PUBLIC = "public"
    "Nothing: an address of the internet."


ROUTER = """
table ip nat {{
  chain postrouting {{ type nat hook postrouting priority srcnat; oifname "wan" masquerade{ports}; }}
}}
table ip firewall {{
  chain forward {{ type filter hook forward priority filter; iifname "wan" ct state new drop; }}
  chain input {{ type filter hook input priority filter; iifname "wan" ct state new drop; }}
}}
"""
# The input chain is what makes hole punching possible: a peer's packet that comes too early would else become a connection to the router itself,
# and the node's own to that peer would be given another port.

OUTAGE = """
table ip outage {
  chain forward { type filter hook forward priority raw; meta l4proto udp drop; }
  chain input { type filter hook input priority raw; iifname != "lo" meta l4proto udp drop; }
  chain output { type filter hook output priority raw; oifname != "lo" meta l4proto udp drop; }
}
"""


class NetworkError(Exception):
    """A network could not be set up; the text is what the program for it said."""


@dataclass(frozen=True)
class Namespace:
    """A network namespace."""

    path: Path
    "What `nsenter --net=` takes, as long as this process runs."

    def command(self, *argv: str) -> list[str]:
        """Returns the command line that runs a program in it."""
        return ["nsenter", f"--net={self.path}", *argv]

    def run(self, *argv: str, stdin: str = "") -> str:
        """Runs a program in it to its end, and returns what it printed.

        Raises:
            NetworkError: it failed.
        """
        done = subprocess.run(
            self.command(*argv), input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise NetworkError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


@dataclass(frozen=True)
class Place:
    """Where a node is."""

    nat: NAT
    inside: Namespace
    "The node's own namespace."
    outside: Namespace
    "Its router's; its own, where there is no router."
    address: str
    "Its address on its local network; on the internet, where there is no router."
    public: str
    "The address that others see."


def internet(open_until: ExitStack) -> Namespace:
    """Makes an internet without nodes."""
    namespace = _namespace(open_until)
    _ip(
        namespace,
        "link set lo up",
        "link add internet type bridge",
        f"addr add {INTERNET}/24 dev internet",
        "link set internet up",
    )
    return namespace


def place(nat: NAT, number: int, beside: Namespace, open_until: ExitStack) -> Place:
    """Makes the place of one node, on an internet, behind its own router if it has one; `number` is another for each node."""
    inside = _namespace(open_until)
    public = f"192.0.2.{number}"
    port = f"port{number}"
    if nat is NAT.PUBLIC:
        _ip(
            beside,
            f"link add {port} type veth peer name eth0 netns {inside.path}",
            f"link set {port} master internet up",
        )
        _ip(
            inside,
            "link set lo up",
            f"addr add {public}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {INTERNET}",
        )
        return Place(nat, inside, inside, public, public)
    router = _namespace(open_until)
    gateway, address = f"198.51.100.{4 * number + 1}", f"198.51.100.{4 * number + 2}"
    _ip(
        beside,
        f"link add {port} type veth peer name wan netns {router.path}",
        f"link set {port} master internet up",
    )
    _ip(router, f"link add lan type veth peer name eth0 netns {inside.path}")
    _ip(
        router,
        f"addr add {public}/24 dev wan",
        "link set wan up",
        f"route add default via {INTERNET}",
        f"addr add {gateway}/30 dev lan",
        "link set lan up",
    )
    _ip(
        inside,
        "link set lo up",
        f"addr add {address}/30 dev eth0",
        "link set eth0 up",
        f"route add default via {gateway}",
    )
    router.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    router.run(
        "nft", "--file", "-", stdin=ROUTER.format(ports=" fully-random" if nat is NAT.HARD else "")
    )
    made = Place(nat, inside, router, address, public)
    if nat is NAT.NO_UDP:
        block_udp(made)
    return made


def block_udp(place: Place) -> None:
    """Lets a node's router drop all UDP; where there is none, the node itself does."""
    place.outside.run("nft", "--file", "-", stdin=OUTAGE)


def unblock_udp(place: Place) -> None:
    """Undoes `block_udp`."""
    place.outside.run("nft", "delete", "table", "ip", "outage")


def _namespace(open_until: ExitStack) -> Namespace:
    """Makes a network namespace, which is there until the stack is closed."""
    with subprocess.Popen(
        ["unshare", "--net", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write("\n")
            process.stdout.readline()
            descriptor = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            process.kill()
    open_until.callback(os.close, descriptor)
    return Namespace(Path(f"/proc/{os.getpid()}/fd/{descriptor}"))


def _ip(namespace: Namespace, *commands: str) -> None:
    namespace.run("ip", "-batch", "-", stdin="\n".join(commands))
