"""Captures are read as a stream, with any compression, and past damaged records."""

from __future__ import annotations

import codecs
import gzip
import json
import os
import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from returns.result import Failure

from support import irregular
from support.captures import START, TIMELINE, fault, seen, text
from support.processes import error_lines, run
from support.statuses import peer, status
from tsfc.core.evaluation.observation import Observation, parse, status_of
from tsfc.offline.capture.lines import LINE_LIMIT
from tsfc.offline.capture.read import Broken, Note, Skipped, in_order, observations

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
def test_the_compression_is_detected_by_the_content(box: Path, packed: Packing, name: str) -> None:
    """Each record is compressed separately, as by `tsfc capture`, or all together."""
    (box / name).write_bytes(b"".join(map(packed, LINES)))
    assert list(observations(str(box / name))) == list(
        observations(str(_written(box / "all", packed(b"".join(LINES)))))
    )
    assert _times(box / name) == [0, 1, 2, 3]


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packed", PACKINGS)
def test_a_torn_last_record_is_the_only_one_lost(box: Path, packed: Packing) -> None:
    """The record ends after any of its bytes."""
    whole, last = b"".join(map(packed, LINES[:3])), packed(LINES[3])
    for end in range(1, len(last) - (1 if packed is _plain else 0)):
        path = _written(box / "c", whole + last[:end])
        *before, torn = list(observations(str(path)))
        assert [read.captured_at - START for read in before if isinstance(read, Observation)][
            :3
        ] == [0, 1, 2], end
        # With gzip, the content may be whole and only the checksum torn.
        assert isinstance(torn, Skipped), end
        assert torn.is_torn


@pytest.mark.parametrize("packed", PACKINGS)
def test_records_after_a_torn_one_are_read(box: Path, packed: Packing) -> None:
    """`tsfc capture` ends a plain torn record; otherwise the next member is found."""
    second = packed(LINES[1])
    for end in range(4, len(second) - 1):
        torn = second[:end] + (b"\n" if packed is _plain else b"")
        path = _written(box / "c", packed(LINES[0]) + torn + packed(LINES[2]) + packed(LINES[3]))
        # With gzip, the content may be whole and only the checksum torn.
        times = [at for at in _times(path) if packed is not _gzip or at != 1]
        assert times == [0, 2, 3], end


@pytest.mark.parametrize("has_line_feed", [True, False])
def test_a_record_on_the_line_of_a_torn_one_is_read(box: Path, has_line_feed: bool) -> None:  # noqa: FBT001
    """Another program has appended it: `tsfc capture` begins a new line."""
    first, second = LINES[1].removesuffix(b"\n"), LINES[2]
    after = second if has_line_feed else second.removesuffix(b"\n")
    for end in range(1, len(first)):
        path = _written(box / "c", LINES[0] + first[:end] + after)
        torn = Skipped(f"reading {path}: line 2: torn, as after a crash; skipped", is_torn=True)
        read = [one if isinstance(one, Skipped) else one.captured_at for one in _read(path)]
        assert read == [START, torn, START + 2], end
    assert _times(_written(box / "c", first + after)) == [1, 2]
    cut = _read(_written(box / "c", first + second[:-5]))
    assert [isinstance(one, Observation) for one in cut] == [True, False]


def _read(path: Path) -> list[Observation | Skipped]:
    """Return what was read, which does not end early."""
    read = list(observations(str(path)))
    return [one for one in read if isinstance(one, Observation | Skipped)]


def test_a_large_torn_record_does_not_swallow_the_next_one(box: Path) -> None:
    """The codes of gzip can synchronize, so that only the checksum at the end is wrong."""
    second, third = (
        _gzip(text([{"captured_at": number, "fault": _random_text(700_000, number)}]).encode())
        for number in (5, 6)
    )
    torn = next(
        second[:end]
        for end in range(1000, len(second), 500)
        if _is_valid_gzip(second[:end] + third[:-100])
    )
    assert _times(_written(box / "c", _gzip(LINES[0]) + torn + third)) == [0, 6 - START]


def _is_valid_gzip(data: bytes) -> bool:
    """Whether the data is the beginning of one member, whatever its checksum is."""
    try:
        return zlib.decompressobj(wbits=31).decompress(data) != b""
    except zlib.error:
        return False


def _random_text(length: int, seed: int) -> str:
    letters = [chr(code) for code in range(35, 126) if chr(code) != "\\"]
    return "".join(random.Random(seed).choices(letters, k=length))  # noqa: S311 - no secret


def test_invalid_lines_are_skipped_with_their_number(box: Path) -> None:
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


MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}


