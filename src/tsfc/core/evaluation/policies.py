"""Comparison of policies: `--compare max-relay-seconds=300,600,1200`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.clock import MAX_NUMBER
from tsfc.core.evaluation.summary import COLUMNS, policy_text
from tsfc.core.watchdog.policy import Policy

MAX_RELAY, COOLDOWN, EXCLUDE = "max-relay-seconds", "cooldown-seconds", "exclude-peer"
_EXAMPLES = f"such as {MAX_RELAY}=300,600 or {COOLDOWN}=600,3600 or {EXCLUDE}=,nas"
LIMIT = 1000
"Maximum number of policies. The watchdog runs once per policy and observation."

Change = dict[str, object]
"Fields of a policy and their new values."


def policies(base: Policy, comparisons: Sequence[str]) -> Result[tuple[Policy, ...], str]:
    """Return every combination of the values to compare, applied to `base`.

    Each comparison is `option=value,…`. A value of `exclude-peer` adds one excluded
    peer; an empty one adds none. Fails with one line if a comparison is malformed or
    there are more than `LIMIT` combinations.
    """
    choices: list[list[Change]] = []
    for text in comparisons:
        option, equals, values = text.partition("=")
        parsed = [_change(base, option, value.strip()) for value in values.split(",")]
        changes = [change for change in parsed if change is not None]
        if not equals or len(changes) < len(parsed):
            return Failure(f"--compare {text!r} cannot be parsed; give OPTION=VALUE,… {_EXAMPLES}")
        choices.append(changes)
    combinations = [_combined(changes) for changes in product(*choices)]
    if len(combinations) > LIMIT:
        return Failure(
            f"--compare gives {len(combinations)} policies, more than {LIMIT}; compare fewer values"
        )
    return Success(tuple(dict.fromkeys(replace(base, **change) for change in combinations)))


def _combined(changes: Sequence[Change]) -> Change:
    return {name: value for change in changes for name, value in change.items()}


def _change(base: Policy, option: str, value: str) -> Change | None:
    if option == EXCLUDE:
        return {"excluded": base.excluded | ({value} if value else set())}
    is_number = value.isascii() and value.isdigit() and len(value) < len(str(MAX_NUMBER))
    if option not in {MAX_RELAY, COOLDOWN} or not is_number:
        return None
    return {option.replace("-", "_"): int(value)}


def table(
    policies: Sequence[Policy],
    counts: Sequence[Mapping[str, int]],
    columns: Sequence[str] = COLUMNS,
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of a comparison: one row of counts per policy."""
    rows = [
        (policy_text(policy), *(str(numbers[name]) for name in columns))
        for policy, numbers in zip(policies, counts, strict=True)
    ]
    return ("policy", *(name.replace("_", " ") for name in columns)), rows
