"""The network of the lab: an internet, and a router for each node, in namespaces.

The network namespaces have no names. The kernel removes one when this process has
closed it and no process runs in it. The programs of the lab end with this process, so a
lab leaves nothing behind, however it ends. Addresses are from the documentation ranges
(RFC 5737): 192.0.2.0/24 is the internet, 198.51.100.0/24 has the local networks.
"""

from __future__ import annotations

import enum
import os
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

INTERNET = "192.0.2.1"
"Address of all servers, and the default gateway, which leads nowhere."
FIRST_HOST, LAST_HOST = 2, 63
"Range of node numbers. Each has an internet address and a local network (/30)."


class NAT(enum.Enum):
    """What separates a node from the internet."""

    EASY = "easy"
    "A router with endpoint-independent mapping (RFC 4787): hole punching works."
    HARD = "hard"
    "A router with address- and port-dependent mapping: hole punching fails."
    NO_UDP = "noudp"
    "An easy router that drops all UDP."
    PUBLIC = "public"
    "No router: the node has an internet address."


ROUTER = """
table ip nat {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; oifname "wan" snat to {address}{ports};
  }}
}}
table ip firewall {{
  chain forward {{ type filter hook forward priority filter; iifname "wan" ct state new drop; }}
  chain input {{ type filter hook input priority filter; iifname "wan" ct state new drop; }}
}}
"""
# The input chain makes hole punching possible. Without it, a packet from a peer that
# arrives before the node's own becomes a connection to the router itself, and the
# node's packet to that peer gets another port.
# Unlike `masquerade`, `snat` keeps translating known connections to an address that the
# router has lost.

OUTAGE = """
table ip outage {
  chain forward { type filter hook forward priority raw; meta l4proto udp drop; }
  chain input { type filter hook input priority raw; iifname != "lo" meta l4proto udp drop; }
  chain output { type filter hook output priority raw; oifname != "lo" meta l4proto udp drop; }
}
"""

PORT_BLOCK = """
table ip portblock {{
  chain forward {{
    type filter hook forward priority raw; iifname "lan" udp sport {port} drop;
  }}
}}
"""
# Without `iifname`, it would also drop the packets of peers that use the same port.

CONTROL_BLOCK = f"""
table ip controlblock {{
  chain forward {{
    type filter hook forward priority raw;
    ip daddr {INTERNET} tcp dport {{ 80, 443 }} reject with tcp reset;
  }}
}}
"""
# The DERP relay uses another port.

WIREGUARD_BLOCK = """
table ip wireguardblock {
  chain forward {
    type filter hook forward priority raw;
    meta l4proto udp @th,64,32 { 0x01000000, 0x02000000, 0x03000000, 0x04000000 } drop;
  }
}
"""
# The payload of WireGuard begins with the type of the message and three zeros. Disco
# begins with other bytes (`disco/disco.go`, `Magic`), and so does STUN (RFC 8489).


class NetworkError(Exception):
    """A network command failed. The message has the command and its error output."""