@pytest.mark.parametrize("encoding", MARKS)
@pytest.mark.parametrize("packed", PACKINGS)
def test_captures_that_powershell_has_written_are_read(
    box: Path, packed: Packing, encoding: str
) -> None:
    """Longer than any piece that is read at once."""
    lines = [text([seen(START + number, peer("é😀"))]) for number in range(1000)]
    encoded = MARKS[encoding] + "".join(lines).replace("\n", "\r\n").encode(encoding)
    assert list(observations(str(_written(box / "c", packed(encoded))))) == list(
        observations(str(_written(box / "d", "".join(lines).encode())))
    )


def test_the_mark_of_a_capture_that_was_appended_is_dropped(box: Path) -> None:
    first, second = (codecs.BOM_UTF8 + line for line in LINES[:2])
    assert _times(_written(box / "c", first + second)) == [0, 1]


def test_a_status_in_a_capture_has_no_time(box: Path) -> None:
    """Many people append the output of `tailscale status --json` to a file."""
    (skipped,) = observations(str(_written(box / "c", json.dumps(status()).encode() + b"\n")))
    assert skipped == Skipped(
        f"reading {box}/c: line 1: it is a status without `captured_at`; "
        'expected {"captured_at": UNIX_SECONDS, "status": {…}}; skipped'
    )


def test_observations_keep_the_order_of_the_lines(box: Path) -> None:
    """The clock may have been set back; the watchdog sees that order, too."""
    assert _times(_written(box / "c", LINES[2] + LINES[0] + LINES[2])) == [2, 0, 2]


@pytest.mark.parametrize("content", [b"", b"\n \n", _gzip(b""), _zstd(b"\n")])
def test_an_empty_capture_is_one_error(box: Path, content: bytes) -> None:
    broken = Broken(f"reading {box}/c: it is empty; give a capture of `tsfc capture`")
    assert list(observations(str(_written(box / "c", content)))) == [broken]


def test_an_unreadable_capture_is_one_error(box: Path) -> None:
    (broken,) = observations(str(box / "c"))
    assert broken == Broken(f"reading {box}/c: No such file or directory; give a readable capture")


def test_a_line_that_is_too_long_is_skipped(box: Path) -> None:
    """300 MiB without a line feed, and a valid line after it."""
    with (box / "c").open("wb") as file:
        file.seek(300 * 2**20)
        file.write(b"\n" + LINES[0])
    skipped, observation = observations(str(box / "c"))
    assert isinstance(skipped, Skipped)
    assert "longer than 256 MiB" in skipped.detail
    assert isinstance(observation, Observation)


def test_a_line_that_is_too_long_is_skipped_at_the_end_too(box: Path) -> None:
    path = _written(box / "c", _zstd(LINES[0] + b"x" * (LINE_LIMIT + 1)))
    observation, skipped = observations(str(path))
    assert isinstance(observation, Observation)
    assert isinstance(skipped, Skipped)
    assert skipped.detail.endswith("line 2: longer than 256 MiB; skipped")


@pytest.mark.parametrize("packed", PACKINGS)
def test_blank_lines_are_counted_and_skipped(box: Path, packed: Packing) -> None:
    """Their runs are longer than any piece that is read at once."""
    blank = b" \n\t\r\n" * 2**19
    path = _written(box / "c", packed(blank + b"\r " + LINES[0] + blank + b"{}\n" + LINES[1]))
    first, skipped, second = observations(str(path))
    assert isinstance(first, Observation)
    assert isinstance(second, Observation)
    assert isinstance(skipped, Skipped)
    assert f" line {2**21 + 2}: " in skipped.detail


def test_a_record_inside_a_damaged_one_is_found(box: Path) -> None:
    """A torn member takes its checksum from the next one, at any distance to a piece."""
    second = _gzip(LINES[1])[:-4]
    for filling in range(1000, 1040):
        first = _gzip(LINES[0] + random.Random(filling).randbytes(filling).hex().encode())  # noqa: S311 - no secret
        path = _written(box / "c", first + second + _gzip(LINES[2]))
        assert 2 in _times(path), filling


# What is no capture ends the reading, whatever its size

SPACES, FEEDS, ZEROS, GARBAGE = b" " * 2**24, b"\n" * 2**24, b"\0" * 2**24, b"{}\n" * 2**22


def _zstd_bomb(content: bytes) -> bytes:
    """Return one frame of 64 times the content."""
    packer = zstandard.ZstdCompressor().compressobj()
    return b"".join(packer.compress(content) for _ in range(64)) + packer.flush()


