"""Made-up statuses, as tailscaled encodes them."""

from __future__ import annotations

import json
from typing import Any

from tsfc.core.tailscale.status import Status, decode

SUFFIX = "tail1.ts.net"

PATHS: dict[str, dict[str, Any]] = {
    "direct": {"Online": True, "Active": True, "CurAddr": "192.0.2.7:41641"},
    "peer_relay": {"Online": True, "Active": True, "PeerRelay": "192.0.2.9:7777:vni:1"},
    "derp": {"Online": True, "Active": True},
    "idle": {"Online": True, "Active": False},
    "offline": {"Online": False, "Active": False},
}
"Fields of a peer that give it this path."


def peer(name: str, path: str = "direct", **fields: Any) -> dict[str, Any]:
    """Return a `PeerStatus` of the peer `name` in the own tailnet, with this path."""
    usual: dict[str, Any] = {
        "ID": f"n{name}CNTRL",
        "HostName": name,
        "DNSName": f"{name}.{SUFFIX}.",
        "OS": "linux",
        "UserID": 1,
        "TailscaleIPs": [f"100.64.{sum(name.encode()) % 256}.{len(name) % 256}"],
        "CurAddr": "",
        "Relay": "fra",
        "PeerRelay": "",
        "RxBytes": 0,
        "TxBytes": 0,
        "LastHandshake": "0001-01-01T00:00:00Z",
        "ExitNode": False,
    }
    return usual | PATHS[path] | fields


def status(*peers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a `Status` of a running node with these peers."""
    usual: dict[str, Any] = {
        "Version": "1.102.3-t53a0d659a",
        "BackendState": "Running",
        "Self": {
            "ID": "nselfCNTRL",
            "HostName": "self",
            "DNSName": f"self.{SUFFIX}.",
            "TailscaleIPs": ["100.64.0.1"],
            "Online": True,
        },
        "Health": [],
        "MagicDNSSuffix": SUFFIX,
        "Peer": {f"nodekey:{number:064x}": peer for number, peer in enumerate(peers)},
        "User": {"1": {"ID": 1, "LoginName": "user@example.com"}},
    }
    return usual | fields


def encoded(*peers: dict[str, Any], **fields: Any) -> bytes:
    """Return such a status as JSON."""
    return json.dumps(status(*peers, **fields)).encode()


def decoded(*peers: dict[str, Any], **fields: Any) -> Status:
    """Return such a status, decoded."""
    return decode(encoded(*peers, **fields)).unwrap()
