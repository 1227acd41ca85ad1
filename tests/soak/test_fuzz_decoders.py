"""Damaged input from tailscaled and captures: one line, or valid output, never more.

The input is what real nodes and the tests' authors wrote, with random changes. Each run
makes other ones; Hypothesis prints how to repeat a failure.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from returns.result import Failure, Result, Success

from support.corpus import FIXTURES
from support.servers import DERP_PONG, DIRECT_PONG, PEER_RELAY_PONG, http
from tsfc.core import exporter, keepalive
from tsfc.core import native_metrics as native
from tsfc.core.clock import Instant
from tsfc.core.evaluation import observation
from tsfc.core.faults import Fault, Unusable
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.lint import check
from tsfc.core.tailscale import ping
from tsfc.core.tailscale.ping_cli import parse_output
from tsfc.core.tailscale.status import Status, decode
from tsfc.core.watchdog import snapshot, state
from tsfc.core.watchdog.effects import Apply, Effect, Log, Warn
from tsfc.core.watchdog.events import Asking, Observed, Performed
from tsfc.core.watchdog.metrics import metrics
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.remedy import Done
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.snapshot import Snapshot
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import step
from tsfc.shell.tailscaled.response import Response

soak = settings(
    max_examples=int(os.environ.get("TSFC_SOAK_EXAMPLES", "2000")),
    derandomize=False,
    print_blob=True,
)

NOW = 1_795_438_440
FIELD = FIXTURES / "field"


def _contents(*paths: Path) -> list[bytes]:
    assert paths
    return [path.read_bytes() for path in sorted(paths)]


STATUSES = _contents(*FIXTURES.glob("*.json"), *FIELD.glob("*.json"))
METRICS = _contents(FIXTURES / "usermetrics.txt", *FIELD.glob("metrics-*.txt"))
PINGS = _contents(*FIELD.glob("ping-*.txt"))
CAPTURES = [
    line
    for path in sorted(FIELD.glob("*.ndjson.gz"))
    for line in gzip.decompress(path.read_bytes()).splitlines()[:5]
]
PONGS = [DIRECT_PONG, DERP_PONG, PEER_RELAY_PONG]
RESPONSES = [
    *PONGS,
    http(b"no such peer", "400 Bad Request"),
    http(b"", "204 No Content"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + http(b"{}"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n2;a=b\r\n  \r\n0\r\nA: b\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n{}",
]

TOKENS = st.sampled_from(
    (
        *(b"null", b"true", b"[]", b"{}", b"0", b"-1", b"1e999", b"1e-999", b"NaN", b"9" * 400),
        *(
            b'""',
            b'"',
            b"\\",
            b'"\\ud800"',
            b'"\\u0000"',
            b'"\\u202e"',
            b"\xff",
            b"\0",
            b"\x1b[31m",
        ),
        *(b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"#", b"{", b"}", b"[", b"]", b",", b":", b"="),
        *(
            b"-1\r\n",
            b"ffffffffffffffff",
            b"Content-Length: 7\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ),
        *(b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:59-23:59", b"+Inf", b"# TYPE a counter\n"),
    )
)
VALUES: SearchStrategy[Any] = st.recursive(
    st.sampled_from(
        (
            *(None, True, False, 0, -1, 1.5, 2**53, 2**63, 2**64, 10**40, 1e308, -1e308),
            *("", " ", ".", "..", "a\nb", "\x1b[31m", "\u202e", "\0", "é" * 200, "x" * 5000),
            *("Running", "Stopped", "100.64.0.2", "fd7a::1", "a.tail1.ts.net.", "derp-1", "js"),
            *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2026-02-30T00:00:00Z"),
            *("2026-11-23T12:54:00-24:00", "1969-12-31T23:59:59Z", "192.0.2.7:41641"),
        )
    )
    | st.text(max_size=10)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def damaged(draw: DrawFn, originals: list[bytes]) -> bytes:
    """Draw an original with a few bytes cut, repeated, replaced or inserted."""
    data = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(1, 5))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 40)))
        with_what = draw(
            TOKENS | st.binary(max_size=8) | st.just(data[begin:end] * 2) | st.just(b"")
        )
        data = data[:begin] + with_what + data[end:]
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each value of a JSON document as its container and its key in that."""
    keys: list[Any] = []
    if isinstance(node, dict):
        keys = list(cast("dict[str, Any]", node))
    if isinstance(node, list):
        keys = list(range(len(cast("Sequence[Any]", node))))
    for key in keys:
        yield node, key
        yield from _places(node[key])


@st.composite
def changed(draw: DrawFn, originals: list[bytes]) -> bytes:
    """Draw a JSON document with a few values replaced, removed or renamed."""
    document = json.loads(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 5))):
        places: list[tuple[Any, Any]] = [*_places(document), ([None], 0)]
        container, key = draw(st.sampled_from(places))
        match draw(st.integers(0, 5)):
            case 0:
                del container[key]
            case 1 if isinstance(key, str):
                container[draw(st.text(max_size=8))] = container.pop(key)
            case _:
                container[key] = draw(VALUES)
    return json.dumps(document, ensure_ascii=False).encode(errors="replace")


def assert_valid(text: str) -> None:
    checked = check(text)
    assert isinstance(checked, Success), checked
    assert [line for line in text.removesuffix("\n").split("\n") if not line.isprintable()] == []


def assert_line(line: str) -> None:
    """Check that an error is one printable line of a reasonable length."""
    assert line
    assert line.isprintable()
    assert len(line) < 5000


