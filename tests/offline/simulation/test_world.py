"""The simulated tailnet behaves as was measured on a real one (docs/tailscale.md)."""

from __future__ import annotations

import itertools
import json
import pathlib
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from returns.result import Failure, Success

from support import irregular
from support.captures import TIMELINE
from tsfc.core.tailscale.paths import Path, classify
from tsfc.core.tailscale.ping import PingKind, PingOutcome
from tsfc.core.tailscale.status import decode
from tsfc.core.watchdog.remedy import Remedy
from tsfc.offline.simulation import scenario
from tsfc.offline.simulation.link import ip_of
from tsfc.offline.simulation.scenario import Scenario
from tsfc.offline.simulation.spans import span_range
from tsfc.offline.simulation.world import World

TOML = """
summary = "x"
lasts = "1d"
[node]
nat = "{ours}"
keepalive = {keepalive}
settled = {settled}
[[peers]]
name = "nas"
nat = "{theirs}"
{more}
"""


def _world(
    more: str = "",
    *,
    ours: str = "easy",
    theirs: str = "easy",
    keepalive: int = 10,
    settled: bool = True,
    seed: int = 0,
) -> World:
    text = TOML.format(
        ours=ours, theirs=theirs, keepalive=keepalive, settled=str(settled).lower(), more=more
    )
    return World(scenario.read(text.encode(), "test").unwrap(), seed)


def _ip(world: World) -> str:
    (peer,) = (decode(_status(world)).unwrap().peer or {}).values()
    return (peer.tailscale_ips or ("",))[0]


def _peer(world: World) -> dict[str, Any]:
    peers: dict[str, dict[str, Any]] = json.loads(_status(world))["Peer"]
    (peer,) = peers.values()
    return peer


def _status(world: World) -> bytes:
    status = world.observe()
    assert isinstance(status, bytes)
    return status


def _path(world: World, at: float, name: str = "nas") -> Path:
    world.advance(at)
    peers = decode(_status(world)).unwrap().peer or {}
    return next(classify(peer) for peer in peers.values() if peer.host_name == name)


def _first(world: World, path: Path, begin: float, end: float) -> float | None:
    """Return when a peer first has a path, to a tenth of a second."""
    return next(
        (at / 10 for at in range(int(begin * 10), int(end * 10)) if _path(world, at / 10) is path),
        None,
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "seconds"),
    [
        ("easy", "easy", 9.0),
        ("easy", "cgnat", 9.0),
        ("public", "easy", 9.1),
        ("public", "hard", 6.1),
        ("easy", "public", 0.1),
        ("hard", "public", 0.1),
        ("easy", "hard", None),
        ("hard", "easy", None),
        ("hard", "hard", None),
        ("noudp", "public", None),
        ("public", "noudp", None),
    ],
)
def test_a_first_ping_leads_to_a_direct_path_in_the_measured_time(
    ours: str, theirs: str, seconds: float | None
) -> None:
    world = _world(ours=ours, theirs=theirs, keepalive=0)
    world.advance(5)
    assert world.ping(_ip(world)).outcome is PingOutcome.DERP
    assert _first(world, Path.DIRECT, 5, 40) == (
        None if seconds is None else pytest.approx(5 + seconds, abs=0.11)
    )


def test_an_unused_peer_is_idle_after_45_seconds_and_loses_its_address_soon_after() -> None:
    world = _world(theirs="public", keepalive=0)
    world.ping(_ip(world))
    assert _path(world, 1) is Path.DIRECT
    assert _path(world, 44.9) is Path.DIRECT
    assert _path(world, 45.1) is Path.IDLE
    world.advance(50.7)
    assert '"CurAddr":""' in _status(world).decode().partition('"Peer"')[2]


def test_blocked_udp_means_relay_in_4_to_6_seconds_and_opened_udp_direct_in_7() -> None:
    block = '[[events]]\nkind = "udp-blocked"\nat = 100\nlasts = 60\npeers = ["nas"]'
    for seed in range(20):
        world = _world(block, seed=seed)
        lost = _first(world, Path.DERP, 99, 120)
        assert lost is not None
        assert 104.1 <= lost <= 106.5
        found = _first(world, Path.DIRECT, 159, 180)
        assert found is not None
        assert 160.2 <= found <= 166.2


def test_keepalive_gets_and_keeps_a_direct_path() -> None:
    assert _first(_world(settled=False), Path.DIRECT, 0, 30) is not None
    world = _world()
    assert all(_path(world, at) is Path.DIRECT for at in range(0, 3600, 7))


