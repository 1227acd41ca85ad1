"""A capture is read whole, in the order of its times, or refused with the line that is at fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from returns.result import Failure

from support.statuses import peer, status
from tsfc.offline import capture

FIXTURES = Path(__file__).parent.parent / "fixtures"


def _line(**fields: object) -> str:
    return json.dumps(fields)


def test_the_recorded_capture_is_read() -> None:
    observations = capture.read(str(FIXTURES / "timeline.ndjson")).unwrap()
    assert len(observations) == 30
    assert [seen.captured_at for seen in observations] == sorted(seen.captured_at for seen in observations)
    assert all(seen.fault is None and bytes(seen.status).startswith(b"{") for seen in observations)


def test_observations_come_in_the_order_of_their_times_and_equal_times_in_that_of_the_lines(box: Path) -> None:
    lines = [_line(captured_at=5, fault="a"), "", _line(captured_at=1.5, fault="b"), "  ", _line(captured_at=5, fault="c")]
    (box / "c").write_text("\n".join(lines))
    assert [(seen.captured_at, seen.fault) for seen in capture.read(str(box / "c")).unwrap()] == [(1.5, "b"), (5, "a"), (5, "c")]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("[]", id="no object"),
        pytest.param("{", id="cut"),
        pytest.param("null", id="null"),
        pytest.param(_line(captured_at=1), id="neither status nor fault"),
        pytest.param(_line(captured_at=1, fault="x", status=status()), id="both"),
        pytest.param(_line(fault="x"), id="no time"),
        pytest.param(_line(captured_at=-1, fault="x"), id="before 1970"),
        pytest.param(_line(captured_at="now", fault="x"), id="a time that is text"),
        pytest.param('{"captured_at": 1e999, "fault": "x"}', id="a time past all bounds"),
        pytest.param(_line(captured_at=1, fault=5), id="a fault that is no text"),
        pytest.param(_line(captured_at=1, fault="x", more=1), id="a field that nobody knows"),
        pytest.param(_line(captured_at=1, status=None), id="null for a status"),
        pytest.param(_line(captured_at=1, status={"Peer": {}}), id="a document that is no status"),
        pytest.param(_line(captured_at=1, status=status(peer("a", RxBytes=-1))), id="a status that cannot be read"),
        pytest.param('{"captured_at": 1, "status": ' + "[" * 100_000, id="deeply nested"),
        pytest.param('{"captured_at": 1, "fault": "\\ud800"}', id="half a surrogate"),
    ],
)
def test_a_line_that_is_no_observation_is_named(box: Path, line: str) -> None:
    path = box / "c"
    path.write_text(_line(captured_at=0, fault="x") + "\n" + line + "\n")
    read = capture.read(str(path))
    assert isinstance(read, Failure)
    assert read.failure().startswith(f"reading {path}: line 2: ")
    assert read.failure().isprintable()


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_a_capture_of_nothing_is_refused(box: Path, content: bytes) -> None:
    (box / "c").write_bytes(content)
    assert capture.read(str(box / "c")).failure() == f"reading {box}/c: it is empty; give a capture with at least one observation"


def test_bytes_that_are_no_text_are_refused(box: Path) -> None:
    (box / "c").write_bytes(b'\xff\xfe{"captured_at": 1}\n')
    assert "line 1: " in capture.read(str(box / "c")).failure()


def test_a_capture_that_cannot_be_read_is_one_line(box: Path) -> None:
    assert capture.read(str(box / "nothing")).failure() == f"reading {box}/nothing: No such file or directory; give a capture that can be read"
    assert "Is a directory" in capture.read(str(box)).failure()
