"""Durations, as people read them."""

from __future__ import annotations


def duration(seconds: float, parts: int = 2) -> str:
    """Format a duration in its largest units: `3d 4h`, `4m 10s`, `0s`.

    Seconds are rounded down; a negative duration is `0s`. `parts` is the maximum number
    of units.
    """
    left = max(0, int(seconds))
    words: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number or words or size == 1:
            words.append(f"{number}{unit}")
    words = words[:parts]
    while len(words) > 1 and words[-1].startswith("0"):
        words.pop()
    return " ".join(words)