def test_a_restart_loses_every_path_and_keepalive_gets_it_back() -> None:
    world = _world()
    world.advance(100)
    assert not world.restart()
    assert isinstance(world.observe(), str)
    assert _path(world, 100.2) is Path.IDLE
    found = _first(world, Path.DIRECT, 100.2, 130)
    assert found is not None
    assert found < 110.5
    assert world.daemon_down_seconds == pytest.approx(0.1)


def test_a_restart_harms_a_direct_peer_until_it_is_direct_again() -> None:
    world = _world()
    world.advance(100)
    world.restart()
    found = _first(world, Path.DIRECT, 100.2, 130)
    assert found is not None
    world.advance(3600)
    first = world.harm_seconds()
    assert first == pytest.approx(found - 100, abs=0.11)
    world.restart()
    found = _first(world, Path.DIRECT, 3600.2, 3630)
    assert found is not None
    assert world.harm_seconds() == pytest.approx(first + found - 3600, abs=0.11)


@pytest.mark.parametrize(
    ("event", "harm"),
    [
        pytest.param('kind = "udp-blocked"\nat = 104\nlasts = 60', 4, id="blocked"),
        pytest.param('kind = "offline"\nat = 103\nlasts = 60', 3, id="offline"),
        pytest.param('kind = "daemon-dead"\nat = 102\nlasts = 60', 2, id="dead"),
        pytest.param('kind = "suspend"\nat = 101\nlasts = 60', 1, id="asleep"),
    ],
)
def test_a_peer_that_would_not_be_direct_anyway_is_not_harmed(event: str, harm: float) -> None:
    world = _world(f"[[events]]\n{event}", keepalive=30)
    world.advance(100)
    world.restart()
    world.advance(3600)
    assert world.harm_seconds() == pytest.approx(harm)


def test_a_restart_without_the_control_server_harms_for_the_whole_outage() -> None:
    world = _world('[[events]]\nkind = "control-outage"\nat = 50\nlasts = 1000')
    world.advance(100)
    world.restart()
    world.restart()
    world.advance(3600)
    assert world.harm_seconds() == pytest.approx(950 + 10, abs=10)


def test_an_idle_peer_is_harmed_only_until_it_would_have_lost_its_path() -> None:
    world = _world(theirs="public", keepalive=0)
    world.ping(_ip(world))
    world.advance(30)
    world.restart()
    world.advance(3600)
    assert 45 - 30 <= world.harm_seconds() <= 50.6 - 30


def test_a_peer_on_relay_is_not_harmed() -> None:
    world = _world(theirs="hard")
    world.advance(100)
    world.restart()
    world.advance(3600)
    assert world.harm_seconds() == 0


STUCK = '[[events]]\nkind = "stuck"\nat = 100\npeers = ["nas"]\n'


@pytest.mark.parametrize(
    ("fault", "is_cured"),
    [('restart = "cures"', True), ('restart = "nothing"', False), ('side = "far"', False)],
)
def test_a_restart_clears_only_the_faults_that_it_can(
    fault: str,
    is_cured: bool,  # noqa: FBT001 - a column of the table
) -> None:
    world = _world(STUCK + fault)
    assert _path(world, 200) is Path.DERP
    assert world.remedy_for("nas") is (Remedy.RESTART if is_cured else None)
    assert world.restart() is is_cured
    assert (_path(world, 260) is Path.DIRECT) is is_cured
    assert world.remedy_for("nas") is None


def test_a_fault_that_is_cured_for_a_while_returns() -> None:
    world = _world(STUCK + 'restart = "cures-for"\ncured = { min = 100, max = 100 }')
    world.advance(200)
    assert world.restart()
    assert _path(world, 280) is Path.DIRECT
    assert _path(world, 320) is Path.DERP
    assert world.restart()


PORT_FAULTS = ["blocked-port", "stuck-nat"]


@pytest.mark.parametrize("kind", PORT_FAULTS)
def test_only_another_port_cures_a_fault_of_the_port(kind: str) -> None:
    world = _world(f'[[events]]\nkind = "{kind}"\nat = 100')
    assert _path(world, 200) is Path.DERP
    assert world.remedy_for("nas") is Remedy.OTHER_PORT
    assert not world.restart()
    assert _path(world, 260) is Path.DERP
    assert world.restart(Remedy.OTHER_PORT)
    assert _path(world, 320) is Path.DIRECT
    assert world.remedy_for("nas") is None


