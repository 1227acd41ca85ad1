"""Comparison of policies: `--compare policy=documented,guarded`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.duration import parse_whole
from tsfc.core.evaluation import candidate
from tsfc.core.evaluation.candidate import Bound, Candidate
from tsfc.core.evaluation.summary import COLUMNS
from tsfc.core.watchdog.policy import GuardedPolicy, Policy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Remedy
from tsfc.core.watchdog.state import ATTEMPT_LIMIT

POLICY, MAX_RELAY, COOLDOWN = "policy", "max-relay-seconds", "cooldown-seconds"
EXCLUDE, BUDGET, REMEDIES = "exclude-peer", "budget", "remedies"
GUARDED_ONLY = (BUDGET, REMEDIES)
"Options that only the guarded policy has."
_EXAMPLES = (
    f"such as {POLICY}={','.join(candidate.NAMES)} or {MAX_RELAY}=5min,10min"
    f" or {COOLDOWN}=10min,1h or {EXCLUDE}=,nas or {BUDGET}=3,6"
    f" or {REMEDIES}=restart,restart+other-port"
)
LIMIT = 1000
"Maximum number of policies. The watchdog runs once per policy and observation."


class Change(Struct, frozen=True):
    """What a value of `--compare` changes."""

    chosen: Candidate | None = None
    "None to keep the policy."
    fields: Mapping[str, object] = {}
    "New values of the policy's fields."


def policies(base: Policy, comparisons: Sequence[str]) -> Result[tuple[Candidate, ...], str]:
    """Return every combination of the values to compare, applied to `base`.

    Each comparison is `option=value,…`. A value of `exclude-peer` adds one excluded
    peer; an empty one adds none. A value of `remedies` joins its names with `+`.
    An option that only another policy has does not change a candidate. Fails with one
    line if a comparison is malformed or there are more than `LIMIT` combinations.
    """
    choices: list[list[Change]] = []
    for text in comparisons:
        option, equals, values = text.partition("=")
        parsed = [_change(base, option, value.strip()) for value in values.split(",")]
        changes = [change for change in parsed if change is not None]
        if not equals or len(changes) < len(parsed):
            return Failure(f"--compare {text!r} cannot be parsed; give OPTION=VALUE,… {_EXAMPLES}")
        choices.append(changes)
    number = math.prod(map(len, choices))
    if number > LIMIT:
        return Failure(
            f"--compare gives {number} policies, more than {LIMIT}; compare fewer values"
        )
    found = tuple(dict.fromkeys(_changed(base, changes) for changes in product(*choices)))
    if not any(isinstance(one, GuardedPolicy) for one in found):
        for option in GUARDED_ONLY:
            if any(text.startswith(f"{option}=") for text in comparisons):
                return Failure(
                    f"--compare {option}: only the guarded policy has it; add --policy guarded"
                )
    return Success(found)


def _changed(base: Policy, changes: Sequence[Change]) -> Candidate:
    chosen: Candidate = base
    fields: dict[str, object] = {}
    for change in changes:
        chosen = chosen if change.chosen is None else change.chosen
        fields |= change.fields
    match chosen:
        case GuardedPolicy():
            return replace(chosen, **fields)
        case ThresholdPolicy():
            common = {name: value for name, value in fields.items() if name not in GUARDED_ONLY}
            return replace(chosen, **common)
        case Bound():
            return chosen
        case _ as never:
            assert_never(never)


def _change(base: Policy, option: str, value: str) -> Change | None:
    if option == POLICY:
        chosen = candidate.named(base, value)
        return None if chosen is None else Change(chosen)
    if option == EXCLUDE:
        return Change(fields={"excluded": base.excluded | frozenset({value} - {""})})
    if option == REMEDIES:
        remedies = _remedies(value)
        return None if remedies is None else Change(fields={REMEDIES: remedies})
    if option in {MAX_RELAY, COOLDOWN}:
        seconds = parse_whole(value)
        return None if seconds is None else Change(fields={option.replace("-", "_"): seconds})
    is_number = value.isascii() and value.isdigit() and len(value) <= len(str(ATTEMPT_LIMIT))
    if option != BUDGET or not is_number or int(value) > ATTEMPT_LIMIT:
        return None
    return Change(fields={BUDGET: int(value)})


def _remedies(text: str) -> tuple[Remedy, ...] | None:
    """Parse remedies such as `restart+other-port`, each at most once."""
    names = text.split("+")
    if len(set(names)) < len(names) or not set(names) <= set(Remedy):
        return None
    return tuple(map(Remedy, names))


def table(
    candidates: Sequence[Candidate],
    counts: Sequence[Mapping[str, int]],
    columns: Sequence[str] = COLUMNS,
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of a comparison: one row of counts per policy."""
    rows = [
        (candidate.text(one), *(str(numbers[name]) for name in columns))
        for one, numbers in zip(candidates, counts, strict=True)
    ]
    return ("policy", *(name.replace("_", " ") for name in columns)), rows
