"""How long each peer was on which path."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from returns.result import Success

from support.statuses import encoded, peer
from tsfc.core.agent.paths import (
    LONGEST_SECONDS,
    Paths,
    metrics,
    summary,
    with_status,
    without_status,
)
from tsfc.core.clock import Boot, Instant
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.lint import check
from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.status import Status, decode

T = 1_800_000_000
KINDS = {"direct": Path.DIRECT, "derp": Path.DERP, "offline": Path.OFFLINE}


def _at(seconds: int, *, suspended: int = 0, boot: str = "b") -> Instant:
    return Instant(T + seconds, Boot(boot, 1000 + seconds, 1000 + seconds - suspended))


def _status(**peers: str) -> Status:
    return decode(encoded(*(peer(name, kind) for name, kind in peers.items()))).unwrap()


def _seconds(paths: Paths, name: str) -> dict[Path, int]:
    (found,) = (dict(of.seconds) for of in paths.peers.values() if of.name == name)
    return found


def test_time_belongs_to_the_path_that_the_peer_had_before() -> None:
    paths = with_status(Paths(), _status(nas="direct"), _at(0))
    paths = with_status(paths, _status(nas="derp"), _at(30))
    paths = with_status(paths, _status(nas="derp"), _at(60))
    assert _seconds(paths, "nas") == {Path.DIRECT: 30, Path.DERP: 30}
    (nas,) = paths.peers.values()
    assert (nas.path, nas.since, nas.changes) == (Path.DERP, T + 30, 1)


def test_time_that_nobody_watched_does_not_count() -> None:
    first = with_status(Paths(), _status(nas="direct"), _at(0))
    rebooted = Instant(T + 3600, Boot("other", 30, 30))
    for later in (_at(LONGEST_SECONDS + 1), _at(40, suspended=30), rebooted):
        assert _seconds(with_status(first, _status(nas="direct"), later), "nas") == {}
    blind = without_status(first)
    assert _seconds(with_status(blind, _status(nas="direct"), _at(30)), "nas") == {}


def test_without_boot_clocks_the_wall_clock_counts() -> None:
    paths = with_status(Paths(), _status(nas="direct"), Instant(T))
    assert _seconds(with_status(paths, _status(nas="direct"), Instant(T + 30)), "nas") == {
        Path.DIRECT: 30
    }
    assert _seconds(with_status(paths, _status(nas="direct"), Instant(T - 30)), "nas") == {}


def test_a_status_that_is_not_running_shows_nothing() -> None:
    paths = with_status(Paths(), _status(nas="direct"), _at(0))
    stopped = decode(encoded(peer("nas"), BackendState="Stopped")).unwrap()
    paths = with_status(paths, stopped, _at(30))
    assert paths.at is None
    assert "tailscale_peer_path_since_timestamp_seconds{" not in render(metrics(paths))
    assert 'tailscale_peer_path_changes_total{peer="nas"} 0' in render(metrics(paths))


def test_a_peer_that_has_gone_is_forgotten() -> None:
    paths = with_status(Paths(), _status(nas="direct", pi="derp"), _at(0))
    paths = with_status(paths, _status(pi="derp"), _at(30))
    assert [of.name for of in paths.peers.values()] == ["pi"]


def test_the_summary_has_each_path_that_a_peer_is_on() -> None:
    assert summary(Paths()) == "peers: none"
    paths = with_status(Paths(), _status(a="direct", b="derp", c="derp"), _at(0))
    assert summary(paths) == "peers: 1 direct, 2 derp"


@given(
    st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, LONGEST_SECONDS)), min_size=1)
)
def test_all_watched_time_is_on_some_path(looks: list[tuple[str, int]]) -> None:
    paths, now = Paths(), 0
    for number, (kind, seconds) in enumerate(looks):
        now += seconds if number else 0
        paths = with_status(paths, _status(nas=kind), _at(now))
    assert sum(_seconds(paths, "nas").values()) == now
    kinds = [kind for kind, _ in looks]
    (nas,) = paths.peers.values()
    assert nas.changes == sum(a != b for a, b in pairwise(kinds))
    assert isinstance(check(render(metrics(paths))), Success)
