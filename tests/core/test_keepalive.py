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
from tsfc.core.keepalive import (
    PAUSE_SECONDS,
    Exclusion,
    metrics,
    next_ping,
    overall_result,
    pings,
    unknown_names,
)
from tsfc.core.metrics.families import Family, Kind, Sample
from tsfc.core.tailscale.ping import ERROR, NO_REPLY, Ping, PingOutcome, PingResult, parse_response

DIRECT, PEER_RELAY, DERP = (
    PingResult(PingOutcome.DIRECT, 0.012),
    PingResult(PingOutcome.PEER_RELAY, 0.025),
    PingResult(PingOutcome.DERP, 0.048),
)


@pytest.mark.parametrize(
    ("node", "is_pinged"),
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
def test_only_watched_peers_with_an_ip_are_pinged(node: dict[str, Any], *, is_pinged: bool) -> None:
    """The node itself, expired peers, sharees and Mullvad's exit nodes are not."""
    assert bool(pings(decoded(node))) is is_pinged


def test_each_peer_is_pinged_at_its_first_ip_in_the_order_of_the_names() -> None:
    """The names are the unique ones that all jobs use."""
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
def test_no_peer_is_pinged_unless_the_backend_is_running(state: str) -> None:
    """The flags of its peers are stale."""
    assert pings(decoded(peer("rpi3"), BackendState=state)) == ()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"Peer": None}, id="null"),
        pytest.param({"Peer": {}}, id="empty"),
        pytest.param({"Self": {}}, id="no-self"),
    ],
)
def test_no_peer_is_pinged_before_the_first_netmap(fields: dict[str, Any]) -> None:
    """Peer may be null, and Self without IPs."""
    assert pings(decoded(**fields)) == ()


@pytest.mark.parametrize(
    ("excluded", "pinged"),
    [
        pytest.param(Exclusion(), ["nas", "phone", "tv"], id="none"),
        pytest.param(Exclusion(peers=("nas",)), ["phone", "tv"], id="peer"),
        pytest.param(Exclusion(peers=("nas", "tv")), ["phone"], id="peers"),
        pytest.param(Exclusion(peers=("na",)), ["nas", "phone", "tv"], id="part-of-a-name"),
        pytest.param(Exclusion(systems=("iOS",)), ["nas", "tv"], id="system"),
        pytest.param(Exclusion(systems=("IOS", "TVos")), ["nas"], id="systems-in-any-case"),
        pytest.param(Exclusion(systems=("OS",)), ["nas", "phone", "tv"], id="part-of-a-system"),
        pytest.param(Exclusion(("nas",), ("iOS",)), ["tv"], id="both"),
    ],
)
def test_excluded_peers_are_not_pinged(excluded: Exclusion, pinged: list[str]) -> None:
    status = decoded(peer("nas"), peer("phone", OS="iOS"), peer("tv", OS="tvOS"))
    assert [ping.peer for ping in pings(status, excluded)] == pinged


@pytest.mark.parametrize(
    ("names", "fields", "unknown"),
    [
        pytest.param((), {}, (), id="none"),
        pytest.param(("nas",), {}, (), id="known"),
        pytest.param(("nsa", "nas", "tv"), {}, ("nsa", "tv"), id="unknown"),
        pytest.param(("self",), {}, (), id="the-node-itself"),
        pytest.param(("nsa",), {"BackendState": "Stopped"}, (), id="stopped"),
    ],
)
def test_excluded_names_without_a_peer_are_unknown(
    names: tuple[str, ...], fields: dict[str, Any], unknown: tuple[str, ...]
) -> None:
    """While the backend is not running, peers may be missing."""
    assert unknown_names(decoded(peer("nas"), **fields), Exclusion(peers=names)) == unknown


@pytest.mark.parametrize(
    ("results", "seconds"),
    [
        pytest.param((), 0.0, id="first"),
        pytest.param((DIRECT,), None, id="direct"),
        pytest.param((PEER_RELAY,), PAUSE_SECONDS, id="peer-relay"),
        pytest.param((DERP,), PAUSE_SECONDS, id="derp"),
        pytest.param((NO_REPLY,), 0.0, id="no-reply"),
        pytest.param((ERROR,), None, id="error"),
        pytest.param((DERP, DIRECT), None, id="then-direct"),
        pytest.param((DERP, DERP), PAUSE_SECONDS, id="second"),
        pytest.param((DERP, NO_REPLY), 0.0, id="then-no-reply"),
        pytest.param((NO_REPLY, DERP), PAUSE_SECONDS, id="then-derp"),
        pytest.param((NO_REPLY, ERROR), None, id="then-error"),
        pytest.param((DERP, DERP, DERP), None, id="last"),
        pytest.param((NO_REPLY, NO_REPLY, NO_REPLY), None, id="last-no-reply"),
    ],
)
def test_the_next_ping_follows_a_relayed_pong_or_a_timeout(
    results: tuple[PingResult, ...], seconds: float | None
) -> None:
    """One second after a relayed pong, at once after a timeout.

    There is none after a direct pong, an error, or the last ping.
    """
    assert next_ping(results, 3) == seconds


