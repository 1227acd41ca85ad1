"""The imagined tailnet does what was measured of a real one (docs/tailscale.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from returns.result import Failure

from support.captures import TIMELINE
from tsfc.core.tailscale.paths import Path as Way
from tsfc.core.tailscale.paths import classify
from tsfc.core.tailscale.status import decode
from tsfc.offline.simulation import scenario
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
    shown = decode(bytes(_shown(world))).unwrap()
    (peer,) = (shown.peer or {}).values()
    return (peer.tailscale_ips or ("",))[0]


def _shown(world: World) -> bytes:
    shown = world.observe()
    assert isinstance(shown, bytes)
    return shown


def _way(world: World, at: float, name: str = "nas") -> Way:
    world.advance(at)
    peers = decode(_shown(world)).unwrap().peer or {}
    return next(classify(peer) for peer in peers.values() if peer.host_name == name)


def _first(world: World, way: Way, begin: float, end: float) -> float | None:
    """Returns when the path is first of that kind, to a tenth of a second."""
    return next(
        (at / 10 for at in range(int(begin * 10), int(end * 10)) if _way(world, at / 10) is way),
        None,
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "takes"),
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
def test_a_first_ping_leads_to_a_direct_path_as_measured(
    ours: str, theirs: str, takes: float | None
) -> None:
    world = _world(ours=ours, theirs=theirs, keepalive=0)
    world.advance(5)
    pong = world.ping(_ip(world))
    assert pong is not None
    assert pong.path == "derp"
    assert _first(world, Way.DIRECT, 5, 40) == (
        None if takes is None else pytest.approx(5 + takes, abs=0.11)
    )


def test_what_nothing_is_sent_to_is_idle_after_45_seconds_and_its_address_goes_a_little_later() -> (
    None
):
    world = _world(theirs="public", keepalive=0)
    world.ping(_ip(world))
    assert _way(world, 1) is Way.DIRECT
    assert _way(world, 44.9) is Way.DIRECT
    assert _way(world, 45.1) is Way.IDLE
    world.advance(50.7)
    assert '"CurAddr":""' in _shown(world).decode().partition('"Peer"')[2]


def test_udp_that_is_cut_is_relay_in_4_to_6_seconds_and_back_in_less_than_7() -> None:
    cut = '[[events]]\nkind = "udp-blocked"\nat = 100\nlasts = 60\npeers = ["nas"]'
    for seed in range(20):
        world = _world(cut, seed=seed)
        lost = _first(world, Way.DERP, 99, 120)
        assert lost is not None
        assert 104.1 <= lost <= 106.5
        found = _first(world, Way.DIRECT, 159, 180)
        assert found is not None
        assert 160.2 <= found <= 166.2


def test_keepalive_keeps_a_path_and_finds_one() -> None:
    assert _first(_world(settled=False), Way.DIRECT, 0, 30) is not None
    world = _world()
    assert all(_way(world, at) is Way.DIRECT for at in range(0, 3600, 7))


def test_a_restart_forgets_every_path_and_the_next_ping_finds_it() -> None:
    world = _world()
    world.advance(100)
    assert not world.restart()
    assert isinstance(world.observe(), str)
    assert _way(world, 100.2) is Way.IDLE
    found = _first(world, Way.DIRECT, 100.2, 130)
    assert found is not None
    assert found < 110.5
    assert world.daemon_down_seconds == pytest.approx(0.1)


STUCK = '[[events]]\nkind = "stuck"\nat = 100\npeers = ["nas"]\n'


@pytest.mark.parametrize(
    ("how", "changes"),
    [('restart = "cures"', True), ('restart = "nothing"', False), ('side = "far"', False)],
)
def test_a_restart_cures_what_it_can(how: str, changes: bool) -> None:  # noqa: FBT001 - a table
    world = _world(STUCK + how)
    assert _way(world, 200) is Way.DERP
    assert world.curable("nas") is changes
    assert world.restart() is changes
    assert (_way(world, 260) is Way.DIRECT) is changes
    assert not world.curable("nas") or not changes


def test_what_is_cured_for_a_while_comes_back() -> None:
    world = _world(STUCK + 'restart = "cures-for"\ncured = { min = 100, max = 100 }')
    world.advance(200)
    assert world.restart()
    assert _way(world, 280) is Way.DIRECT
    assert _way(world, 320) is Way.DERP
    assert world.restart()


def test_without_the_control_server_a_restart_leaves_no_peers() -> None:
    world = _world('[[events]]\nkind = "control-outage"\nat = 100\nlasts = 100')
    assert _way(world, 150) is Way.DIRECT
    world.restart()
    world.advance(160)
    shown = decode(_shown(world)).unwrap()
    assert (shown.backend_state, shown.peer) == ("NoState", None)
    assert _way(world, 230) is Way.DIRECT
    assert world.daemon_down_seconds == pytest.approx(50)


def test_without_a_relay_direct_paths_stay_and_no_new_one_comes_about() -> None:
    outage = '[[events]]\nkind = "derp-outage"\nat = 100\nlasts = 100'
    world = _world(outage)
    assert _way(world, 190) is Way.DIRECT
    cold = _world(outage, keepalive=0)
    cold.advance(110)
    assert cold.ping(_ip(cold)) is None
    assert _way(cold, 150) is Way.DERP
    cold.ping(_ip(cold))
    assert _way(cold, 194) is Way.DERP
    cold.ping(_ip(cold))
    assert _first(cold, Way.DIRECT, 200, 210) is not None


def test_offline_dead_and_asleep() -> None:
    world = _world(
        '[[events]]\nkind = "offline"\nat = 100\nlasts = 100\n[[events]]\nkind = "daemon-dead"\nat = 300\nlasts = 100'
    )
    assert _way(world, 150) is Way.OFFLINE
    assert _way(world, 240) is Way.DIRECT
    world.advance(350)
    assert isinstance(world.observe(), str)
    assert _way(world, 430) is Way.DIRECT
    asleep = _world('[[events]]\nkind = "suspend"\nat = 100\nlasts = 1000')
    runs = [asleep.next_watchdog_run() for _ in range(5)]
    assert runs[1] < 100
    assert 1000 < runs[2] < 1200
    assert asleep.instant().boot is not None


def test_a_peer_relay_carries_who_cannot_be_direct() -> None:
    world = _world('[[peers]]\nname = "server"\nnat = "public"\nserves_relay = true', theirs="hard")
    assert _way(world, 60) is Way.PEER_RELAY


def test_same_seed_same_bytes_and_another_seed_others() -> None:
    def shown(seed: int) -> list[Any]:
        world = World(scenario.builtin()["flapping"], seed)
        all_shown: list[Any] = []
        for at in range(0, 40_000, 61):
            world.advance(at)
            all_shown.append(world.observe())
        return all_shown

    assert shown(1) == shown(1)
    assert shown(1) != shown(2)


def test_the_recorded_tailnet_is_the_models_but_for_a_sample_at_each_change() -> None:
    """Of 30 samples of 4 peers, ten seconds apart: UDP to bravo was cut, and came back."""

    def paths(document: bytes) -> dict[str, bool]:
        return {
            peer.host_name: peer.cur_addr != ""
            for peer in (decode(document).unwrap().peer or {}).values()
        }

    recorded = [
        paths(json.dumps(json.loads(line)["status"]).encode())
        for line in TIMELINE.read_text().splitlines()
    ]
    for seed in range(10):
        world = World(scenario.builtin()["udp-blocked-then-open"], seed)
        imagined: list[dict[str, bool]] = []
        while len(imagined) < len(recorded):
            world.next_watchdog_run()
            imagined.append(paths(_shown(world)))
        for name in ("bravo", "carol", "delta", "echo"):
            wrong = [
                number
                for number, (one, other) in enumerate(zip(recorded, imagined, strict=True))
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
def test_a_built_in_scenario_shows_what_tailscaled_could(name: str) -> None:
    """Every status decodes, and is in the state that it has to be."""
    made = scenario.builtin()[name]
    assert made.summary.endswith(".")
    world = World(made, 0)
    for _ in range(60):
        world.next_watchdog_run()
        shown = world.observe()
        assert isinstance(shown, str) or decode(shown).unwrap().backend_state in {
            "Running",
            "NoState",
        }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("summary = 5", "Expected `str`, got `int` - at `summary`"),
        ('summary = "x"\nlasts = "1 week"\npeers = []', "lasts"),
        ('summary = "x"\nlasts = "1d"\npeers = []', "peers"),
        (
            'summary = "x"\nlasts = "1d"\n[[peers]]\nname = "a"\nnatt = "easy"',
            "unknown field `natt` - at `peers[0]`",
        ),
        (
            'summary = "x"\nlasts = "1d"\n[[peers]]\nname = "a"\nnat = "soft"',
            "Invalid enum value 'soft' - at `peers[0].nat`",
        ),
        (
            'summary = "x"\nlasts = "1d"\n[[peers]]\nname = "a"\n[[peers]]\nname = "a"',
            "two peers have one name",
        ),
        (
            'summary = "x"\nlasts = "1d"\n[[peers]]\nname = "a"\n[[events]]\nkind = "rain"\nat = 1',
            "'rain'",
        ),
        (
            'summary = "x"\nlasts = "1d"\n[[peers]]\nname = "a"\n[[events]]\nkind = "offline"\nat = 1\npeers = ["b"]',
            "there is no peer b",
        ),
        (
            'summary = "x"\nlasts = "1d"\n[[peers]]\nname = "a"\n[[events]]\nkind = "suspend"\nat = 1',
            "has to end",
        ),
        ("summary =", "reading the scenario f.toml: "),
        ("\xff", "reading the scenario f.toml: "),
    ],
)
def test_what_is_wrong_with_a_scenario_is_said_in_one_line(text: str, said: str) -> None:
    read = scenario.read(text.encode("latin-1"), "f.toml")
    assert isinstance(read, Failure)
    assert read.failure().startswith("reading the scenario f.toml: ")
    assert said in read.failure()
    assert read.failure().isprintable()


def test_the_schema_is_of_the_types() -> None:
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


def test_every_scenario_file_is_built_in() -> None:
    directory = Path(scenario.__file__).parent / "scenarios"
    assert {path.stem for path in directory.iterdir()} == set(scenario.builtin())
