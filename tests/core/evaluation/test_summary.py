"""The summary shows the counts, and the peers by their time on relay."""

from __future__ import annotations

from core.evaluation.evaluated import counted
from support.captures import START, fault, seen
from support.statuses import peer
from tsfc.core.evaluation import summary
from tsfc.core.evaluation.statistics import Statistics


def _statistics() -> Statistics:
    """`nas` is on relay for 60 s and then direct; `rpi3` is always on relay."""
    observations = [
        seen(START, peer("nas", "derp"), peer("rpi3", "derp")),
        seen(START + 60, peer("nas"), peer("rpi3", "derp")),
        seen(START + 120, peer("nas"), peer("rpi3", "derp")),
        fault(START + 150),
    ]
    return counted(observations)


def test_the_counts_are_those_of_all_peers_together() -> None:
    assert summary.counts(_statistics()) == {
        "observations": 4,
        "faults": 1,
        "gaps": 0,
        "restarts": 1,
        "detections": 2,
        "recoveries": 1,
        "cooldowns": 0,
        "relay_seconds": 60 + 150,
        "longest_seconds": 150,
        "direct_seconds": 60 + 30,
    }


def test_a_comparison_shows_counts_that_exist() -> None:
    assert set(summary.COLUMNS) <= set(summary.counts(Statistics()))


def test_the_text_is_aligned_and_has_the_longest_on_relay_first() -> None:
    assert summary.text(_statistics(), "more\n") == (
        "4 observations (2027-01-15T08:00:00Z to 2027-01-15T08:02:30Z, 150 s), 1 faults, 0 gaps\n"
        "1 restarts, 2 detections, 1 recoveries, 0 cooldowns\n"
        "210 s on relay, 90 s direct, of all peers together; longest episode 150 s\n"
        "more\n"
        "peer  on relay  episodes  longest  restarts caused\n"
        "rpi3     150 s         1    150 s                1\n"
        "nas       60 s         1     60 s                0\n"
    )


def test_without_peers_the_text_has_no_table() -> None:
    assert summary.text(Statistics()).splitlines()[0] == (
        "0 observations (1970-01-01T00:00:00Z to 1970-01-01T00:00:00Z, 0 s), 0 faults, 0 gaps"
    )
    assert "peer " not in summary.text(Statistics())
    assert summary.counts(Statistics())["longest_seconds"] == 0
