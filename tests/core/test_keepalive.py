from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure

from support.corpus import damaged, json_values
from support.statuses import decoded, peer
from tsfc.core.keepalive import PAUSE_SECONDS, metrics, next_ping, overall_result, pings
from tsfc.core.metrics.families import Family, Kind, Sample
from tsfc.core.tailscale.ping import ERROR, NO_REPLY, Ping, PingOutcome, PingResult, parse_response

DIRECT, PEER_RELAY, DERP = (
    PingResult(PingOutcome.DIRECT, 0.012),
    PingResult(PingOutcome.PEER_RELAY, 0.025),
    PingResult(PingOutcome.DERP, 0.048),
)


@pytest.mark.parametrize(
    ("of", "pinged"),
    [
        pytest.param(peer("rpi3"), True, id="direct"),
        pytest.param(peer("rpi3", "peer_relay"), True, id="peer-relay"),
        pytest.param(peer("rpi3", "derp"), True, id="derp"),
        pytest.param(peer("rpi3", "idle"), True, id="idle"),
        pytest.param(peer("rpi3", "offline"), False, id="offline"),
        pytest.param(peer("rpi3", Tags=["tag:server"]), True, id="tagged"),
        pytest.param(peer("rpi3", DNSName="rpi3.tail2.ts.net."), True, id="shared-in"),
        pytest.param(peer("rpi3", ExitNode=True), True, id="exit-node"),
        pytest.param(peer("rpi3", Expired=True), False, id="expired"),
        pytest.param(peer("rpi3", ShareeNode=True), False, id="sharee"),
        pytest.param(peer("rpi3", DNSName="us-nyc-wg-301.mullvad.ts.net."), False, id="mullvad"),
        pytest.param(peer("rpi3", TailscaleIPs=None), False, id="null-ip"),
        pytest.param(peer("rpi3", TailscaleIPs=[]), False, id="no-ip"),
        pytest.param(peer("rpi3", TailscaleIPs=["-c"]), False, id="no-such-ip"),
        pytest.param(peer("rpi3", TailscaleIPs=["100.64.0.1"]), False, id="self"),
        pytest.param(peer("rpi3", TailscaleIPs=["fd7a:115c:a1e0::2"]), True, id="v6"),
    ],
)
def test_pinged_is(of: dict[str, Any], *, pinged: bool) -> None:
    """Who is online and can answer: not ourselves, the expired, sharees, Mullvad's, or who has no IP."""
    assert bool(pings(decoded(of))) is pinged


def test_each_is_pinged_once_at_its_first_ip_in_the_order_of_the_names() -> None:
    """All of them, under the names that they have in every job."""
    twins = (
        peer("twin", ID="nB", TailscaleIPs=["100.64.0.4"]),
        peer("twin", ID="nA", TailscaleIPs=["100.64.0.3", "fd7a::3"]),
    )
    status = decoded(
        *twins, peer("rpi3", TailscaleIPs=["fd7a::2", "100.64.0.2"]), peer("off", "offline")
    )
    assert pings(status) == (
        Ping("rpi3", "fd7a::2"),
        Ping("twin#nA", "100.64.0.3"),
        Ping("twin#nB", "100.64.0.4"),
    )


@pytest.mark.parametrize("state", ["Stopped", "Starting", "NeedsLogin", "NoState"])
def test_nobody_is_pinged_while_the_backend_is_not_running(state: str) -> None:
    """What it says of its peers does not hold."""
    assert pings(decoded(peer("rpi3"), BackendState=state)) == ()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"Peer": None}, id="null"),
        pytest.param({"Peer": {}}, id="empty"),
        pytest.param({"Self": {}}, id="no-self"),
    ],
)
def test_a_node_before_its_first_netmap_pings_nobody(fields: dict[str, Any]) -> None:
    """Peer may be null, and Self without IPs."""
    assert pings(decoded(**fields)) == ()


@pytest.mark.parametrize(
    ("answers", "wait"),
    [
        pytest.param((), 0.0, id="first"),
        pytest.param((DIRECT,), None, id="direct"),
        pytest.param((PEER_RELAY,), PAUSE_SECONDS, id="peer-relay"),
        pytest.param((DERP,), PAUSE_SECONDS, id="derp"),
        pytest.param((NO_REPLY,), 0.0, id="silence"),
        pytest.param((ERROR,), None, id="error"),
        pytest.param((DERP, DIRECT), None, id="then-direct"),
        pytest.param((DERP, DERP), PAUSE_SECONDS, id="second"),
        pytest.param((DERP, NO_REPLY), 0.0, id="fell-silent"),
        pytest.param((NO_REPLY, DERP), PAUSE_SECONDS, id="woke"),
        pytest.param((NO_REPLY, ERROR), None, id="then-error"),
        pytest.param((DERP, DERP, DERP), None, id="last"),
        pytest.param((NO_REPLY, NO_REPLY, NO_REPLY), None, id="last-silence"),
    ],
)
def test_the_next_ping_comes(answers: tuple[PingResult, ...], wait: float | None) -> None:
    """A second after an answer that was not direct, at once after none; not after a direct one, an error, or the last."""
    assert next_ping(answers, 3) == wait


