"""A real tailnet on one machine: tailscaled behind NATs, in network namespaces, with a coordination server, a DERP relay and a STUN server.

`builds` makes the programs, `network` the namespaces, `control` and `nodes` run in them, `tailnet` puts them together as a `Lab`.
"""

from __future__ import annotations

from lab.builds import NEWEST, OLDEST
from lab.network import NAT
from lab.nodes import Node
from lab.tailnet import Lab, UnmetError

__all__ = ["NAT", "NEWEST", "OLDEST", "Lab", "Node", "UnmetError"]
