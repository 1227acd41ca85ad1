"""An observation is one line of a capture, with either a status or a fault."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.result import Failure

from support.captures import FIXTURES, START, fault, hectic, seen, text
from support.corpus import BAD_STATUSES, hostile_statuses
from support.statuses import peer
from tsfc.core.clock import Boot, Instant
from tsfc.core.evaluation.observation import (
    Decoded,
    Observation,
    instant,
    line,
    parse,
    parse_whole,
    status_of,
)
from tsfc.core.faults import Down


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(seen(START, peer("nas", "derp")), id="status"),
        pytest.param(seen(START) | {"boot": {"id": "b", "seconds": 5}}, id="boot-clock"),
        pytest.param(fault(START), id="fault"),
    ],
)
def test_an_encoded_observation_is_parsed_to_itself(fields: dict[str, object]) -> None:
    observation = parse(text([fields]).encode()).unwrap()
    encoded = line(observation)
    assert encoded.count(b"\n") == 1
    assert line(parse(encoded).unwrap()) == encoded
    assert status_of(parse(encoded).unwrap()) == status_of(observation)


def test_white_space_in_a_status_is_dropped() -> None:
    parsed = parse(b'{"captured_at": 1, "status": {\n "Peer" : null } }').unwrap()
    assert line(parsed) == b'{"captured_at":1.0,"status":{"Peer":null}}\n'


@pytest.mark.parametrize(
    ("encoded", "error"),
    [
        pytest.param(b"garbage", 'it is not JSON, but: "garbage"', id="not-json"),
        pytest.param(b"\xff", "it is not JSON, but", id="not-utf-8"),
        pytest.param(
            b'{"captured_at":1,"status":' + b"[" * 9999, "recursion", id="too-deeply-nested"
        ),
        pytest.param(b"\xef\xbb\xbf", "it is empty", id="empty"),
        pytest.param(
            b'{"Version":"1.102.3","BackendState":"Running"}',
            "it is a status without `captured_at`",
            id="bare status",
        ),
        pytest.param(b'{"fault":"x"}', "missing required field `captured_at`", id="no time"),
        pytest.param(b'{"captured_at":1}', "either a status or a fault", id="neither"),
        pytest.param(
            b'{"captured_at":1,"status":{},"fault":"x"}', "either a status or a fault", id="both"
        ),
        pytest.param(b'{"captured_at":-1,"fault":"x"}', ">= 0", id="before-1970"),
        pytest.param(
            b'{"captured_at":1,"fault":"x","more":1}', "unknown field", id="unknown-field"
        ),
    ],
)
def test_a_line_that_is_not_an_observation_is_an_error(encoded: bytes, error: str) -> None:
    parsed = parse(encoded)
    assert isinstance(parsed, Failure)
    assert error in parsed.failure()


def test_a_fault_is_a_tailscaled_that_is_down() -> None:
    assert status_of(Observation(START, fault="why")) == Failure(Down("why"))


def test_the_fault_of_a_foreign_capture_is_one_printable_line() -> None:
    """It is printed by a replay, and a capture may come from anybody."""
    observation = Observation(START, fault="a\n2027-01-15T08:00:00Z b\x1b[31m\u202e")
    assert status_of(observation) == Failure(Down("a 2027-01-15T08:00:00Z b�[31m�"))


def test_the_time_of_an_observation_is_in_whole_seconds() -> None:
    assert instant(Observation(START + 0.9, fault="x")) == Instant(START)
    assert instant(Observation(START, Boot("b", 7), fault="x")) == Instant(START, Boot("b", 7))


def _lines() -> list[bytes]:
    """Return lines of captures from real nodes, of made-up ones, and damaged ones."""
    of_nodes = [
        line
        for path in sorted(FIXTURES.glob("field/*.ndjson.gz"))
        for line in gzip.decompress(path.read_bytes()).splitlines()[:20]
    ]
    of_fixtures = [
        b'{"captured_at":1,"status":' + path.read_bytes() + b"}"
        for path in sorted(FIXTURES.glob("**/*.json"))
    ]
    bad = [b'{"captured_at":1,"status":' + status + b"}" for status in BAD_STATUSES.values()]
    hectics = [text([one]).encode() for seed in range(5) for one in hectic(seed)]
    assert of_nodes
    return [*of_nodes, *of_fixtures, *bad, *hectics]


LINES = _lines()
TOKENS = (
    *(b"", b"null", b"true", b"0", b"-1", b"1e999", b'""', b"[]", b"{}", b"}", b",", b"\xff"),
    *(b'"0000-01-01T00:00:00Z"', b'"fault":"x",', b'"fault":null,', b'"status":null,'),
    *(b'"status":{"BackendState":"Running"},', b'"captured_at":2,', b'"more":1,', b"[" * 2000),
)


def assert_same_in_one_pass(line: bytes) -> None:
    """Assert that the status is the same, whether or not it is decoded with the rest."""
    whole, plain = parse_whole(line), parse(line)
    if isinstance(plain, Failure):
        assert whole == plain
        return
    one, other = whole.unwrap(), plain.unwrap()
    assert status_of(one) == status_of(other)
    for name in ("captured_at", "boot", "tailscaled_start", "fault"):
        assert getattr(one, name) == getattr(other, name)


def test_one_pass_decodes_each_line_as_two_do() -> None:
    for encoded in LINES:
        assert_same_in_one_pass(encoded)
        assert_same_in_one_pass(b"\xef\xbb\xbf" + encoded)


@given(hostile_statuses(), st.sampled_from(TOKENS))
def test_one_pass_decodes_hostile_statuses_as_two_do(document: dict[str, Any], more: bytes) -> None:
    encoded = json.dumps(document).encode()
    assert_same_in_one_pass(b'{"captured_at":1,' + more + b'"status":' + encoded + b"}")
    assert_same_in_one_pass(b'{"captured_at":1,"status":' + encoded + b"," + more + b'"boot":null}')


@given(st.data())
def test_one_pass_decodes_damaged_lines_as_two_do(data: st.DataObject) -> None:
    encoded = data.draw(st.sampled_from(LINES))
    # Damage a value, or any place.
    places = [found.end() for found in re.finditer(rb"[:,{]", encoded)] or [0]
    begin = data.draw(st.sampled_from(places) | st.integers(0, len(encoded)))
    value = re.compile(rb'"[^"]*"|[^,}]*').match(encoded, begin)
    end = data.draw(st.sampled_from((begin, len(encoded), value.end() if value else begin)))
    assert_same_in_one_pass(encoded[:begin] + data.draw(st.sampled_from(TOKENS)) + encoded[end:])


def test_one_pass_keeps_no_json() -> None:
    parsed = parse_whole(text([seen(START, peer("nas"))]).encode()).unwrap()
    assert isinstance(parsed, Decoded)
    assert bytes(parsed.status) == b""
