"""Keys, and how they scroll."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsfc.view.keys import KEYS, Key, decode, scrolled


@pytest.mark.parametrize(
    ("data", "keys", "rest"),
    [
        (b"", [], b""),
        (b"jjk", [Key.DOWN, Key.DOWN, Key.UP], b""),
        (b"\x1b[B\x1b[6~G", [Key.DOWN, Key.PAGE_DOWN, Key.BOTTOM], b""),
        (b"j\x1b", [Key.DOWN], b"\x1b"),
        (b"\x1b[", [], b"\x1b["),
        (b"\x1b[6", [], b"\x1b[6"),
        (b"\x1bO", [], b"\x1bO"),
        pytest.param(b"\x1bq", [Key.QUIT], b"", id="Esc and then q"),
        pytest.param(b"\x1b[24~x\xff\x1b[200~\n", [], b"", id="unknown keys"),
        pytest.param(b"\x1b[" + b"1" * 99, [], b"", id="an endless sequence"),
    ],
)
def test_keys_are_decoded(data: bytes, keys: list[Key], rest: bytes) -> None:
    assert decode(data) == (tuple(keys), rest)


@given(st.lists(st.sampled_from(sorted(KEYS)), max_size=5), st.integers(1, 4))
def test_a_key_that_arrives_in_pieces_is_one_key(typed: list[bytes], size: int) -> None:
    data = b"".join(typed)
    found: list[Key] = []
    rest = b""
    for start, end in pairwise([*range(0, len(data), size), len(data)]):
        keys, rest = decode(rest + data[start:end])
        found += keys
    assert (found, rest) == ([KEYS[key] for key in typed], b"")


@given(
    st.integers(0, 500),
    st.sampled_from([None, *Key]),
    st.integers(0, 400),
    st.integers(1, 100),
)
def test_the_table_is_never_scrolled_beyond_its_ends(
    first: int, key: Key | None, rows: int, room: int
) -> None:
    moved = scrolled(first, key, rows, room)
    assert 0 <= moved <= max(0, rows - room)
    if key is Key.TOP:
        assert moved == 0
    if key is Key.BOTTOM:
        assert moved == max(0, rows - room)