@pytest.mark.parametrize("kind", PORT_FAULTS)
def test_a_plain_restart_returns_to_the_configured_port_and_its_fault(kind: str) -> None:
    world = _world(f'[[events]]\nkind = "{kind}"\nat = 100\nlasts = 1000')
    world.advance(200)
    assert world.restart(Remedy.OTHER_PORT)
    assert not world.restart(Remedy.OTHER_PORT)
    assert _path(world, 260) is Path.DIRECT
    assert not world.restart()
    assert _path(world, 320) is Path.DERP
    assert _path(world, 1110) is Path.DIRECT


def test_another_port_cures_what_a_restart_cures() -> None:
    world = _world(STUCK + 'restart = "cures"')
    world.advance(200)
    assert world.restart(Remedy.OTHER_PORT)
    assert _path(world, 260) is Path.DIRECT


def _own_addresses(world: World) -> list[str]:
    addresses: list[str] = json.loads(_status(world))["Self"]["Addrs"]
    return addresses


def test_the_node_has_a_public_address_only_where_stun_works() -> None:
    blocked = _world('[[events]]\nkind = "blocked-port"\nat = 100')
    assert _own_addresses(blocked) == ["192.0.2.1:41641", "10.0.0.2:41641"]
    blocked.advance(200)
    assert _own_addresses(blocked) == ["10.0.0.2:41641"]
    blocked.restart(Remedy.OTHER_PORT)
    blocked.advance(201)
    assert _own_addresses(blocked) == ["192.0.2.1:41642", "10.0.0.2:41642"]
    udp = _world('[[events]]\nkind = "udp-blocked"\nat = 100\nlasts = 100')
    udp.advance(150)
    assert _own_addresses(udp) == ["10.0.0.2:41641"]
    udp.advance(250)
    assert len(_own_addresses(udp)) == 2
    assert _own_addresses(_world(ours="noudp")) == ["10.0.0.2:41641"]
    first, second, _ = _own_addresses(_world(ours="hard"))
    assert first.partition(":")[0] == second.partition(":")[0]


@pytest.mark.parametrize(
    ("event", "shortest", "longest"),
    [
        ('kind = "wan-change"', 6, 10),
        ('kind = "stuck-nat"', 6, 10),
        ('kind = "udp-blocked"', 6, 26),
        ('kind = "blocked-port"', 6, 26),
    ],
)
def test_the_status_shows_new_addresses_of_the_node_late(
    event: str, shortest: int, longest: int
) -> None:
    for seed in range(5):
        world = _world(f"[[events]]\n{event}\nat = 100\nlasts = 100", seed=seed)
        before = _own_addresses(world)
        world.advance(100 + shortest - 0.01)
        assert _own_addresses(world) == before
        world.advance(100 + longest)
        during = _own_addresses(world)
        assert during != before
        world.advance(200 + shortest - 0.01)
        assert _own_addresses(world) == during
        world.advance(200 + longest)
        assert (_own_addresses(world) == before) == ("blocked" in event)


def test_a_started_tailscaled_shows_its_addresses_at_once() -> None:
    world = _world('[[events]]\nkind = "blocked-port"\nat = 100')
    world.advance(101)
    world.restart()
    world.advance(102)
    assert _own_addresses(world) == ["10.0.0.2:41641"]
    world.cure()
    assert len(_own_addresses(world)) == 2


def test_a_new_address_of_the_node_loses_the_paths_for_seconds() -> None:
    world = _world('[[events]]\nkind = "wan-change"\nat = 100')
    lost = _first(world, Path.DERP, 100, 110)
    assert lost is not None
    found = _first(world, Path.DIRECT, lost, lost + 10)
    assert found is not None
    assert _own_addresses(world)[0] == "192.0.2.2:41641"


def test_a_restart_without_the_coordination_server_leaves_no_peers() -> None:
    world = _world('[[events]]\nkind = "control-outage"\nat = 100\nlasts = 100')
    assert _path(world, 150) is Path.DIRECT
    world.restart()
    world.advance(160)
    status = decode(_status(world)).unwrap()
    assert (status.backend_state, status.peer) == ("NoState", None)
    assert _path(world, 230) is Path.DIRECT
    assert world.daemon_down_seconds == pytest.approx(50)


