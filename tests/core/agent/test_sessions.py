"""Which peers keepalive has to ping now."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.statuses import decoded, peer
from tsfc.core.agent.sessions import LONGEST_SECONDS, Sessions, due, of_tailscaled, with_round
from tsfc.core.keepalive import pings
from tsfc.core.tailscale.ping import ERROR, NO_REPLY, Ping, PingOutcome, PingResult
from tsfc.core.tailscale.status import Status

DIRECT, PEER_RELAY, DERP = (
    PingResult(PingOutcome.DIRECT, 0.01),
    PingResult(PingOutcome.PEER_RELAY, 0.02),
    PingResult(PingOutcome.DERP, 0.03),
)
STATUS = decoded(peer("nas"), peer("pi"))
IDLE_SECONDS = 45.0
"tailscaled gives up a path this long after the last ping (docs/tailscale.md)."


def _rounds(
    status: Callable[[float], Status],
    results: Callable[[float], tuple[PingResult, ...]],
    *,
    times: list[float],
    interval: float,
) -> list[float]:
    """The times at which `nas` is pinged, if rounds start at `times`."""
    sessions = Sessions()
    found: list[float] = []
    for now in times:
        all_ = pings(status(now))
        needed = due(sessions, all_, status(now), now=now, interval=interval)
        sessions = with_round(sessions, all_, {ping.peer: results(now) for ping in needed}, now)
        found += [now for ping in needed if ping.peer == "nas"]
    return found


def _every_10_seconds(end: float) -> list[float]:
    return [10.0 * number for number in range(round(end / 10))]


def test_a_direct_peer_is_pinged_every_30_seconds() -> None:
    found = _rounds(
        lambda _: STATUS, lambda _: (DIRECT,), times=_every_10_seconds(100), interval=10
    )
    assert found == [0, 30, 60, 90]


@pytest.mark.parametrize(
    "results",
    [(DERP, DERP, DERP), (PEER_RELAY,), (NO_REPLY,), (DIRECT, ERROR), (ERROR,), ()],
)
def test_a_peer_that_did_not_answer_directly_is_pinged_in_each_round(
    results: tuple[PingResult, ...],
) -> None:
    times = _every_10_seconds(60)
    assert _rounds(lambda _: STATUS, lambda _: results, times=times, interval=10) == times


def test_a_direct_pong_counts_after_pongs_through_a_relay() -> None:
    found = _rounds(
        lambda _: STATUS, lambda _: (DERP, DIRECT), times=_every_10_seconds(40), interval=10
    )
    assert found == [0, 30]


@pytest.mark.parametrize("path", ["derp", "peer_relay", "idle"])
def test_a_peer_whose_path_is_no_longer_direct_is_due_at_once(path: str) -> None:
    found = _rounds(
        lambda now: decoded(peer("nas", path if now == 10 else "direct"), peer("pi")),
        lambda _: (DIRECT,),
        times=_every_10_seconds(50),
        interval=10,
    )
    assert found == [0, 10, 40]


def test_a_restart_of_tailscaled_makes_all_peers_due() -> None:
    all_ = pings(STATUS)
    sessions = of_tailscaled(Sessions(), 100)
    sessions = with_round(sessions, all_, {"nas": (DIRECT,), "pi": (DIRECT,)}, 0.0)
    same = of_tailscaled(sessions, 100)
    assert due(same, all_, STATUS, now=10.0, interval=10) == ()
    other = of_tailscaled(sessions, 105)
    assert due(other, all_, STATUS, now=10.0, interval=10) == all_


def test_a_peer_keeps_its_last_results_until_it_is_no_longer_pinged() -> None:
    nas, pi = pings(STATUS)
    sessions = with_round(Sessions(), (nas, pi), {"nas": (DIRECT,), "pi": (DERP,)}, 0.0)
    sessions = with_round(sessions, (nas, pi), {"pi": (NO_REPLY,)}, 10.0)
    assert {ping: (last.at, last.results) for ping, last in sessions.peers.items()} == {
        nas: (0.0, (DIRECT,)),
        pi: (10.0, (NO_REPLY,)),
    }
    assert list(with_round(sessions, (pi,), {}, 20.0).peers) == [pi]


def test_another_peer_of_the_same_name_is_pinged() -> None:
    (nas, _) = pings(STATUS)
    sessions = with_round(Sessions(), (nas,), {"nas": (DIRECT,)}, 0.0)
    other = Ping("nas", "100.64.9.9")
    assert due(sessions, (nas, other), STATUS, now=1.0, interval=10) == (other,)


@given(
    st.integers(1, 35),
    st.lists(st.floats(0.0, 4.9), min_size=1, max_size=50),
)
def test_no_path_of_a_peer_that_answers_is_given_up(interval: int, late: list[float]) -> None:
    """Whatever the interval, even if rounds start late."""
    times = [number * interval + seconds for number, seconds in enumerate(late)]
    found = _rounds(lambda _: STATUS, lambda _: (DIRECT,), times=times, interval=interval)
    gaps = [after - before for before, after in itertools.pairwise(found)]
    assert max([*gaps, times[-1] - found[-1]]) <= LONGEST_SECONDS + 4.9 < IDLE_SECONDS
