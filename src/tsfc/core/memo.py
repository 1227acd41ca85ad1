"""A memo of the last call."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def keep_last(function: Callable[P, R]) -> Callable[P, R]:
    """Make a pure function keep its last result for the same arguments.

    "The same" means identical objects, because a status is large and has no hash.
    A call with keyword arguments is not kept. The last arguments stay in memory.
    """
    last: tuple[tuple[object, ...], R] | None = None

    @wraps(function)
    def kept(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal last
        if kwargs:
            return function(*args, **kwargs)
        if last is None or not _are_identical(args, last[0]):
            last = args, function(*args, **kwargs)
        return last[1]

    return kept


def _are_identical(ones: tuple[object, ...], others: tuple[object, ...]) -> bool:
    return len(ones) == len(others) and all(
        one is other for one, other in zip(ones, others, strict=True)
    )
