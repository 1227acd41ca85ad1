"""The memo of the last call."""

from __future__ import annotations

from tsfc.core.memo import keep_last


def test_the_last_result_is_kept_for_identical_arguments() -> None:
    @keep_last
    def pair(one: list[int], other: list[int]) -> list[list[int]]:
        return [one, other]

    one, other, equal = [1], [2], [1]
    first = pair(one, other)

    assert pair(one, other) is first
    assert pair(equal, other)[0] is equal
    assert pair(one, other) is not first


def test_another_number_of_arguments_is_another_call() -> None:
    @keep_last
    def number(_: int, other: int = 5) -> int:
        return other

    assert [number(1), number(1, 2), number(1)] == [5, 2, 5]


def test_a_call_with_keyword_arguments_is_not_kept() -> None:
    @keep_last
    def number(_: int, other: int = 5) -> int:
        return other

    assert [number(1), number(1, other=2), number(1), number(1, other=3)] == [5, 2, 5, 3]
