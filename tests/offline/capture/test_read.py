"""Captures are read as a stream, whatever they are packed in, and whatever is torn of them."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from returns.result import Failure

from support.captures import START, TIMELINE, fault, seen, text
from support.statuses import peer, status
from tsfc.core.evaluation.observation import Observation
from tsfc.offline.capture.read import Broken, Skipped, in_order, observations

LINES = [text([seen(START + number, peer("a"))]).encode() for number in range(3)] + [
    text([fault(START + 3)]).encode()
]


def _plain(data: bytes) -> bytes:
    return data


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKINGS = [pytest.param(packed, id=packed.__name__) for packed in (_plain, _gzip, _zstd)]
Packing = Callable[[bytes], bytes]


def _times(path: Path) -> list[float]:
    return [
        read.captured_at - START
        for read in observations(str(path))
        if isinstance(read, Observation)
    ]


@pytest.mark.parametrize("packed", PACKINGS)
@pytest.mark.parametrize("name", ["c.ndjson", "c.ndjson.gz", "c"])
def test_a_capture_tells_by_its_content_how_it_is_packed(
    box: Path, packed: Packing, name: str
) -> None:
    """Each record for itself, as `tsfc capture` writes it, or all at once, as gzip and zstd do."""
    (box / name).write_bytes(b"".join(map(packed, LINES)))
    assert list(observations(str(box / name))) == list(
        observations(str(_written(box / "all", packed(b"".join(LINES)))))
    )
    assert _times(box / name) == [0, 1, 2, 3]


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packed", PACKINGS)
def test_a_last_record_that_is_torn_anywhere_costs_itself_alone(box: Path, packed: Packing) -> None:
    """At every byte."""
    whole, last = b"".join(map(packed, LINES[:3])), packed(LINES[3])
    for end in range(1, len(last) - (1 if packed is _plain else 0)):
        path = _written(box / "c", whole + last[:end])
        *before, torn = list(observations(str(path)))
        assert [read.captured_at - START for read in before if isinstance(read, Observation)][
            :3
        ] == [0, 1, 2], end
        assert isinstance(torn, Skipped), (
            end
        )  # of gzip the content may be whole, and its checksum torn
        assert torn.is_torn


@pytest.mark.parametrize("packed", PACKINGS)
def test_what_is_appended_behind_a_torn_record_is_read(box: Path, packed: Packing) -> None:
    """A plain one is ended by a line end by who appends; of what is packed the next member is found."""
    second = packed(LINES[1])
    for end in range(4, len(second) - 1):
        torn = second[:end] + (b"\n" if packed is _plain else b"")
        path = _written(box / "c", packed(LINES[0]) + torn + packed(LINES[2]) + packed(LINES[3]))
        assert _times(path) == [0, 2, 3], end


def test_lines_that_are_no_observation_are_skipped_and_named(box: Path) -> None:
    bad = [
        "[]",
        "{",
        "null",
        '{"captured_at": 1}',
        '{"captured_at": -1, "fault": "x"}',
        '{"captured_at": 1, "fault": "x", "more": 1}',
        '{"captured_at": 1, "status": ' + "[" * 9999,
    ]
    path = _written(
        box / "c",
        LINES[0] + "".join(f"{line}\n" for line in bad).encode() + b"\n  \n\xff\n" + LINES[1],
    )
    read = list(observations(str(path)))
    skipped = [one.detail for one in read if isinstance(one, Skipped)]
    assert _times(path) == [0, 1]
    assert len(skipped) == len(bad) + 1
    assert all(line.isprintable() for line in skipped)
    assert [line.split(":")[1] for line in skipped] == [
        f" line {number}" for number in (*range(2, 9), 11)
    ]


def test_the_order_is_that_of_the_lines(box: Path) -> None:
    """A clock may have been set back, and a run knows no better."""
    assert _times(_written(box / "c", LINES[2] + LINES[0] + LINES[2])) == [2, 0, 2]


def test_nothing_is_nothing(box: Path) -> None:
    assert list(observations(str(_written(box / "c", b"")))) == []
    assert list(observations(str(_written(box / "c", b"\n\n")))) == []


def test_what_cannot_be_opened_is_one_line(box: Path) -> None:
    (broken,) = observations(str(box / "c"))
    assert broken == Broken(
        f"reading {box}/c: No such file or directory; give a capture that can be read"
    )


def test_a_line_without_end_is_not_held(box: Path) -> None:
    """A file of 300 MB without a line end, and a line behind it."""
    with (box / "c").open("wb") as file:
        file.seek(300 * 2**20)
        file.write(b"\n" + LINES[0])
    skipped, seen_after = observations(str(box / "c"))
    assert isinstance(skipped, Skipped)
    assert "longer than 256 MiB" in skipped.detail
    assert isinstance(seen_after, Observation)


# Directories


def test_a_directory_has_times_in_its_documents_its_names_or_its_file_system(box: Path) -> None:
    document = json.dumps(status(peer("a")))
    names = {
        "1800000005.json": 5.0,
        "status-1800000004.5.json": 4.5,
        "2027-01-15T08:00:03Z.json": 3.0,
        "s_2027-01-15T08-00-02Z.json": 2.0,
        "20270115T080001Z.json": 1.0,
        "2027-01-15T09:00:06+01:00.json": 6.0,
        "2027-01-15T08:00:07.json": 7.0,
    }
    for name in names:
        (box / name).write_text(document)
    (box / "whatever.json").write_text(document)
    os.utime(box / "whatever.json", (START + 8, START + 8))
    (box / "1.json").write_text(json.dumps(seen(START + 9, peer("a"))))
    (box / "2.json").write_text(json.dumps(fault(START + 10)))
    (box / "3.json").write_text(json.dumps({"captured_at": START + 11} | status(peer("a"))))
    (box / "notes.txt").write_text("not looked at")
    (box / "torn.json").write_text(document[:50])
    assert _times(box) == [1, 2, 3, 4.5, 5, 6, 7, 8, 9, 10, 11]
    assert sum(isinstance(read, Skipped) for read in observations(str(box))) == 1


# A whole capture at once, for the stand-in


def test_in_order_is_in_the_order_of_the_times_and_equal_times_in_that_of_the_lines(
    box: Path,
) -> None:
    path = _written(box / "c", text([fault(5, "a"), fault(1.5, "b"), fault(5, "c")]).encode())
    assert [(one.captured_at, one.fault) for one in in_order(str(path), print).unwrap()] == [
        (1.5, "b"),
        (5, "a"),
        (5, "c"),
    ]
    assert len(in_order(str(TIMELINE), print).unwrap()) == 30


def test_in_order_skips_what_is_torn_and_warns(box: Path) -> None:
    warned: list[str] = []
    assert (
        len(in_order(str(_written(box / "c", LINES[0] + LINES[1][:30])), warned.append).unwrap())
        == 1
    )
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[]", "line 2: "),
        (text([{"captured_at": 1, "status": {"Peer": {}}}]), "BackendState"),
        (text([seen(1, peer("a", RxBytes=-1))]), "RxBytes"),
        (text([{"captured_at": 1, "status": None}]), "status"),
    ],
)
def test_in_order_refuses_what_cannot_be_played(box: Path, line: str, problem: str) -> None:
    read = in_order(str(_written(box / "c", LINES[0] + line.encode() + b"\n")), print)
    assert isinstance(read, Failure)
    assert read.failure().startswith(f"reading {box}/c: ")
    assert problem in read.failure()
    assert read.failure().isprintable()


def test_in_order_of_nothing_is_refused(box: Path) -> None:
    assert (
        in_order(str(_written(box / "c", b"")), print).failure()
        == f"reading {box}/c: it is empty; give a capture with at least one observation"
    )