def _gzip_bomb(content: bytes) -> bytes:
    """Return one member of 64 times the content, torn at its end."""
    packer = zlib.compressobj(wbits=-15)
    part = packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + part * 64


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bomb", "content", "limit"),
    [
        pytest.param(_zstd_bomb, SPACES, "512 MiB", id="zstd of spaces"),
        pytest.param(_zstd_bomb, ZEROS, "512 MiB", id="zstd of one line"),
        pytest.param(_zstd_bomb, GARBAGE, "100000 lines", id="zstd of short lines"),
        pytest.param(_gzip_bomb, FEEDS, "512 MiB", id="gzip of line feeds"),
    ],
)
def test_a_decompression_bomb_is_one_error_in_bounded_memory(
    box: Path, bomb: Packing, content: bytes, limit: str
) -> None:
    path = _written(box / "c", bomb(content))
    assert path.stat().st_size < 2**22
    ran = run("replay", str(path), around='exec /usr/bin/prlimit --data=700000000 "$@"')
    assert ran.status == 1
    errors = error_lines("replay", ran)
    assert len(errors) == (22 if content is GARBAGE else 1)
    error = f"reading {path}: no observation in {limit}; give a capture of `tsfc capture`"
    assert error in errors


def test_a_device_that_never_ends_is_one_error(box: Path) -> None:
    (box / "c").symlink_to("/dev/zero")
    (broken,) = observations(str(box / "c"))
    assert isinstance(broken, Broken)
    assert "no observation in 512 MiB" in broken.detail


# Directories


def test_times_of_a_directory_are_from_documents_names_or_mtimes(box: Path) -> None:
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
    (box / "notes.txt").write_text("ignored")
    (box / "._1.json").write_text("ignored: macOS writes such files")
    (box / "torn.json").write_text(document[:50])
    assert _times(box) == [1, 2, 3, 4.5, 5, 6, 7, 8, 9, 10, 11]
    assert [read for read in observations(str(box)) if not isinstance(read, Observation)] == [
        Skipped(f"reading {box}/torn.json: Input data was truncated; skipped"),
        _no_time(box, "whatever.json"),
    ]


def _no_time(box: Path, names: str) -> Note:
    return Note(
        f"reading {box}: there is no time in the name of {names}; the modification time is used; "
        "name files like 2026-11-23T13:00:00Z.json"
    )


def test_names_without_a_time_are_told_in_one_line_and_are_no_error(box: Path) -> None:
    for number in range(3):
        path = box / f"{number}.json"
        path.write_text(json.dumps(status(peer("a"))))
        at = START - number if number < 2 else -5
        os.utime(path, (at, at))
    note, *_ = observations(str(box))
    assert note == _no_time(box, "0.json and of 2 more")
    assert _times(box) == [-START, -1, 0]
    warnings: list[str] = []
    assert len(in_order(str(box), warnings.append).unwrap()) == 3
    assert [Note(warning) for warning in warnings] == [note]
    ran = run("replay", str(box))
    assert (ran.status, error_lines("replay", ran)) == (0, warnings)


@pytest.mark.parametrize("packed", PACKINGS)
def test_the_statuses_of_a_directory_can_be_compressed(box: Path, packed: Packing) -> None:
    suffix = ".gz" if packed is _gzip else ".zst" if packed is _zstd else ""
    document = json.dumps(status(peer("a"))).encode()
    (box / f"20270115-080001.json{suffix}").write_bytes(packed(document))
    assert _times(box) == [1]
    (box / f"20270115-080002.json{suffix}").write_bytes(packed(document)[:20])
    assert _times(box) == [1]
    if suffix:
        bomb = (_gzip_bomb if packed is _gzip else _zstd_bomb)(SPACES)
        (box / f"20270115-080003.json{suffix}").write_bytes(bomb)
        _, skipped, _ = observations(str(box))
        assert skipped == Skipped(
            f"reading {box}/20270115-080003.json{suffix}: it is larger than 256 MiB; skipped"
        )