def test_no_more_pings_are_sent_than_asked_for() -> None:
    """Whatever the answers; and none where none was asked for."""
    for count, length in itertools.product(range(4), range(5)):
        for answers in itertools.product(
            (DIRECT, PEER_RELAY, DERP, NO_REPLY, ERROR), repeat=length
        ):
            assert length < count or next_ping(answers, count) is None


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        pytest.param(b'{"IP":"100.64.0.2","NodeName":"rpi3","Err":"","LatencySeconds":0.012,"Endpoint":"192.0.2.7:41641","PeerRelay":"","DERPRegionID":0}', DIRECT, id="direct"),
        pytest.param(b'{"Err":"","LatencySeconds":0.025,"Endpoint":"","PeerRelay":"192.0.2.9:7777:vni:1","DERPRegionID":0,"DERPRegionCode":""}', PEER_RELAY, id="peer-relay"),
        pytest.param(b'{"Err":"","LatencySeconds":0.048,"Endpoint":"","PeerRelay":"","DERPRegionID":1,"DERPRegionCode":"fra"}', DERP, id="derp"),
        pytest.param(b'{"LatencySeconds":0.048,"DERPRegionID":1}', DERP, id="before-1.86"),
        pytest.param(b'{"LatencySeconds":0,"Endpoint":"x","PeerRelay":"y"}', PingResult(PingOutcome.DIRECT, 0.0), id="both"),
        pytest.param(b'{"LatencySeconds":-1,"Endpoint":"x"}', PingResult(PingOutcome.DIRECT, 0.0), id="negative"),
    ],
)  # fmt: skip
def test_an_answer_is_read(raw: bytes, answer: PingResult) -> None:
    """By what it came through; a latency is never negative."""
    assert parse_response(raw).unwrap() == answer


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(
            b'{"Err":"no matching peer"}', "tailscaled reports: no matching peer", id="unknown"
        ),
        pytest.param(
            b'{"Err":"peer\'s node key has expired","Endpoint":"x"}',
            "tailscaled reports: peer's node key has expired",
            id="expired",
        ),
        pytest.param(
            b'{"Err":"two\\nlines\\u001b[0m"}',
            "tailscaled reports: two lines\N{REPLACEMENT CHARACTER}[0m",
            id="hostile",
        ),
        pytest.param(b"", "Input data was truncated", id="empty"),
        pytest.param(b"null", "Expected `object`, got `null`", id="null"),
        pytest.param(
            b'{"LatencySeconds":"fast"}',
            "Expected `float`, got `str` - at `$.LatencySeconds`",
            id="retyped",
        ),
        pytest.param(b'{"LatencySeconds":1e400}', "Number out of range", id="infinite"),
        pytest.param(b'{"Err":"\xff"}', "utf-8", id="not-utf-8"),
        pytest.param(b'{"a":' * 100_000, "maximum recursion depth exceeded", id="nested"),
    ],
)
def test_an_answer_that_is_none_is_one_line(raw: bytes, problem: str) -> None:
    """An error of tailscaled's, and what is no answer, end in one printable line."""
    detail = parse_response(raw).failure().detail
    assert problem in detail
    assert detail.isprintable()


@given(
    st.binary()
    | json_values().map(lambda document: json.dumps(document).encode())
    | damaged(
        b'{"IP":"100.64.0.2","Err":"","LatencySeconds":0.012,"Endpoint":"192.0.2.7:41641","DERPRegionID":0}'
    )
)
def test_no_answer_is_too_broken(raw: bytes) -> None:
    """Whatever comes back is an answer or one line."""
    read = parse_response(raw)
    if isinstance(read, Failure):
        assert read.failure().detail.isprintable()
    else:
        assert (read.unwrap().latency_seconds or 0) >= 0


@pytest.mark.parametrize(
    ("answers", "result"),
    [
        pytest.param((), NO_REPLY, id="none"),
        pytest.param((NO_REPLY,), NO_REPLY, id="no-reply"),
        pytest.param((ERROR,), ERROR, id="error"),
        pytest.param((NO_REPLY, ERROR), ERROR, id="then-error"),
        pytest.param((DERP, DIRECT), DIRECT, id="then-direct"),
        pytest.param(
            (DERP, DERP, PingResult(PingOutcome.DERP, 0.05)),
            PingResult(PingOutcome.DERP, 0.05),
            id="last-pong",
        ),
        pytest.param((DERP, NO_REPLY, NO_REPLY), DERP, id="pong-counts"),
        pytest.param((DERP, ERROR), DERP, id="pong-counts-before-error"),
        pytest.param((NO_REPLY, PEER_RELAY), PEER_RELAY, id="late"),
    ],
)
def test_answers_come_to(answers: tuple[PingResult, ...], result: PingResult) -> None:
    """The last pong, for it is the peer's; else to what came last."""
    assert overall_result(answers) == result


def test_a_round_is_told_of_in_metrics() -> None:
    """How many peers came to what, all results there; and of each that answered how fast and which way."""
    said = metrics(
        {
            "b": (DERP, PingResult(PingOutcome.DIRECT, 0.0123456789)),
            "a": (DERP,),
            "c": (NO_REPLY,),
            "d": (ERROR,),
            "e": (),
        }
    )
    assert said == (
        Family(
            "tailscale_keepalive_peers",
            Kind.GAUGE,
            "Peers pinged in the last round, by what came of it.",
            (
                Sample({"result": "direct"}, 1),
                Sample({"result": "peer_relay"}, 0),
                Sample({"result": "derp"}, 1),
                Sample({"result": "no_reply"}, 2),
                Sample({"result": "error"}, 1),
            ),
        ),
        Family(
            "tailscale_keepalive_peer_latency_seconds",
            Kind.GAUGE,
            "Round trip of the peer's last answer in the last round, and the path that it took.",
            (
                Sample({"peer": "a", "path": "derp"}, 0.048),
                Sample({"peer": "b", "path": "direct"}, 0.012346),
            ),
        ),
    )


def test_a_round_of_nobody_is_a_round() -> None:
    """To have had nobody to ping is told of; not to have been able to ask is no round."""
    counts, latencies = metrics({})
    assert ([sample.value for sample in counts.samples], latencies.samples) == ([0] * 5, ())
    assert metrics(None) == ()
