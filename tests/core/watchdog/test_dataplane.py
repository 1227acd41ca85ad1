"""A path that is direct and brings no data back is a finding of its own."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from support.statuses import decoded, peer
from tsfc.core.clock import Instant
from tsfc.core.tailscale.ping import ERROR, NO_REPLY, Ping, PingOutcome, PingResult
from tsfc.core.watchdog import memory as memories
from tsfc.core.watchdog.dataplane import SUSPECT_LIMIT, Probe, suspects
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.memory import Memory, Traffic
from tsfc.core.watchdog.policy import GuardedPolicy
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import Transition, step

from .worlds import T0, lines

NAS = "nnasCNTRL"
PONG = PingResult(PingOutcome.DERP, 0.01)
DEAD = Probe((NO_REPLY, NO_REPLY), (PONG,))
BEFORE = Memory(traffic={NAS: Traffic(100, 1000)})


def _nas(rx: int, tx: int, **fields: Any) -> dict[str, Any]:
    return peer("nas", RxBytes=rx, TxBytes=tx) | {"TailscaleIPs": ["100.64.0.9"]} | fields


@pytest.mark.parametrize(
    ("now", "is_suspect"),
    [
        pytest.param(_nas(100, 2024), True, id="nothing-comes-back"),
        pytest.param(_nas(100, 2023), False, id="hardly-anything-was-sent"),
        pytest.param(_nas(132, 9999), False, id="something-came-back"),
        pytest.param(_nas(0, 9999), False, id="counters-began-again"),
        pytest.param(_nas(100, 9999, CurAddr=""), False, id="on-relay"),
        pytest.param(_nas(100, 9999, Online=False), False, id="offline"),
        pytest.param(_nas(100, 9999, TailscaleIPs=None), False, id="no-address"),
        pytest.param(_nas(100, 9999, ID="nother"), False, id="another-peer"),
    ],
)
def test_a_peer_that_sends_nothing_back_is_a_suspect(
    now: dict[str, Any], *, is_suspect: bool
) -> None:
    expected = (Ping("nas", "100.64.0.9"),) if is_suspect else ()
    assert suspects(BEFORE, decoded(now), T0) == expected


def test_a_backend_that_does_not_run_has_no_suspects() -> None:
    assert suspects(BEFORE, decoded(_nas(100, 9999), BackendState="Stopped"), T0) == ()
    assert suspects(Memory(), decoded(_nas(100, 9999)), T0) == ()


@pytest.mark.parametrize("tx", [1000, 9999])
def test_a_dead_peer_is_pinged_again_before_it_is_told_again(tx: int) -> None:
    """Even if nothing was sent to it: without traffic, nothing else could clear it."""
    dead = Memory(traffic={NAS: Traffic(100, 1000, dead_since=T0, told_at=T0)})
    status = decoded(_nas(100, tx))
    assert suspects(dead, status, T0 + 3599) == ()
    assert suspects(dead, status, T0 + 3600) == (Ping("nas", "100.64.0.9"),)
    assert suspects(dead, decoded(_nas(101, tx)), T0 + 3600) == ()


@pytest.mark.parametrize(
    ("probe", "is_dead"),
    [
        pytest.param(Probe((NO_REPLY, PONG), (PONG,)), False, id="one-pong"),
        pytest.param(DEAD, True, id="dead"),
        pytest.param(Probe((ERROR, ERROR), (PONG,)), True, id="an-error-proves-nothing"),
        pytest.param(None, True, id="not-pinged"),
    ],
)
def test_a_pong_ends_a_dead_data_plane(probe: Probe | None, *, is_dead: bool) -> None:
    dead = Memory(traffic={NAS: Traffic(100, 1000, dead_since=T0 - 3600, told_at=T0 - 3600)})
    after = _look(replace(State(), memory=dead), 0, _nas(100, 1000), probe)
    assert after.verdicts is not None
    assert after.verdicts[0].is_dead is is_dead
    assert [line.split(":")[0] for line in lines(after)] == (["DEAD"] if is_dead else [])


def test_of_many_suspects_those_with_the_most_bytes_are_pinged() -> None:
    names = [f"host{number}" for number in range(SUSPECT_LIMIT + 3)]
    memory = Memory(traffic={f"n{name}CNTRL": Traffic(0, 1) for name in names})
    sent = {name: 5000 + number for number, name in enumerate(names)}
    status = decoded(*(peer(name, TxBytes=number) for name, number in sent.items()))
    assert [ping.peer for ping in suspects(memory, status, T0)] == names[::-1][:SUSPECT_LIMIT]


@pytest.mark.parametrize(
    ("probe", "is_dead"),
    [
        pytest.param(DEAD, True, id="dead"),
        pytest.param(Probe((NO_REPLY, PONG), (PONG,)), False, id="one-pong"),
        pytest.param(Probe((NO_REPLY,), (NO_REPLY,)), False, id="the-path-is-dead-too"),
        pytest.param(Probe((ERROR, NO_REPLY), (PONG,)), False, id="an-error-proves-nothing"),
        pytest.param(Probe((), (PONG,)), False, id="not-pinged"),
        pytest.param(Probe((NO_REPLY,), ()), False, id="no-disco-ping"),
    ],
)
def test_only_lost_tsmp_with_a_disco_pong_is_dead(probe: Probe, *, is_dead: bool) -> None:
    assert probe.is_dead is is_dead


def _look(state: State, at: int, nas: dict[str, Any], probe: Probe | None = None) -> Transition:
    probes = {} if probe is None else {"nas": probe}
    event = Observed(decoded(nas), T0 - 9000, probes=probes)
    return step(state, event, now=Instant(T0 + at), policy=GuardedPolicy())


def test_the_life_of_a_dead_data_plane() -> None:
    """It is told at once and each hour, until something comes back."""
    first = _look(State(), 0, _nas(100, 1000))
    assert first.state.memory.traffic == BEFORE.traffic
    dead = _look(first.state, 60, _nas(100, 5000), DEAD)
    assert lines(dead) == (
        (
            "DEAD: nas direct, but no data comes back: disco pings are answered, TSMP pings are "
            "lost; no restart mends that"
        ),
    )
    assert dead.verdicts is not None
    assert [verdict.is_dead for verdict in dead.verdicts] == [True]
    later = _look(dead.state, 120, _nas(100, 9000))
    assert lines(later) == ()
    assert later.state.memory.traffic == {
        NAS: Traffic(100, 9000, dead_since=T0 + 60, told_at=T0 + 60)
    }
    hour = _look(later.state, 3660, _nas(100, 9000))
    assert lines(hour)[0].startswith("DEAD: nas direct, but no data comes back for 3600s: ")
    alive = _look(hour.state, 3720, _nas(300, 9000))
    assert alive.verdicts is not None
    assert not alive.verdicts[0].is_dead
    assert alive.state.memory.traffic == {NAS: Traffic(300, 9000)}


def test_a_suspect_that_answers_is_not_dead() -> None:
    state = replace(State(), memory=BEFORE)
    after = _look(state, 60, _nas(100, 9999), Probe((PONG,), (PONG,)))
    assert after.state.memory.traffic == {NAS: Traffic(100, 9999)}
    assert lines(after) == ()


def test_the_traffic_of_peers_on_relay_is_not_kept() -> None:
    state = replace(State(), memory=BEFORE)
    assert _look(state, 60, _nas(100, 9999, CurAddr="")).state.memory.traffic == {}
    assert _look(State(), 60, _nas(0, 0)).state.memory.traffic == {}


def test_the_times_of_a_dead_data_plane_move_with_the_clock() -> None:
    memory = Memory(traffic={"a": Traffic(1, 2, 3, 4), "b": Traffic(5, 6)})
    assert memories.moved(memory, lambda at: at + 10).traffic == {
        "a": Traffic(1, 2, 13, 14),
        "b": Traffic(5, 6),
    }
