from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from returns.result import Failure

from support.corpus import BAD_STATUSES, documents, hostile_statuses
from tsfc.core import exporter, keepalive
from tsfc.core import native_metrics as native
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.lint import check
from tsfc.core.tailscale.ping import PingOutcome, PingResult
from tsfc.core.tailscale.status import decode

slow = settings(suppress_health_check=[HealthCheck.too_slow])


@given(documents(), st.floats(0, 1e11))
@slow
def test_no_document_is_too_bad(raw: bytes, now: float) -> None:
    """Whatever comes in place of a status: a failure is one printable line, and a status leads all the way to sound, printable metrics."""
    status = decode(raw)
    if isinstance(status, Failure):
        assert status.failure().detail.isprintable()
        assert len(status.failure().detail) < 500
        return
    text = render(exporter.metrics(status.unwrap(), now=now, last_success=None))
    assert_is_sound(text)
    for ping in keepalive.pings(status.unwrap()):
        assert ping.peer.isprintable()
        assert ping.ip
        assert set(ping.ip) <= set("0123456789abcdefABCDEF:.")


def assert_is_sound(text: str) -> None:
    assert check(text).unwrap()
    assert [line for line in text.removesuffix("\n").split("\n") if not line.isprintable()] == []


@given(hostile_statuses())
@slow
def test_no_name_is_too_bad(document: dict[str, Any]) -> None:
    """A status of the right types is always read, and all that is made of it is sound: names do not leave their labels."""
    status = decode(json.dumps(document).encode()).unwrap()
    said = exporter.metrics(status, now=1_795_438_440.0, last_success=None)
    assert_is_sound(render(said))
    pinged = keepalive.pings(status)
    assert_is_sound(
        render(
            keepalive.metrics(
                {ping.peer: (PingResult(PingOutcome.DERP, 0.048),) for ping in pinged}
            )
        )
    )
    series = next((family.samples for family in said if family.name == "tailscale_peer_info"), ())
    names = {sample.labels["peer"] for sample in series}
    assert len(names) == len(series)
    assert {ping.peer for ping in pinged} <= names


@given(documents())
@slow
def test_no_document_is_metrics_of_tailscaled(raw: bytes) -> None:
    """A status, or what is left of one, in place of metrics: refused in one printable line, or sound by chance."""
    read = native.checked(raw)
    if isinstance(read, Failure):
        assert read.failure().detail.isprintable()
    else:
        assert read.unwrap().encode().rstrip(b"\n") == raw.rstrip(b"\n")


def test_the_corpus_is_not_a_status_of_anything() -> None:
    """Every fixed case is refused: none has become sound by a change of the reader."""
    assert [
        name for name, raw in BAD_STATUSES.items() if not isinstance(decode(raw), Failure)
    ] == []
