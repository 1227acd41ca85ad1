"""JSON in any encoding that programs on Windows write; anything else is quoted."""

from __future__ import annotations

import codecs
import timeit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsfc.core.tailscale.json_input import problem, stream_to_utf8, to_utf8

TEXT = '{"HostName":"π😀"}'
ENCODED = [
    pytest.param(TEXT.encode(), id="UTF-8"),
    pytest.param(codecs.BOM_UTF8 + TEXT.encode(), id="UTF-8 with a mark"),
    pytest.param(codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"), id="UTF-16, little-endian"),
    pytest.param(codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), id="UTF-16, big-endian"),
]


@pytest.mark.parametrize("raw", ENCODED)
def test_each_encoding_becomes_utf_8_without_a_mark(raw: bytes) -> None:
    assert to_utf8(raw).decode() == TEXT


@pytest.mark.parametrize("raw", ENCODED)
def test_a_stream_is_converted_wherever_it_is_cut(raw: bytes) -> None:
    for cut in range(2, len(raw)):
        pieces = list(stream_to_utf8(iter([raw[:cut], None, raw[cut:]])))
        assert pieces.count(None) == 1
        if cut % 4 == 2:  # a damaged part ends a character
            assert to_utf8(b"".join(piece or b"" for piece in pieces)).decode() == TEXT
        whole = stream_to_utf8(iter([raw[:cut], *(raw[n : n + 1] for n in range(cut, len(raw)))]))
        assert to_utf8(b"".join(piece or b"" for piece in whole)).decode() == TEXT


def test_a_stream_without_content_is_unchanged() -> None:
    assert list(stream_to_utf8(iter([]))) == [b""]
    assert list(stream_to_utf8(iter([None, b"{}"]))) == [None, b"{}"]


def test_what_is_invalid_in_utf_16_is_replaced() -> None:
    """Half a character at the end, and half a pair of surrogates."""
    raw = codecs.BOM_UTF16_LE + '"a"'.encode("utf-16-le")
    assert to_utf8(raw + b"\x00").decode() == '"a"\N{REPLACEMENT CHARACTER}'
    assert to_utf8(raw + b"\x00\xd8b\x00").decode() == '"a"\N{REPLACEMENT CHARACTER}b'
    assert b"".join(piece or b"" for piece in stream_to_utf8(iter([raw + b"\x00"]))).decode() == (
        '"a"\N{REPLACEMENT CHARACTER}'
    )


@given(st.binary() | st.builds(bytes.__add__, st.sampled_from([b"\xff\xfe", b"\xef"]), st.binary()))
def test_any_input_is_converted(raw: bytes) -> None:
    assert to_utf8(raw) is raw or to_utf8(raw) != raw
    assert b"".join(piece or b"" for piece in stream_to_utf8(iter([raw]))) is not None


def test_utf_8_costs_nothing() -> None:
    """The input is neither read nor copied: it may have 256 MiB."""
    raw = b"{" + b" " * 2**24 + b"}"
    assert to_utf8(raw) is raw
    assert min(timeit.repeat(lambda: to_utf8(raw), number=1, repeat=9)) < 1e-4


def _problem(raw: bytes) -> str:
    try:
        msgspec.json.decode(raw, type=dict[str, int])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return problem(raw, error)
    return ""


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b" \r\n\t", "it is empty", id="blank"),
        pytest.param(
            b"<!DOCTYPE html>\n<html>\n  <title>502",
            'it is not JSON, but: "<!DOCTYPE html> <html> <title>502"',
            id="HTML",
        ),
        pytest.param(
            b"failed to connect to local tailscaled; it doesn't appear to be running",
            'it is not JSON, but: "failed to connect to local tailscaled; i…"',
            id="an error message",
        ),
        pytest.param(b"404 page", 'it is not JSON, but: "404 page"', id="begins as a number"),
        pytest.param(b"[warn] x", 'it is not JSON, but: "[warn] x"', id="begins as an array"),
        pytest.param(b"# " + b"x" * 2**20, f'it is not JSON, but: "# {"x" * 38}…"', id="long"),
        pytest.param(
            b"\x01\x8b\x1b[31m\xff",
            'it is not JSON, but: "\ufffd\ufffd\ufffd[31m\ufffd"',
            id="binary",
        ),
        pytest.param(b"[" * 9999, f'it is not JSON, but: "{"[" * 40}…"', id="nested"),
        pytest.param(b"null", "Expected `object`, got `null`", id="null"),
        pytest.param(b"[1]", "Expected `object`, got `array`", id="an array"),
        pytest.param(b'{"a":', "Input data was truncated", id="cut off"),
        pytest.param(b'{"a":"b"}', "Expected `int`, got `str` - at `$[...]`", id="another type"),
        pytest.param(
            b'{"a":1}\n{"b":2}', 'more text after the JSON: "{"b":2}"', id="two documents"
        ),
        pytest.param(b"{]", "JSON is malformed: object keys must be strings (byte 1)", id="typo"),
    ],
)
def test_the_problem_tells_what_the_input_is(raw: bytes, why: str) -> None:
    assert _problem(raw) == why


@given(st.binary(max_size=200))
def test_a_problem_is_one_printable_line(raw: bytes) -> None:
    assert _problem(raw).isprintable()
    assert len(_problem(raw)) < 350