def test_traffic_that_goes_on_finds_a_path_after_a_restart() -> None:
    busy = "traffic = { every = { min = 1, max = 1 }, lasts = { min = 9999, max = 9999 } }"
    world = _world(busy, keepalive=0)
    assert _path(world, 100) is Path.DIRECT
    world.restart()
    assert _path(world, 100.15) is Path.DERP
    assert _path(world, 100.3) is Path.DIRECT


def test_a_status_without_peers_counts_no_traffic() -> None:
    """Bytes are counted when a status shows them, so an early look would round twice."""
    more = """traffic = { every = { min = 1, max = 2 }, lasts = { min = 400, max = 500 } }
[[events]]
kind = "control-outage"
at = 100
lasts = 100
"""
    observed, unobserved = _world(more), _world(more)
    for world in (observed, unobserved):
        world.advance(150)
        world.restart()
    for tenth in range(1520, 1990, 7):
        observed.advance(tenth / 10)
        assert decode(_status(observed)).unwrap().peer is None
    for world in (observed, unobserved):
        world.advance(300)
    assert _status(observed) == _status(unobserved)


def test_without_derp_direct_paths_stay_and_hole_punching_fails() -> None:
    outage = '[[events]]\nkind = "derp-outage"\nat = 100\nlasts = 100'
    world = _world(outage)
    assert _path(world, 190) is Path.DIRECT
    cold = _world(outage, keepalive=0)
    cold.advance(110)
    assert cold.ping(_ip(cold)).outcome is PingOutcome.NO_REPLY
    assert _path(cold, 150) is Path.DERP
    cold.ping(_ip(cold))
    assert _path(cold, 194) is Path.DERP
    cold.ping(_ip(cold))
    assert _first(cold, Path.DIRECT, 200, 210) is not None


def _health(world: World) -> list[str]:
    return list(decode(_status(world)).unwrap().health or ())


def _is_online(world: World, at: float) -> bool | None:
    world.advance(at)
    return decode(_status(world)).unwrap().self_.online


@pytest.mark.parametrize(("mode", "earliest", "latest"), [("refuses", 5, 15), ("silent", 105, 105)])
def test_an_outage_of_control_is_noticed_late(mode: str, earliest: float, latest: float) -> None:
    outage = f'[[events]]\nkind = "control-outage"\nat = 100\nlasts = 900\nmode = "{mode}"'
    for seed in range(5):
        world = _world(outage, seed=seed)
        assert _is_online(world, 100 + earliest - 0.1)
        assert _is_online(world, 100 + latest + 0.1) is False
        assert _is_online(world, 999) is False
        assert len(_health(world)) == 1
        assert _is_online(world, 1000.1)
        assert _health(world) == []


def test_an_outage_that_ends_before_it_is_noticed_never_shows() -> None:
    outage = '[[events]]\nkind = "control-outage"\nat = 100\nlasts = 60\nmode = "silent"'
    world = _world(outage)
    assert all(_is_online(world, at) for at in range(90, 400, 3))


def test_a_tailscaled_that_starts_in_an_outage_notices_it_at_once() -> None:
    world = _world('[[events]]\nkind = "control-outage"\nat = 100\nlasts = 900\nmode = "silent"')
    assert _is_online(world, 110)
    world.restart()
    assert _is_online(world, 111) is False


@pytest.mark.parametrize(("mode", "earliest", "latest"), [("refuses", 12, 16), ("silent", 92, 117)])
def test_an_outage_of_relays_is_noticed_late(mode: str, earliest: float, latest: float) -> None:
    outage = f'[[events]]\nkind = "derp-outage"\nat = 100\nlasts = 900\nmode = "{mode}"'
    for seed in range(5):
        world = _world(outage, seed=seed)
        world.advance(100 + earliest - 0.1)
        assert _health(world) == []
        world.advance(100 + latest + 0.1)
        assert len(_health(world)) == 1


def test_direct_paths_flap_while_relays_are_silent() -> None:
    outage = '[[events]]\nkind = "derp-outage"\nat = 100\nlasts = 900\nmode = "silent"'
    world = _world(outage)
    before = [_path(world, 100 + at) for at in range(90)]
    flapping = [_path(world, 220 + at / 2) for at in range(1500)]
    after = [_path(world, 1001 + at) for at in range(90)]
    assert set(before) == set(after) == {Path.DIRECT}
    changes = sum(one is not other for one, other in itertools.pairwise(flapping))
    assert 750 / 10 < changes < 750 / 3.5
    assert set(flapping) == {Path.DIRECT, Path.DERP}


