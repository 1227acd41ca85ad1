"""A real tailnet on one machine: tailscaled behind NATs, in network namespaces.

An internet namespace has a coordination server, a DERP relay and a STUN server.
`builds` builds the programs, `network` creates the namespaces, `control` talks to the
servers, `nodes` runs tailscaled, and `tailnet` combines them in a `Lab`.
"""

from __future__ import annotations

from lab.builds import NEWEST, OLDEST
from lab.network import NAT
from lab.nodes import Node
from lab.tailnet import Lab, UnmetError

__all__ = ["NAT", "NEWEST", "OLDEST", "Lab", "Node", "UnmetError"]
