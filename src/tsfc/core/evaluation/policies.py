"""Comparison of policies: `--compare max-relay-seconds=300,600,1200`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.clock import MAX_NUMBER
from tsfc.core.evaluation.summary import COLUMNS, policy_text
from tsfc.core.watchdog.policy import Policy, ThresholdPolicy

MAX_RELAY, COOLDOWN, EXCLUDE = "max-relay-seconds", "cooldown-seconds", "exclude-peer"
_FORM = f"such as {MAX_RELAY}=300,600 or {COOLDOWN}=600,3600 or {EXCLUDE}=,nas"
LIMIT = 1000
"Maximum number of policies. Each one is evaluated separately."


def policies(base: Policy, wanted: Sequence[str]) -> Result[tuple[Policy, ...], str]:
    """Return the product of all values, each item of the form `option=value,…`.

    Other options are as in `base`. Each value of `exclude-peer` excludes one more peer;
    an empty value excludes none. Fails with one line if an item has another form.
    """
    choices: list[list[dict[str, object]]] = []
    for text in wanted:
        option, equals, values = text.partition("=")
        read = (
            [_changed(base, option, value.strip()) for value in values.split(",")]
            if equals
            else [None]
        )
        changes = [change for change in read if change is not None]
        if len(changes) < len(read):
            return Failure(f"{text!r} is no comparison, {_FORM}")
        choices.append(changes)
    made = [_merged(combination) for combination in product(*choices)]
    if len(made) > LIMIT:
        return Failure(f"{len(made)} policies are more than {LIMIT}; compare fewer values")
    return Success(tuple(dict.fromkeys(replace(base, **change) for change in made)))


def _merged(combination: Sequence[dict[str, object]]) -> dict[str, object]:
    return {name: value for change in combination for name, value in change.items()}


def _changed(base: ThresholdPolicy, option: str, value: str) -> dict[str, object] | None:
    if option == EXCLUDE:
        return {"excluded": base.excluded | ({value} if value else set())}
    if option not in {MAX_RELAY, COOLDOWN} or not (
        value.isascii() and value.isdigit() and len(value) < len(str(MAX_NUMBER))
    ):
        return None
    return {option.replace("-", "_"): int(value)}


def table(
    policies: Sequence[Policy], counted: Sequence[Mapping[str, int]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of a comparison: the statistics under each policy."""
    rows = [
        (policy_text(policy), *(str(numbers[name]) for name in COLUMNS))
        for policy, numbers in zip(policies, counted, strict=True)
    ]
    return ("policy", *(name.replace("_", " ") for name in COLUMNS)), rows
