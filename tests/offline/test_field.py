"""Captures and statuses as people have reported them, and what the watchdog must do."""

from __future__ import annotations

import gzip
from collections.abc import Mapping

import pytest

from support.corpus import FIXTURES
from tsfc.core.evaluation.observation import instant, parse, status_of
from tsfc.core.evaluation.statistics import Statistics, peers_at_end, update
from tsfc.core.tailscale.status import decode
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.offline.host import OfflineHost

FIELD = FIXTURES / "field"


def replayed(name: str, policy: ThresholdPolicy) -> tuple[Statistics, list[str]]:
    """Return the statistics and the lines of a replayed capture."""
    host, statistics, lines = OfflineHost(), Statistics(), list[str]()
    for line in gzip.decompress((FIELD / f"{name}.ndjson.gz").read_bytes()).splitlines():
        observation = parse(line).unwrap()
        run, said = host.run(status_of(observation), now=instant(observation), policy=policy)
        update(statistics, run)
        lines += said
    return statistics, lines


@pytest.mark.parametrize(
    ("name", "relay_seconds", "verbs"),
    [
        pytest.param(
            "control-outage",
            {"bravo": 0, "charlie": 840},
            ["DETECTED", *["WAITING"] * 10, *["HELD"] * 4],
            id="the control server is away",
        ),
        pytest.param(
            "down-on-purpose",
            {"bravo": 0, "charlie": 60},
            ["DETECTED", "DETECTED", "RECOVERED"],
            id="tailscale down, and up after two days",
        ),
        pytest.param(
            "suspend",
            {"bravo": 0, "charlie": 60},
            ["DETECTED", "DETECTED", "RECOVERED"],
            id="eight hours asleep",
        ),
        pytest.param(
            "boot-race",
            {"bravo": 0, "charlie": 60},
            ["DETECTED", "DETECTED", "RECOVERED"],
            id="tailscaled is up late after boot",
        ),
        pytest.param("hello", {"bravo": 0}, [], id="hello.ts.net"),
        pytest.param("js-client", {"bravo": 0}, [], id="a client in a browser"),
        pytest.param("all-offline", {"bravo": 0, "charlie": 0}, [], id="all peers are offline"),
    ],
)
def test_a_restart_that_cannot_help_is_not_made(
    name: str, relay_seconds: Mapping[str, int], verbs: list[str]
) -> None:
    """No time in which nobody looked is in any total."""
    statistics, lines = replayed(name, ThresholdPolicy())
    assert statistics.state.restarts == 0
    assert {
        peer: one.relay_seconds for peer, one in peers_at_end(statistics).items()
    } == relay_seconds
    assert [line.split(":")[0] for line in lines if line.split(":")[0].isupper()] == verbs


def test_that_all_peers_are_offline_is_told_once() -> None:
    _, lines = replayed("all-offline", ThresholdPolicy())
    (line,) = lines
    assert line.startswith("tsfc watchdog: all peers are offline (2); ")


def test_a_peer_that_is_stuck_still_causes_a_restart() -> None:
    statistics, _ = replayed("frozen-netmap", ThresholdPolicy())
    assert statistics.state.restarts == 8


@pytest.mark.parametrize(
    ("name", "peers"),
    [
        ("stopped-self-null", 0),
        ("self-null", 1),
        ("peer-null-entry", 1),
        ("user-null-entry", 1),
        ("seen-null", 1),
        ("curaddr-null", 1),
    ],
)
def test_an_odd_field_costs_no_peer(name: str, peers: int) -> None:
    status = decode((FIELD / f"{name}.json").read_bytes()).unwrap()
    assert status.problems == ()
    assert len(status.peer or {}) == peers
