"""Defects of the earlier shell scripts, one test each."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from prometheus_client.parser import text_string_to_metric_families

from support.corpus import NAMES_FROM_HELL
from support.statuses import decoded, encoded, peer
from tsfc.core.exporter import metrics, parse_last_success
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.lint import check
from tsfc.core.tailscale.status import Status, decode

NOW = 1_795_438_440.0


def exported(status: Status | None, *, now: float = NOW, last_success: float | None = None) -> str:
    return render(metrics(status, now=now, last_success=last_success))


def test_defect_two_peers_in_one_series() -> None:
    """Peers with the same name shared one series and the last one won."""
    twins = [peer("localhost", DNSName="", ID=f"n{number}", RxBytes=number) for number in range(24)]
    metrics = list(text_string_to_metric_families(exported(decoded(*twins))))
    series = Counter(
        (sample.name, frozenset(sample.labels.items()))
        for metric in metrics
        for sample in metric.samples
    )
    assert set(series.values()) == {1}
    received = {
        sample.labels["peer"]: sample.value
        for metric in metrics
        for sample in metric.samples
        if sample.name == "tailscale_peer_rx_bytes_total"
    }
    assert received == {f"localhost#n{number}": number for number in range(24)}


def test_defect_raw_label_values() -> None:
    """A quote, backslash or newline in one name made the whole file unparsable."""
    hostile = [
        peer("rpi3", DNSName="", HostName=name, OS=name, ID=f"n{number}")
        for number, name in enumerate(NAMES_FROM_HELL.values())
    ]
    text = exported(decoded(peer("rpi3"), *hostile))
    assert check(text).unwrap()
    assert 'tailscale_peer_online{peer="rpi3"} 1.0\n' in text
    assert text.count("\ntailscale_peer_info{") == len(hostile) + 1
    assert text.count("\ntailscale_up ") == text.startswith("tailscale_up ") + text.count(
        "# TYPE tailscale_up gauge"
    )


def test_defect_negative_ages() -> None:
    """A slow clock made ages negative, and Go's zero time made them 2000 years.

    Now the age is 0, or absent.
    """
    ahead, never = (
        peer("ahead", LastHandshake="2026-11-23T13:54:00Z"),
        peer("never", LastHandshake="0001-01-01T00:00:00Z"),
    )
    text = exported(decoded(ahead, never))
    assert [
        line for line in text.splitlines() if line.startswith("tailscale_peer_last_handshake")
    ] == ['tailscale_peer_last_handshake_seconds_ago{peer="ahead"} 0.0']


def test_defect_scattered_samples() -> None:
    """Samples were written peer by peer; the format wants one block per metric."""
    text = exported(decoded(*(peer(f"node{number}") for number in range(5))))
    names = [
        line.partition(" ")[0].partition("{")[0]
        for line in text.splitlines()
        if not line.startswith("#")
    ]
    assert set(Counter(name for name, _ in groupby(names)).values()) == {1}


def test_defect_a_stopped_daemon_looks_alive() -> None:
    """The file looked fresh although nothing was observed.

    Now `tailscale_up` is 0, there are no peers, and the last success does not advance.
    """
    alive = exported(decoded(peer("rpi3")), now=NOW)
    dead = exported(None, now=NOW + 3600, last_success=parse_last_success(alive))
    assert 'peer="rpi3"' in alive
    assert "peer=" not in dead
    assert "\ntailscale_up 0.0\n" in dead
    assert parse_last_success(dead) == NOW


def test_defect_a_truncated_status() -> None:
    """Half a document became half a file; now it is a one-line error."""
    whole = encoded(peer("rpi3"), peer("rpi4"))
    failures = [decode(whole[:length]).failure().detail for length in range(len(whole))]
    assert all(detail.isprintable() for detail in failures)
