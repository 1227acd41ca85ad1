"""An observation is one line of a capture, with either a status or a fault."""

from __future__ import annotations

import pytest
from returns.result import Failure

from support.captures import START, fault, seen, text
from support.statuses import peer
from tsfc.core.clock import Boot, Instant
from tsfc.core.evaluation.observation import Observation, instant, line, parse, status_of
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