@dataclass(frozen=True)
class Namespace:
    """A network namespace."""

    path: Path
    "File for `nsenter --net=`, valid while this process runs."

    def command(self, *argv: str) -> list[str]:
        """Return the command line that runs a program in the namespace."""
        return ["nsenter", f"--net={self.path}", *argv]

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a program in the namespace and return its standard output.

        Raises:
            NetworkError: the exit status is not 0.
        """
        run = subprocess.run(
            self.command(*argv), input=stdin, capture_output=True, text=True, check=False
        )
        if run.returncode != 0:
            raise NetworkError(f"{' '.join(argv)}: {run.stderr.strip() or run.stdout.strip()}")
        return run.stdout


@dataclass(frozen=True)
class Place:
    """The place of a node in the network."""

    nat: NAT
    inside: Namespace
    "Namespace of the node."
    outside: Namespace
    "Namespace of the router; that of the node if there is no router."
    address: str
    "Local address; the internet address if there is no router."
    public: str
    "Address that other nodes see, at first (`readdress`)."


def create_internet(stack: ExitStack) -> Namespace:
    """Create an internet without nodes. It exists until the stack is closed."""
    namespace = _create_namespace(stack)
    _ip(
        namespace,
        "link set lo up",
        "link add internet type bridge",
        f"addr add {INTERNET}/24 dev internet",
        "link set internet up",
    )
    return namespace


def create_place(nat: NAT, number: int, internet: Namespace, stack: ExitStack) -> Place:
    """Create the place of one node, with its router if there is one.

    Args:
        nat: the kind of router.
        number: the number of the node, unique in the lab, `FIRST_HOST` to `LAST_HOST`.
        internet: the namespace of the internet.
        stack: the place exists until this stack is closed.
    """
    inside = _create_namespace(stack)
    public = f"192.0.2.{number}"
    port = f"port{number}"
    # Without a router: the node is connected to the bridge of the internet itself.
    if nat is NAT.PUBLIC:
        _ip(
            internet,
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
    # With a router: its `wan` side is connected to the bridge, its `lan` side to the
    # node.
    router = _create_namespace(stack)
    gateway, address = f"198.51.100.{4 * number + 1}", f"198.51.100.{4 * number + 2}"
    _ip(
        internet,
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
    # The router forwards packets, and translates their addresses.
    router.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    router.run(
        "nft",
        "--file",
        "-",
        stdin=ROUTER.format(address=public, ports=" fully-random" if nat is NAT.HARD else ""),
    )
    place = Place(nat, inside, router, address, public)
    if nat is NAT.NO_UDP:
        block_udp(place)
    return place


def block_udp(place: Place) -> None:
    """Drop all UDP at the node's router, or at the node if there is no router."""
    place.outside.run("nft", "--file", "-", stdin=OUTAGE)


def unblock_udp(place: Place) -> None:
    """Undo `block_udp`."""
    place.outside.run("nft", "delete", "table", "ip", "outage")


def block_port(place: Place, port: int) -> None:
    """Drop what the node sends from a UDP port, at its router."""
    place.outside.run("nft", "--file", "-", stdin=PORT_BLOCK.format(port=port))


def block_control(place: Place) -> None:
    """Refuse the node's connections to the coordination server, at its router."""
    place.outside.run("nft", "--file", "-", stdin=CONTROL_BLOCK)


def unblock_control(place: Place) -> None:
    """Undo `block_control`."""
    place.outside.run("nft", "delete", "table", "ip", "controlblock")


def block_wireguard(place: Place) -> None:
    """Drop the node's WireGuard packets at its router, and pass disco and STUN."""
    place.outside.run("nft", "--file", "-", stdin=WIREGUARD_BLOCK)


def unblock_wireguard(place: Place) -> None:
    """Undo `block_wireguard`."""
    place.outside.run("nft", "delete", "table", "ip", "wireguardblock")


def readdress(place: Place) -> None:
    """Give the router of an easy NAT another internet address.

    It keeps translating the connections that it knows to the old address, which nobody
    has now.
    """
    host = int(place.public.rpartition(".")[2]) + LAST_HOST
    public = f"192.0.2.{host}"
    _ip(
        place.outside,
        f"addr del {place.public}/24 dev wan",
        f"addr add {public}/24 dev wan",
        f"route add default via {INTERNET}",
    )
    place.outside.run(
        "nft",
        "--file",
        "-",
        stdin=f"""
flush chain ip nat postrouting
add rule ip nat postrouting oifname "wan" snat to {public}
""",
    )


def _create_namespace(stack: ExitStack) -> Namespace:
    # A process in a new namespace lives just long enough for this one to open the
    # namespace: once `cat` has echoed a line, `unshare` has created it.
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
    stack.callback(os.close, descriptor)
    return Namespace(Path(f"/proc/{os.getpid()}/fd/{descriptor}"))


def _ip(namespace: Namespace, *commands: str) -> None:
    namespace.run("ip", "-batch", "-", stdin="\n".join(commands))
