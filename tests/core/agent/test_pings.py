"""What became of all pings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from returns.result import Success

from support.processes import series
from tsfc.core.agent.pings import BUCKETS, Pings, metrics, with_round
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.lint import check
from tsfc.core.tailscale.ping import ERROR, NO_REPLY, PingOutcome, PingResult


def _pong(outcome: PingOutcome, seconds: float) -> PingResult:
    return PingResult(outcome, seconds)


def test_each_ping_counts_and_a_peer_that_has_gone_is_forgotten() -> None:
    pings = with_round(Pings(), {"nas": (NO_REPLY, NO_REPLY), "pi": (ERROR,)})
    pings = with_round(pings, {"nas": (NO_REPLY, _pong(PingOutcome.DIRECT, 0.003))})
    found = series(render(metrics(pings)))
    assert found['tailscale_keepalive_pings_total{peer="nas",result="no_reply"}'] == 3
    assert found['tailscale_keepalive_pings_total{peer="nas",result="direct"}'] == 1
    assert not [name for name in found if 'peer="pi"' in name]


def test_a_bucket_has_all_pongs_up_to_its_bound() -> None:
    pings = with_round(Pings(), {"nas": (_pong(PingOutcome.DERP, 0.005),)})
    pings = with_round(pings, {"nas": (_pong(PingOutcome.DERP, 9.0),)})
    found = series(render(metrics(pings)))
    name = "tailscale_keepalive_rtt_seconds"
    assert found[f'{name}_bucket{{le="0.0025",path="derp"}}'] == 0
    assert found[f'{name}_bucket{{le="0.005",path="derp"}}'] == 1
    assert found[f'{name}_bucket{{le="2.5",path="derp"}}'] == 1
    assert found[f'{name}_bucket{{le="+Inf",path="derp"}}'] == 2
    assert found[f'{name}_count{{path="derp"}}'] == 2
    assert found[f'{name}_sum{{path="derp"}}'] == 9.005


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["derp", "direct"]), st.floats(0, 10)), max_size=5),
        max_size=5,
    )
)
def test_histograms_are_cumulative_and_complete(rounds: list[list[tuple[str, float]]]) -> None:
    pings = Pings()
    for pongs in rounds:
        results = tuple(_pong(PingOutcome(path), seconds) for path, seconds in pongs)
        pings = with_round(pings, {"nas": results})
    text = render(metrics(pings))
    assert isinstance(check(text), Success)
    for path in ("derp", "direct"):
        seconds = [value for pongs in rounds for on, value in pongs if on == path]
        if seconds:
            counts = pings.latencies[PingOutcome(path)].counts
            assert sum(counts) == len(seconds)
            assert sum(counts[:3]) == sum(value <= BUCKETS[2] for value in seconds)
