"""Mutation testing of the decision: each mutant is killed by a test, or has a line in tests/mutants.toml that says why it is none.

What is mutated, and which tests are to kill it, is in `[tool.mutmut]` of pyproject.toml. Each run is made from nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
MUTMUT = Path(sys.executable).with_name("mutmut")
REASONS = ROOT / "tests" / "mutants.toml"

KILLED = {"killed", "timeout", "caught by type check"}
"A mutant that never ends is found out as well as one that is wrong."
RESULT = re.compile(r"^ {4}(\S+): (.+)$", re.MULTILINE)


def main() -> int:
    """Mutates, tests, and compares the survivors with those that have a reason; returns the exit status."""
    shutil.rmtree(ROOT / "mutants", ignore_errors=True)
    if subprocess.run([MUTMUT, "run"], cwd=ROOT, check=False).returncode != 0:
        print("mutmut could not run: see above", file=sys.stderr)
        return 1
    results = dict(RESULT.findall(told("results", "--all", "true")))
    reasons: dict[str, str] = tomllib.loads(REASONS.read_text())
    survivors = {name: status for name, status in results.items() if status not in KILLED}
    unexplained = sorted(survivors.keys() - reasons.keys())
    stale = sorted(reasons.keys() - survivors.keys())
    print(f"{len(results)} mutants, {len(survivors)} not killed, {len(survivors) - len(unexplained)} of them with a reason")
    for name in unexplained:
        print(f"\n{name}: {survivors[name]}, and no reason in {REASONS.relative_to(ROOT)}\n{told('show', name)}")
    for name in stale:
        print(f"\n{name}: {results.get(name, 'not a mutant any more')}, so its reason in {REASONS.relative_to(ROOT)} is stale")
    return int(bool(unexplained or stale or not results))


def told(*arguments: str) -> str:
    """Returns what mutmut says of the run before."""
    return subprocess.run([MUTMUT, *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
