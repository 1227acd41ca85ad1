from __future__ import annotations

from itertools import product

import pytest

from support.statuses import PATHS, decoded, peer
from tsfc.core.tailscale.paths import Path, classify, has_direct_address
from tsfc.core.tailscale.status import PeerStatus

DIRECT, PEER_RELAY, HOME = "192.0.2.7:41641", "192.0.2.9:7777:vni:1", "fra"
COMBINATIONS = list(
    product([False, True], [False, True], ["", DIRECT], ["", PEER_RELAY], ["", HOME])
)


def status_column(peer: PeerStatus) -> str:
    """What `tailscale status` prints, by the order of `printPS` (cmd/tailscale/cli/status.go): it asks for the relay first."""
    offline = "" if peer.online else "; offline"
    if not peer.active:
        return "idle" + offline
    column = "active; "
    if peer.relay != "" and peer.cur_addr == "" and peer.peer_relay == "":
        column += f'relay "{peer.relay}"'
    elif peer.cur_addr != "":
        column += f"direct {peer.cur_addr}"
    elif peer.peer_relay != "":
        column += f"peer-relay {peer.peer_relay}"
    return column + offline


WORDS = {
    "offline": Path.OFFLINE,
    "idle": Path.IDLE,
    'relay "fra"': Path.DERP,
    f"direct {DIRECT}": Path.DIRECT,
    f"peer-relay {PEER_RELAY}": Path.PEER_RELAY,
    "": Path.IDLE,
}
"The last part of the column, and the path that it speaks of; `tailscale status` has no word for a peer that nothing leads to."


@pytest.mark.parametrize(("online", "active", "cur_addr", "peer_relay", "relay"), COMBINATIONS)
def test_the_path_is_the_one_that_tailscale_status_names(
    *, online: bool, active: bool, cur_addr: str, peer_relay: str, relay: str
) -> None:
    """For every combination of what the path depends on, it is what `tailscale status` says."""
    peer = PeerStatus(
        online=online, active=active, cur_addr=cur_addr, peer_relay=peer_relay, relay=relay
    )
    assert classify(peer) is WORDS[status_column(peer).split("; ")[-1]]


ACTIVE = {
    # CurAddr, PeerRelay, Relay: set (x) or empty (-).
    "---": Path.IDLE,
    "--x": Path.DERP,
    "-x-": Path.PEER_RELAY,
    "-xx": Path.PEER_RELAY,
    "x--": Path.DIRECT,
    "x-x": Path.DIRECT,
    "xx-": Path.DIRECT,
    "xxx": Path.DIRECT,
}
TABLE = {
    (False, False): dict.fromkeys(ACTIVE, Path.OFFLINE),
    (False, True): dict.fromkeys(ACTIVE, Path.OFFLINE),
    (True, False): dict.fromkeys(ACTIVE, Path.IDLE),
    (True, True): ACTIVE,
}
"By online and active, then by what is set: all 32 rows."


@pytest.mark.parametrize(("online", "active", "cur_addr", "peer_relay", "relay"), COMBINATIONS)
def test_the_path_is_that_of_its_row(
    *, online: bool, active: bool, cur_addr: str, peer_relay: str, relay: str
) -> None:
    """The whole table, row by row."""
    row = "".join("x" if field else "-" for field in (cur_addr, peer_relay, relay))
    peer = PeerStatus(
        online=online, active=active, cur_addr=cur_addr, peer_relay=peer_relay, relay=relay
    )
    assert classify(peer) is TABLE[online, active][row]


@pytest.mark.parametrize("path", PATHS)
def test_the_factory_makes_peers_of_each_path(path: str) -> None:
    """What the tests call a path is one."""
    [made] = (decoded(peer("rpi3", path)).peer or {}).values()
    assert classify(made) == path


def test_every_path_has_its_word() -> None:
    """The values of the label `path` are the documented ones, in the documented order."""
    assert [path.value for path in Path] == ["direct", "peer_relay", "derp", "idle", "offline"]


@pytest.mark.parametrize(("online", "active", "cur_addr", "peer_relay", "relay"), COMBINATIONS)
def test_a_direct_address_is_one_whatever_else_holds(
    *, online: bool, active: bool, cur_addr: str, peer_relay: str, relay: str
) -> None:
    """`tailscale_peer_direct` asks for `CurAddr`, and for nothing else."""
    assert has_direct_address(
        PeerStatus(
            online=online, active=active, cur_addr=cur_addr, peer_relay=peer_relay, relay=relay
        )
    ) is bool(cur_addr)