def test_direct_paths_stay_while_relays_refuse() -> None:
    outage = '[[events]]\nkind = "derp-outage"\nat = 100\nlasts = 900\nmode = "refuses"'
    world = _world(outage)
    assert all(_path(world, at) is Path.DIRECT for at in range(100, 1000, 3))


def test_a_dead_data_plane_sends_and_receives_nothing() -> None:
    busy = "traffic = { every = { min = 1, max = 1 }, lasts = { min = 9999, max = 9999 } }"
    world = _world(f'{busy}\n[[events]]\nkind = "dead-data"\nat = 200\nlasts = 600')

    def traffic(at: float) -> tuple[int, int, object]:
        assert _path(world, at) is Path.DIRECT
        (peer,) = json.loads(_status(world))["Peer"].values()
        return peer["RxBytes"], peer["TxBytes"], peer["LastHandshake"]

    alive, first, last, again = (traffic(at) for at in (100, 201, 799, 1000))
    assert alive[0] == alive[1] > 0
    assert first[0] == last[0]
    assert first[2] == last[2]
    assert last[1] - first[1] > 800_000
    assert again[0] > last[0]
    assert again[2] != last[2]


def test_a_peer_that_is_offline_has_no_traffic() -> None:
    busy = """traffic = { every = { min = 1, max = 1 }, lasts = { min = 9999, max = 9999 }, \
received = 2000, sent = 30 }
[[events]]
kind = "offline"
at = 101
lasts = 100
"""
    world = _world(busy.replace("\\\n", ""))

    def traffic(at: float) -> tuple[int, int, object]:
        world.advance(at)
        peer = _peer(world)
        return peer["RxBytes"], peer["TxBytes"], peer["LastHandshake"]

    before, first, last, after = (traffic(at) for at in (101, 102, 200, 301))
    assert before[:2] == (200_000, 3000)
    assert first == last == before
    assert after[:2] == (400_000, 6000)
    assert after[2] != before[2]


def test_a_faster_world_shows_its_times_closer_together() -> None:
    busy = "traffic = { every = { min = 10, max = 10 }, lasts = { min = 1, max = 1 } }"
    toml = f'summary = "x"\nlasts = "1d"\n[[peers]]\nname = "nas"\n{busy}'
    found = scenario.read(toml.encode(), "test").unwrap()
    slow, fast = World(found, 0), World(found, 0, speed=100)
    for world in (slow, fast):
        world.advance(3600)
    ages = [
        world.instant().unix - datetime.fromisoformat(_peer(world)["LastHandshake"]).timestamp()
        for world in (slow, fast)
    ]
    assert ages == [4, 1]
    assert fast.instant().unix == found.start + 36


def test_only_tsmp_pings_are_lost_on_a_dead_data_plane() -> None:
    world = _world('[[events]]\nkind = "dead-data"\nat = 200\nlasts = 600')

    def pinged(at: float) -> tuple[PingOutcome, PingOutcome, int, int]:
        world.advance(at)
        before, ip = _peer(world), _ip(world)
        disco, tsmp = (world.ping(ip, kind).outcome for kind in PingKind)
        after = _peer(world)
        sent, received = (after[key] - before[key] for key in ("TxBytes", "RxBytes"))
        return disco, tsmp, sent, received

    alive = (PingOutcome.DIRECT, PingOutcome.DIRECT, 280, 64)
    dead = (PingOutcome.DIRECT, PingOutcome.NO_REPLY, 280, 0)
    assert [pinged(at) for at in (100, 300, 900)] == [alive, dead, alive]


def test_a_ping_takes_the_path_of_the_peer() -> None:
    relay = '[[peers]]\nname = "server"\nnat = "public"\nserves_relay = true'
    offline = '[[events]]\nkind = "offline"\nat = 100\npeers = ["nas"]\n'
    down = '[[events]]\nkind = "daemon-dead"\nat = 200\n'
    world = _world(relay + "\n" + offline + down, theirs="hard")
    ip = next(iter(json.loads(_status(world))["Peer"].values()))["TailscaleIPs"][0]
    found: list[PingOutcome] = []
    for at in (60, 150, 250):
        world.advance(at)
        found.append(world.ping(ip).outcome)
    assert found == [PingOutcome.PEER_RELAY, PingOutcome.NO_REPLY, PingOutcome.ERROR]
    assert world.ping("100.64.9.9").outcome is PingOutcome.ERROR


