"""The status of a simulated node, as JSON of tailscaled 1.102."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from tsfc.core.tailscale.status import PeerStatus, Status, decode

ZERO_TIME = "0001-01-01T00:00:00Z"
"Time of an event that never was: the zero time of Go."
_SUFFIX = "tail1.ts.net"
_CREATED = "2026-01-01T00:00:00Z"
_OWN_IP = "100.64.0.1"
_PEER_DECODER = msgspec.json.Decoder(PeerStatus)
NO_RELAY = "Tailscale could not connect to any relay server. Check your Internet connection."
NO_CONTROL = (
    "Unable to connect to the Tailscale coordination server to synchronize the state of"
    " your tailnet. Peer reachability might degrade over time."
)


class NodeView(Struct, frozen=True):
    """What the status shows of the node itself."""

    is_running: bool
    "It has the network map; if not, there are no peers."
    has_relay: bool
    has_control: bool
    addresses: tuple[str, ...]
    "Its own addresses with their ports, the public ones first."


def status_document(node: NodeView, peers: Iterable[tuple[str, dict[str, Any]]]) -> bytes:
    """Encode a status from the node and its peers, each with its key and its fields."""
    is_running = node.is_running
    health = [
        *([] if node.has_relay else [NO_RELAY]),
        *([] if node.has_control else [NO_CONTROL]),
    ]
    tailnet = {"Name": "example.com", "MagicDNSSuffix": _SUFFIX, "MagicDNSEnabled": True}
    user = {"ID": 1, "LoginName": "user@example.com", "DisplayName": "User"}
    document = {
        "Version": "1.102.3-t53a0d659a",
        "TUN": True,
        "BackendState": "Running" if is_running else "NoState",
        "HaveNodeKey": True,
        "AuthURL": "",
        "TailscaleIPs": [_OWN_IP] if is_running else None,
        "Self": _own_fields(node),
        "Health": health,
        "MagicDNSSuffix": _SUFFIX if is_running else "",
        "CurrentTailnet": tailnet if is_running else None,
        "CertDomains": None,
        "ExtraRecords": None,
        "Peer": dict(peers) if is_running else None,
        "User": {"1": user} if is_running else None,
        "ClientVersion": None,
    }
    return msgspec.json.encode(document)


@lru_cache(maxsize=1)
def node_status(node: NodeView) -> Status:
    """Return the status of a node without peers. It seldom changes, so it is kept."""
    return decode(status_document(node, ())).unwrap()


def peer_status(fields: dict[str, Any]) -> PeerStatus:
    """Return a peer with these fields, as in the status that has them as JSON."""
    return _PEER_DECODER.decode(msgspec.json.encode(fields))


def peer_key(name: str) -> str:
    """Return the node key of a peer."""
    return f"nodekey:{_digest(name)}"


def peer_fields(name: str, number: int, ip: str, *, os: str, relay: str) -> dict[str, Any]:
    """Return all fields of a peer, in tailscaled's order, as before the first packet.

    The caller replaces those that change.
    """
    return {
        "ID": f"n{_digest(name)[:12]}CNTRL",
        "NodeID": number + 2,
        "PublicKey": peer_key(name),
        "HostName": name,
        "DNSName": f"{name}.{_SUFFIX}.",
        "OS": os,
        "UserID": 1,
        "TailscaleIPs": [ip],
        "AllowedIPs": [f"{ip}/32"],
        "Addrs": None,
        "CurAddr": "",
        "Relay": relay,
        "PeerRelay": "",
        "RxBytes": 0,
        "TxBytes": 0,
        "Created": _CREATED,
        "LastWrite": ZERO_TIME,
        "LastSeen": ZERO_TIME,
        "LastHandshake": ZERO_TIME,
        "Online": True,
        "ExitNode": False,
        "ExitNodeOption": False,
        "Active": False,
        "PeerAPIURL": [f"http://{ip}:50000"],
        "TaildropTarget": 1,
        "NoFileSharingReason": "",
        "InNetworkMap": True,
        "InMagicSock": True,
        "InEngine": False,
    }


def _own_fields(node: NodeView) -> dict[str, Any]:
    return {
        "ID": "nselfCNTRL",
        "NodeID": 1,
        "PublicKey": f"nodekey:{0:064x}",
        "HostName": "self",
        "DNSName": f"self.{_SUFFIX}.",
        "OS": "linux",
        "UserID": 1,
        "TailscaleIPs": [_OWN_IP] if node.is_running else None,
        "Addrs": node.addresses,
        "CurAddr": "",
        "Relay": "fra",
        "PeerRelay": "",
        "RxBytes": 0,
        "TxBytes": 0,
        "Created": _CREATED,
        "LastWrite": ZERO_TIME,
        "LastSeen": ZERO_TIME,
        "LastHandshake": ZERO_TIME,
        "Online": node.has_control,
        "ExitNode": False,
        "ExitNodeOption": False,
        "Active": False,
        "InNetworkMap": node.is_running,
        "InMagicSock": False,
        "InEngine": False,
    }


def timestamp(unix: float) -> str:
    """Return a Unix time as tailscaled writes it."""
    return datetime.fromtimestamp(max(0, int(unix)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