def test_count_limits_the_pings() -> None:
    """Whatever the results; a count of 0 means no ping."""
    for count, length in itertools.product(range(4), range(5)):
        for results in itertools.product(
            (DIRECT, PEER_RELAY, DERP, NO_REPLY, ERROR), repeat=length
        ):
            assert length < count or next_ping(results, count) is None


@pytest.mark.parametrize(
    ("raw", "result"),
    [
        pytest.param(
            b'{"IP":"100.64.0.2","NodeName":"rpi3","Err":"","LatencySeconds":0.012,'
            b'"Endpoint":"192.0.2.7:41641","PeerRelay":"","DERPRegionID":0}',
            DIRECT,
            id="direct",
        ),
        pytest.param(
            b'{"Err":"","LatencySeconds":0.025,"Endpoint":"","PeerRelay":"192.0.2.9:7777:vni:1",'
            b'"DERPRegionID":0,"DERPRegionCode":""}',
            PEER_RELAY,
            id="peer-relay",
        ),
        pytest.param(
            b'{"Err":"","LatencySeconds":0.048,"Endpoint":"","PeerRelay":"",'
            b'"DERPRegionID":1,"DERPRegionCode":"fra"}',
            DERP,
            id="derp",
        ),
        pytest.param(b'{"LatencySeconds":0.048,"DERPRegionID":1}', DERP, id="before-1.86"),
        pytest.param(
            b'{"LatencySeconds":0,"Endpoint":"x","PeerRelay":"y"}',
            PingResult(PingOutcome.DIRECT, 0.0),
            id="both",
        ),
        pytest.param(
            b'{"LatencySeconds":-1,"Endpoint":"x"}',
            PingResult(PingOutcome.DIRECT, 0.0),
            id="negative",
        ),
    ],
)
def test_a_response_is_a_pong_with_its_path(raw: bytes, result: PingResult) -> None:
    """Endpoint means direct, else PeerRelay; a latency is never negative."""
    assert parse_response(raw).unwrap() == result


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
def test_an_error_or_an_invalid_response_is_one_line(raw: bytes, problem: str) -> None:
    detail = parse_response(raw).failure().detail
    assert problem in detail
    assert detail.isprintable()


@given(
    st.binary()
    | json_values().map(lambda document: json.dumps(document).encode())
    | damaged(
        b'{"IP":"100.64.0.2","Err":"","LatencySeconds":0.012,'
        b'"Endpoint":"192.0.2.7:41641","DERPRegionID":0}'
    )
)
def test_any_response_is_a_result_or_a_one_line_error(raw: bytes) -> None:
    response = parse_response(raw)
    if isinstance(response, Failure):
        assert response.failure().detail.isprintable()
    else:
        assert (response.unwrap().latency_seconds or 0) >= 0


@pytest.mark.parametrize(
    ("results", "overall"),
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
def test_the_last_pong_counts_else_the_last_result(
    results: tuple[PingResult, ...], overall: PingResult
) -> None:
    assert overall_result(results) == overall


def test_a_round_counts_peers_by_result_and_has_latencies_by_peer() -> None:
    """Every result has a sample; only peers that replied have a latency."""
    assert metrics(
        {
            "b": (DERP, PingResult(PingOutcome.DIRECT, 0.0123456789)),
            "a": (DERP,),
            "c": (NO_REPLY,),
            "d": (ERROR,),
            "e": (),
        },
        ("nsa", "vt"),
    ) == (
        Family(
            "tailscale_keepalive_peers",
            Kind.GAUGE,
            "Number of peers pinged in the last round, by result.",
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
            "Round-trip time of the peer's last pong in the last round, in seconds, by its path.",
            (
                Sample({"peer": "a", "path": "derp"}, 0.048),
                Sample({"peer": "b", "path": "direct"}, 0.012346),
            ),
        ),
        Family(
            "tailscale_keepalive_unmatched_exclusions",
            Kind.GAUGE,
            "Names given by --exclude-peer that no peer has.",
            (Sample({}, 2),),
        ),
    )


def test_a_round_without_peers_has_zero_counts() -> None:
    """Without a status there was no round, and there are no metrics."""
    counts, latencies, unmatched = metrics({})
    assert ([sample.value for sample in counts.samples], latencies.samples) == ([0] * 5, ())
    assert unmatched.samples == (Sample({}, 0),)
    assert metrics(None) == ()
