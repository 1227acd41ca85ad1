from __future__ import annotations

import pytest

from tsfc.core.tailscale.paths import Path, active_path, classify, has_direct_address
from tsfc.core.tailscale.status import PeerStatus

DIRECT, PEER_RELAY, HOME = "192.0.2.7:41641", "192.0.2.9:7777:vni:1", "fra"

ACTIVE_PATHS = {
    # CurAddr, PeerRelay, Relay: set (x) or empty (-).
    "---": Path.NONE,
    "--x": Path.DERP,
    "-x-": Path.PEER_RELAY,
    "-xx": Path.PEER_RELAY,
    "x--": Path.DIRECT,
    "x-x": Path.DIRECT,
    "xx-": Path.DIRECT,
    "xxx": Path.DIRECT,
}
"""Path of an online, active peer, by the fields that are set.

`tailscale status` prints the same (`printPS` in `cmd/tailscale/cli/status.go`), and
nothing in the first row.
"""


@pytest.mark.parametrize("fields", ACTIVE_PATHS)
@pytest.mark.parametrize("active", [False, True], ids=["inactive", "active"])
@pytest.mark.parametrize("online", [False, True], ids=["offline", "online"])
def test_the_path_follows_the_table(fields: str, *, online: bool, active: bool) -> None:
    """All 32 combinations; a direct address depends on CurAddr only."""
    cur_addr, peer_relay, relay = (field == "x" for field in fields)
    peer = PeerStatus(
        online=online,
        active=active,
        cur_addr=DIRECT if cur_addr else "",
        peer_relay=PEER_RELAY if peer_relay else "",
        relay=HOME if relay else "",
    )
    if not online:
        assert classify(peer) is Path.OFFLINE
    elif not active:
        assert classify(peer) is Path.IDLE
    else:
        assert classify(peer) is ACTIVE_PATHS[fields]
    assert active_path(peer) is (ACTIVE_PATHS[fields] if active else None)
    assert has_direct_address(peer) is cur_addr


def test_the_path_label_has_the_documented_values() -> None:
    """The order is the order of the series in the exposition."""
    assert [path.value for path in Path] == [
        *("direct", "peer_relay", "derp", "idle", "offline"),
        "none",
    ]
