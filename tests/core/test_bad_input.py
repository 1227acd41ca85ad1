from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure

from support.corpus import BAD_STATUSES, documents, hostile_statuses, names
from support.statuses import SUFFIX, peer
from tsfc.core import exporter, keepalive
from tsfc.core import native_metrics as native
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.lint import check
from tsfc.core.tailscale.ping import PingOutcome, PingResult
from tsfc.core.tailscale.status import decode

NOW = 1_795_438_440.0


def assert_is_valid(text: str) -> None:
    assert check(text).unwrap()
    assert [line for line in text.removesuffix("\n").split("\n") if not line.isprintable()] == []


@given(documents(), st.floats(0, 1e11))
def test_any_document_is_a_one_line_error_or_leads_to_valid_metrics(raw: bytes, now: float) -> None:
    status = decode(raw)
    if isinstance(status, Failure):
        assert status.failure().detail.isprintable()
        assert len(status.failure().detail) < 500
        return
    assert_is_valid(render(exporter.metrics(status.unwrap(), now=now, last_success=None)))
    for ping in keepalive.pings(status.unwrap()):
        assert ping.peer.isprintable()
        assert ping.ip
        assert set(ping.ip) <= set("0123456789abcdefABCDEF:.")


@given(hostile_statuses())
def test_a_hostile_status_leads_to_valid_metrics(document: dict[str, Any]) -> None:
    """Any status of the right types decodes, and each peer has its own series."""
    status = decode(json.dumps(document).encode()).unwrap()
    families = exporter.metrics(status, now=NOW, last_success=None)
    assert_is_valid(render(families))
    info = next((family.samples for family in families if family.name == "tailscale_peer_info"), ())
    peer_names = {sample.labels["peer"] for sample in info}
    assert len(peer_names) == len(info)
    assert {ping.peer for ping in keepalive.pings(status)} <= peer_names


@given(hostile_statuses(), names())
def test_a_round_over_hostile_peers_leads_to_valid_metrics(
    document: dict[str, Any], name: str
) -> None:
    """Few drawn statuses have a peer that can be pinged, so one is added."""
    pingable = peer("rpi3", "derp", HostName=name, DNSName=f"{name}.{SUFFIX}.")
    document |= {
        "BackendState": "Running",
        "Peer": document["Peer"] | {"nodekey:pingable": pingable},
    }
    pings = keepalive.pings(decode(json.dumps(document).encode()).unwrap())
    assert pings
    result = PingResult(PingOutcome.DERP, 0.048)
    text = render(keepalive.metrics({ping.peer: (result,) for ping in pings}))
    assert_is_valid(text)
    assert text.count("\ntailscale_keepalive_peer_latency_seconds{") == len(pings)


@given(documents())
def test_a_status_in_place_of_metrics_is_rejected_or_valid_by_chance(raw: bytes) -> None:
    """A rejection is one printable line."""
    result = native.validated(raw)
    if isinstance(result, Failure):
        assert result.failure().detail.isprintable()
    else:
        assert result.unwrap().encode().rstrip(b"\n") == raw.rstrip(b"\n")


def test_every_bad_status_of_the_corpus_is_rejected() -> None:
    assert [
        name for name, raw in BAD_STATUSES.items() if not isinstance(decode(raw), Failure)
    ] == []