def test_a_peer_that_sleeps_online_is_on_relay() -> None:
    world = _world("sleep = { awake = { min = 100, max = 100 }, asleep = { min = 50, max = 50 } }")
    assert _path(world, 99) is Path.DIRECT
    assert _path(world, 140) is Path.DERP
    assert _path(world, 200) is Path.DIRECT
    assert world.remedy_for("nas") is None


def test_a_restart_that_fails_changes_nothing() -> None:
    world = _world('[[events]]\nkind = "restart-fails"\nat = 100\nlasts = 100')
    assert world.can_restart()
    world.advance(150)
    assert not world.can_restart()
    world.advance(250)
    assert world.can_restart()


def test_a_peer_is_direct_again_after_it_or_tailscaled_was_down() -> None:
    offline = '[[events]]\nkind = "offline"\nat = 100\nlasts = 100\n'
    dead = '[[events]]\nkind = "daemon-dead"\nat = 300\nlasts = 100\n'
    world = _world(offline + dead)
    assert _path(world, 150) is Path.OFFLINE
    assert _path(world, 240) is Path.DIRECT
    world.advance(350)
    assert isinstance(world.observe(), str)
    assert _path(world, 430) is Path.DIRECT


def test_the_watchdog_does_not_run_while_the_node_sleeps() -> None:
    asleep = _world('[[events]]\nkind = "suspend"\nat = 100\nlasts = 1000')
    runs = [asleep.next_watchdog_run(1e9) or 0.0 for _ in range(5)]
    assert runs[1] < 100
    assert 1000 < runs[2] < 1200
    assert asleep.instant().boot is not None


def test_a_peer_that_cannot_be_direct_uses_the_peer_relay() -> None:
    world = _world('[[peers]]\nname = "server"\nnat = "public"\nserves_relay = true', theirs="hard")
    assert _path(world, 60) is Path.PEER_RELAY


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others() -> None:
    def statuses(seed: int) -> list[bytes | str]:
        world = World(scenario.builtin()["flapping"], seed)
        observed: list[bytes | str] = []
        for at in range(0, 40_000, 61):
            world.advance(at)
            observed.append(world.observe())
        return observed

    assert statuses(1) == statuses(1)
    assert statuses(1) != statuses(2)


def test_the_simulation_differs_from_the_recording_only_around_changes() -> None:
    """The recording has 30 statuses, ten seconds apart. UDP to bravo was blocked."""

    def direct(document: bytes) -> dict[str, bool]:
        return {
            peer.host_name: peer.cur_addr != ""
            for peer in (decode(document).unwrap().peer or {}).values()
        }

    recorded = [
        direct(json.dumps(json.loads(line)["status"]).encode())
        for line in TIMELINE.read_text().splitlines()
    ]
    for seed in range(10):
        world = World(scenario.builtin()["udp-blocked-then-open"], seed)
        simulated: list[dict[str, bool]] = []
        while len(simulated) < len(recorded):
            world.next_watchdog_run(1e9)
            simulated.append(direct(_status(world)))
        for name in ("bravo", "carol", "delta", "echo"):
            wrong = [
                number
                for number, (one, other) in enumerate(zip(recorded, simulated, strict=True))
                if one[name] != other[name]
            ]
            changes = [
                number
                for number in range(1, 30)
                if recorded[number][name] != recorded[number - 1][name]
            ] + [0, 1]
            assert all(any(abs(number - change) <= 1 for change in changes) for number in wrong), (
                name,
                seed,
                wrong,
            )
            assert len(wrong) <= len(changes) - 1


# Scenarios


@pytest.mark.parametrize("name", list(scenario.builtin()))
def test_every_status_of_a_built_in_scenario_is_valid(name: str) -> None:
    description = scenario.builtin()[name]
    assert description.summary.endswith(".")
    world = World(description, 0)
    for _ in range(60):
        world.next_watchdog_run(1e9)
        status = world.observe()
        assert isinstance(status, str) or decode(status).unwrap().backend_state in {
            "Running",
            "NoState",
        }


