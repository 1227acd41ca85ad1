"""A node under the guarded policy, on which a restart for the peer nas is due."""

from __future__ import annotations

from msgspec.structs import replace

from support.statuses import decoded, peer
from tsfc.core.clock import Instant
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.memory import Memory, PeerMemory, Traffic
from tsfc.core.watchdog.policy import GuardedPolicy, Policy
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.core.watchdog.state import Relay, State
from tsfc.core.watchdog.watch import Hold
from tsfc.view.model import View, make_view

from .node import NOW

POLICY = GuardedPolicy()
NAS = peer("nas", "derp")
OBSERVED = Observed(decoded(NAS))
STATE = State(
    relays={"nas": Relay(NOW - 700, "nnasCNTRL")},
    policy="guarded",
    memory=Memory({"nnasCNTRL": PeerMemory(NOW - 800)}, steady_since=NOW - 700),
    last_success=Instant(NOW - 60),
    last_run=Instant(NOW - 60),
)


def view(observed: Observed = OBSERVED, *, policy: Policy = POLICY, state: State = STATE) -> View:
    """The view of the node."""
    snapshot = Snapshot(Instant(NOW - 60), policy, state)
    return make_view(observed, snapshot, now=Instant(NOW), pings={})


DEAD = view(
    Observed(decoded(peer("nas", RxBytes=100, TxBytes=5000))),
    state=State(
        policy="guarded", memory=Memory(traffic={"nnasCNTRL": Traffic(100, 5000, NOW - 60)})
    ),
)
"The same node, with a peer that is direct and whose data plane is dead."
HELD = {
    Hold.NO_CONTROL: view(Observed(decoded(NAS, Self={"Online": False}))),
    Hold.EXPIRED_KEY: view(Observed(decoded(NAS, Self={"Online": True, "Expired": True}))),
    Hold.NO_RELAY: view(Observed(decoded(NAS, Health=["cannot reach the relay server"]))),
    Hold.STARTING: view(replace(OBSERVED, tailscaled_start=NOW - 10)),
    Hold.PAUSED: view(
        replace(OBSERVED, is_paused=True), policy=replace(POLICY, pause_file="/run/a/pause")
    ),
    Hold.NO_BUDGET: view(policy=replace(POLICY, budget=0)),
}
"The same node, with each reason to hold the restart back."