def test_an_observation_of_a_directory_keeps_its_clocks(box: Path) -> None:
    """Without the boot clock, the watchdog could not see a suspend or a restart."""
    line = LINES[0].replace(
        b'"captured_at"', b'"boot": {"id": "b", "seconds": 5}, "tailscaled_start": 7, "captured_at"'
    )
    (box / "a.json").write_bytes(line)
    (observation,) = observations(str(box))
    assert observation == parse(line).unwrap()
    assert isinstance(observation, Observation)
    assert observation.boot is not None
    assert observation.tailscaled_start == 7


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        pytest.param('"captured_at": 1e300', "Expected `float` <= 253402300799.0", id="huge"),
        pytest.param('"captured_at": 1e999', "Number out of range", id="infinite"),
        pytest.param('"captured_at": -1', "Expected `float` >= 0.0", id="negative"),
        pytest.param('"captured_at": NaN', "JSON is malformed", id="no number"),
        pytest.param('"captured_at": "1"', "Expected `float | null`, got `str`", id="text"),
        pytest.param('"fault": "x", "status": {}', "has either a status or a fault", id="both"),
    ],
)
@pytest.mark.parametrize("form", ["a capture", "a directory"])
def test_an_invalid_record_is_one_line(box: Path, form: str, fields: str, problem: str) -> None:
    if "status" not in fields:
        fields += ', "fault": "x"'
    if "captured_at" not in fields and form == "a capture":
        fields += ', "captured_at": 1'
    path = box / "c" if form == "a capture" else box / "1800000001.json"
    path.write_text("{" + fields + "}\n")
    first, *_ = observations(str(path if form == "a capture" else box))
    assert isinstance(first, Skipped)
    assert problem.replace(" | null", "" if form == "a capture" else " | null") in first.detail
    assert first.detail.isprintable()


def test_a_directory_without_statuses_is_an_error(box: Path) -> None:
    (box / "status.ndjson").write_bytes(LINES[0])
    (broken,) = observations(str(box))
    assert broken == Broken(f"reading {box}: no statuses in its *.json files; give a capture")


@pytest.mark.parametrize("make", [*irregular.NO_FILES, irregular.link_to_zeros])
def test_a_directory_of_statuses_is_read_without_what_is_no_file(
    box: Path, make: Callable[[Path], None]
) -> None:
    make(box / "a.json")
    (box / "target").write_text(text([seen(START, peer("a"))]))
    (box / "b.json").symlink_to("target")
    skipped, observation = observations(str(box))
    assert skipped == Skipped(f"reading {box}/a.json: it is not a regular file; skipped")
    assert not isinstance(observation, Skipped)


def test_a_directory_that_powershell_has_written_is_read(box: Path) -> None:
    for number, (encoding, mark) in enumerate(MARKS.items()):
        document = json.dumps(status(peer("é")), ensure_ascii=False)
        (box / f"{START + number}.json").write_bytes(mark + document.encode(encoding))
    read = list(observations(str(box)))
    assert [one.captured_at - START for one in read if isinstance(one, Observation)] == [0, 1, 2]
    assert all(status_of(one).unwrap().peer for one in read if isinstance(one, Observation))


def test_a_document_of_a_directory_that_is_not_json_is_quoted(box: Path) -> None:
    (box / "a.json").write_text("")
    (box / "b.json").write_text("failed to connect\n")
    assert list(observations(str(box))) == [
        Skipped(f"reading {box}/a.json: it is empty; skipped"),
        Skipped(f'reading {box}/b.json: it is not JSON, but: "failed to connect"; skipped'),
        Broken(f"reading {box}: no statuses in its *.json files; give a capture"),
    ]


# Whole captures, for the stand-in


def test_in_order_sorts_by_time_and_then_by_line(box: Path) -> None:
    path = _written(box / "c", text([fault(5, "a"), fault(1.5, "b"), fault(5, "c")]).encode())
    assert [(one.captured_at, one.fault) for one in in_order(str(path), print).unwrap()] == [
        (1.5, "b"),
        (5, "a"),
        (5, "c"),
    ]
    assert len(in_order(str(TIMELINE), print).unwrap()) == 30


def test_in_order_skips_torn_records_with_a_warning(box: Path) -> None:
    warnings: list[str] = []
    assert (
        len(in_order(str(_written(box / "c", LINES[0] + LINES[1][:30])), warnings.append).unwrap())
        == 1
    )
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[]", "line 2: "),
        (text([{"captured_at": 1, "status": {"Peer": {}}}]), "BackendState"),
        (text([seen(1, Health=1)]), "Health"),
        (text([{"captured_at": 1, "status": None}]), "status"),
    ],
)
def test_in_order_rejects_unusable_records(box: Path, line: str, problem: str) -> None:
    read = in_order(str(_written(box / "c", LINES[0] + line.encode() + b"\n")), print)
    assert isinstance(read, Failure)
    assert read.failure().startswith(f"reading {box}/c: ")
    assert problem in read.failure()
    assert read.failure().isprintable()


def test_in_order_rejects_a_capture_without_an_observation(box: Path) -> None:
    empty = in_order(str(_written(box / "c", b"")), print).failure()
    assert empty == f"reading {box}/c: it is empty; give a capture of `tsfc capture`"
    torn = in_order(str(_written(box / "c", LINES[0][:-9])), print).failure()
    assert torn == f"reading {box}/c: no observations; give a capture of `tsfc capture`"