VALID = 'summary = "x"\nlasts = "1d"\n[[peers]]\nname = "a"\n'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("summary = 5", "Expected `str`, got `int` - at `summary`", id="type"),
        pytest.param('summary = "x"\nlasts = "1 month"\npeers = []', "lasts", id="span"),
        pytest.param('summary = "x"\nlasts = "1d"\npeers = []', "peers", id="no peers"),
        pytest.param(
            f'{VALID}natt = "easy"', "unknown field `natt` - at `peers[0]`", id="unknown field"
        ),
        pytest.param(
            f'{VALID}nat = "soft"', "Invalid enum value 'soft' - at `peers[0].nat`", id="enum"
        ),
        pytest.param(
            f'{VALID}[[peers]]\nname = "a"',
            "two peers have one name; rename one",
            id="name twice",
        ),
        pytest.param(f'{VALID}[[events]]\nkind = "rain"\nat = 1', "'rain'", id="unknown kind"),
        pytest.param(
            f'{VALID}[[events]]\nkind = "offline"\nat = 1\npeers = ["b"]',
            "there is no peer b",
            id="unknown peer",
        ),
        pytest.param(
            f'{VALID}[[events]]\nkind = "suspend"\nat = 1', "has to end", id="endless suspend"
        ),
        pytest.param(
            f'{VALID}[[events]]\nkind = "derp-outage"\nat = 1\nrepeat = {{ min = 1, max = 2 }}',
            "has to end",
            id="endless event that repeats",
        ),
        pytest.param(
            f'{VALID}mapping = "{"9" * 400}d"', "Expected seconds (0 to 1e+09)", id="infinite span"
        ),
        pytest.param("summary =", "reading the scenario f.toml: ", id="TOML"),
        pytest.param("\xff", "reading the scenario f.toml: ", id="UTF-8"),
    ],
)
def test_an_error_in_a_scenario_is_reported_in_one_line(text: str, error: str) -> None:
    result = scenario.read(text.encode("latin-1"), "f.toml")
    assert isinstance(result, Failure)
    assert result.failure().startswith("reading the scenario f.toml: ")
    assert error in result.failure()
    assert result.failure().isprintable()


@pytest.mark.parametrize(
    ("span", "seconds"),
    [
        ("90", 90),
        ("0.5", 0.5),
        ('"90s"', 90),
        ('"2h 30min"', 9000),
        ('"1d2h"', 93600),
        ('"1.5 min "', 90),
    ],
)
def test_a_span_is_in_seconds_as_soon_as_the_scenario_is_read(span: str, seconds: float) -> None:
    text = f"""{VALID}mapping = {span}
[[events]]
kind = "derp-outage"
at = {span}
lasts = {span}
[[events]]
kind = "derp-outage"
at = 0
lasts = {{ min = {span}, max = "2d" }}
"""
    description = scenario.read(text.encode(), "test").unwrap()
    event, varied = description.events
    assert event.at.range == span_range(seconds, seconds)
    assert event.lasts is not None
    assert event.lasts.range == span_range(seconds, seconds)
    assert varied.lasts is not None
    assert varied.lasts.range == span_range(seconds, 172_800)
    assert description.peers[0].mapping == seconds
    assert scenario.duration_seconds(description) == 86_400


ZERO = "{ min = 0, max = 0 }"
ENDLESS = {
    "repeat": f"""[[events]]
kind = "readdress"
at = 0
lasts = 0
repeat = {ZERO}
""",
    "repeat, almost 0": """[[events]]
kind = "readdress"
at = 0
lasts = 0
repeat = { min = 1, max = 0.001 }
""",
    "phone": f"phone = {{ online = {ZERO}, offline = {ZERO} }}\n",
    "traffic": f"traffic = {{ every = {ZERO}, lasts = {ZERO} }}\n",
    "readdress": f'nat = "cgnat"\nreaddress = {ZERO}\n',
    "interval": "[watchdog]\ninterval = 0\njitter = 0\n",
}


@pytest.mark.parametrize("more", ENDLESS.values(), ids=ENDLESS)
def test_a_scenario_that_repeats_without_a_pause_is_refused(more: str) -> None:
    refused = scenario.read(f"{VALID}{more}".encode(), "f.toml")
    assert isinstance(refused, Failure)
    assert "Expected seconds (1 to 1e+09) or a time span" in refused.failure()
    accepted = re.sub(r"\b(0.001|0)\b", "1", more)
    assert isinstance(scenario.read(f"{VALID}{accepted}".encode(), "f.toml"), Success)


def test_the_schema_has_the_shortest_pause() -> None:
    schema = scenario.schema()["$defs"]
    for table, key in [("PeriodRange", "min"), ("PeriodRange", "max"), ("Watchdog", "interval")]:
        number, text = schema[table]["properties"][key]["anyOf"]
        assert number["minimum"] == 1
        assert text["description"].endswith(", at least 1s")
    repeating = [
        schema[kind]["properties"][key]
        for kind, key in [
            ("Phone", "online"),
            ("Phone", "offline"),
            ("Traffic", "every"),
            ("Peer", "readdress"),
            ("Readdress", "repeat"),
        ]
    ]
    assert all("PeriodRange" in str(reference) for reference in repeating)