def _through_exporter_and_keepalive(status: Status) -> None:
    assert_valid(render(exporter.metrics(status, now=NOW, last_success=NOW - 30)))
    pings = keepalive.pings(status)
    for one in pings:
        assert one.peer.isprintable()
        assert set(one.ip) <= set("0123456789abcdefABCDEF:.")
    assert_valid(render(keepalive.metrics({one.peer: (ping.NO_REPLY,) for one in pings})))


def _lines(effects: tuple[Effect, ...]) -> list[str]:
    return [effect.line for effect in effects if isinstance(effect, Log | Warn)]


def _through_watchdog(before: State, observed: Observed, instant: Instant) -> State:
    """Decide as a run does, with a restart that succeeds; return the state after it."""
    policy = ThresholdPolicy(excluded=frozenset({"rpi3", "100.64.0.2", "\u202e"}))
    decided = step(before, observed, now=instant, policy=policy)
    after, attempt = decided.state, None
    for effect in decided.effects:
        if isinstance(effect, Apply):
            attempt = effect.attempt
            after = step(after, Asking(attempt), now=instant, policy=policy).state
            after = step(after, Performed(attempt, Done()), now=instant, policy=policy).state
    for line in _lines(decided.effects):
        assert_line(line)
    run = Run(
        instant,
        after,
        is_after_break=decided.is_after_break,
        unmatched=decided.unmatched,
        verdicts=decided.verdicts,
        attempt=attempt,
    )
    assert_valid(render(metrics(run, policy)))
    kept = snapshot.encode(Snapshot(instant, policy, after))
    assert snapshot.decode(kept.encode()).unwrap().state == after
    assert state.decode(state.encode(after)) == Success(after)
    assert after.restarts >= before.restarts
    assert after.detections >= before.detections
    assert after.recoveries >= before.recoveries
    return after


@soak
@given(damaged(STATUSES) | changed(STATUSES), damaged(STATUSES) | changed(STATUSES))
def test_a_damaged_status_is_one_line_or_leads_to_valid_output(first: bytes, later: bytes) -> None:
    """Two statuses ten minutes apart, so that there is a state to go on from."""
    before = State()
    for at, raw in ((NOW, first), (NOW + 60, first), (NOW + 700, first), (NOW + 760, later)):
        status = decode(raw)
        if isinstance(status, Failure):
            assert_line(status.failure().detail)
            continue
        _through_exporter_and_keepalive(status.unwrap())
        observed = Observed(status.unwrap(), NOW - 10_000)
        before = _through_watchdog(before, observed, Instant(at))


@soak
@given(damaged(METRICS))
def test_damaged_metrics_are_one_line_or_valid(raw: bytes) -> None:
    for labels in ({}, {"net": 'a"\\b ü'}):
        checked = native.validated(raw, labels=labels)
        if isinstance(checked, Failure):
            assert_line(checked.failure().detail)
        else:
            text = checked.unwrap() + render([native.up(is_up=True)])
            assert isinstance(check(text), Success)


@soak
@given(damaged(PINGS))
def test_damaged_output_of_tailscale_ping_leads_to_valid_metrics(raw: bytes) -> None:
    results = parse_output(raw.decode(errors="replace"))
    assert results
    assert_valid(render(keepalive.metrics({"rpi3": results})))


@soak
@given(damaged([pong.partition(b"\r\n\r\n")[2] for pong in PONGS]))
def test_a_damaged_pong_is_one_line_or_leads_to_valid_metrics(raw: bytes) -> None:
    result = ping.parse_response(raw)
    if isinstance(result, Failure):
        assert_line(result.failure().detail)
    else:
        assert_valid(render(keepalive.metrics({"rpi3": (result.unwrap(),)})))


def _body(raw: bytes) -> Result[bytes, Fault]:
    response = Response()
    for piece in (raw[:20], raw[20:], b""):
        if not response.is_done:
            response.feed(piece)
    return response.result("asking")


@soak
@given(damaged(RESPONSES))
def test_a_damaged_http_response_is_one_line_or_a_body(raw: bytes) -> None:
    body = _body(raw)
    if isinstance(body, Failure):
        assert_line(body.failure().detail)


@soak
@given(damaged(CAPTURES) | changed(CAPTURES))
def test_a_damaged_line_of_a_capture_is_one_line_or_an_observation(raw: bytes) -> None:
    parsed = observation.parse(raw)
    if isinstance(parsed, Failure):
        assert_line(parsed.failure())
        return
    again = observation.parse(observation.line(parsed.unwrap()))
    assert isinstance(again, Success)
    status = observation.status_of(parsed.unwrap())
    if isinstance(status, Failure):
        fault = status.failure()
        assert not fault.detail or fault.detail.isprintable()
        return
    _through_exporter_and_keepalive(status.unwrap())
    observed = Observed(status.unwrap(), parsed.unwrap().tailscaled_start)
    _through_watchdog(State(), observed, observation.instant(parsed.unwrap()))


def test_the_originals_are_accepted() -> None:
    """Damage to what is refused anyway would test little."""
    decoded = [isinstance(decode(raw), Success) for raw in STATUSES]
    assert sum(decoded) > len(decoded) * 2 // 3
    assert sum(isinstance(native.validated(raw), Success) for raw in METRICS) > 2
    assert all(isinstance(observation.parse(line), Success) for line in CAPTURES)
    assert all(not isinstance(_body(raw).value_or(None), Unusable) for raw in PONGS)