@pytest.mark.parametrize("make", [*irregular.NO_FILES, irregular.link_to_zeros])
def test_a_scenario_must_be_a_regular_file(
    box: pathlib.Path, make: Callable[[pathlib.Path], None]
) -> None:
    path = box / "s.toml"
    make(path)
    assert _reason(path) == "it is not a regular file"


def test_a_scenario_must_be_a_small_file(box: pathlib.Path) -> None:
    path = box / "s.toml"
    assert _reason(path) == "No such file or directory"
    path.write_text(VALID + "#" * 2**20)
    assert _reason(path) == "it is larger than 1 MiB"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_scenario_that_powershell_has_written_is_read(box: pathlib.Path, encoding: str) -> None:
    (box / "s.toml").write_text(VALID, encoding)
    assert scenario.find(str(box / "s.toml")) == scenario.read(VALID.encode(), "s")


def _reason(path: pathlib.Path) -> str:
    """Return why a scenario cannot be read."""
    found = scenario.find(str(path))
    assert isinstance(found, Failure)
    reason, separator, _ = str(found.failure()).partition("; give a TOML file")
    assert separator
    return reason.removeprefix(f"reading the scenario {path}: ")


def test_the_name_of_a_scenario_is_printable_in_an_error(box: pathlib.Path) -> None:
    """A new line or an escape sequence in a name must not reach the terminal."""
    missing = scenario.find("a\nb\x1b[31m")
    assert isinstance(missing, Failure)
    assert missing.failure().startswith("reading the scenario a\ufffdb\ufffd[31m: ")
    (box / "a\nb").write_text("=")
    invalid = scenario.find(str(box / "a\nb"))
    assert isinstance(invalid, Failure)
    assert invalid.failure().isprintable()


def test_the_schema_describes_all_tables_of_a_scenario() -> None:
    schema = scenario.schema()
    assert set(schema["$defs"]["Scenario"]["properties"]) >= {
        "summary",
        "lasts",
        "peers",
        "node",
        "watchdog",
        "events",
        "start",
    }
    assert schema["$defs"]["Nat"]["enum"] == ["cgnat", "easy", "hard", "noudp", "public"]


def test_every_file_of_the_directory_is_a_built_in_scenario() -> None:
    directory = pathlib.Path(scenario.__file__).parent / "scenarios"
    assert {path.stem for path in directory.iterdir()} == set(scenario.builtin())


@pytest.mark.parametrize("name", scenario.builtin())
def test_the_status_is_the_one_in_the_document(name: str) -> None:
    """Although it keeps each peer while nothing of it changes."""
    assert_same_statuses(scenario.builtin()[name], 3600 if name == "thousand-peers" else 86400)


def test_the_times_of_a_kept_peer_follow_the_clock() -> None:
    text = """
        summary = "A peer with traffic and one that goes offline, while the clock is set."
        lasts = "2h"
        [[peers]]
        name = "nas"
        traffic = { every = { min = "9min", max = "20min" }, lasts = { min = "1min", max = "2min" } }
        [[peers]]
        name = "rpi3"
        [[events]]
        kind = "offline"
        at = "10min"
        lasts = "1h"
        peers = ["rpi3"]
        [[events]]
        kind = "clock-step"
        at = "50min"
        by = -3600
    """
    assert_same_statuses(scenario.read(text.encode(), "test").unwrap(), 7200)


def assert_same_statuses(chosen: Scenario, seconds: float) -> None:
    """Assert that `status` is what is in `observe`, with pings and restarts in between."""
    asked, encoded = World(chosen, 1), World(chosen, 1)
    runs = 0
    while (at := asked.next_watchdog_run(seconds)) is not None:
        assert encoded.next_watchdog_run(seconds) == at
        document = encoded.observe()
        expected = document if isinstance(document, str) else decode(document).unwrap()
        assert asked.status() == expected
        # Ping some peers, and restart tailscaled now and then.
        runs += 1
        kind = PingKind.TSMP if runs % 2 else PingKind.DISCO
        assert asked.ping(ip_of(runs % 5), kind) == encoded.ping(ip_of(runs % 5), kind)
        if runs % 150 == 0:
            remedy = Remedy.RESTART if runs % 300 else Remedy.OTHER_PORT
            assert asked.restart(remedy) == encoded.restart(remedy)
    assert runs > 1
