"""Mutation testing of the decision: each mutant is killed by a test, or tests/mutants.toml says why it means the same as the original.

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
CHANGE = re.compile(r"^([+-]) +(.+)$", re.MULTILINE)


def main() -> int:
    """Mutates, tests, and compares the survivors with those that have a reason; returns the exit status."""
    shutil.rmtree(ROOT / "mutants", ignore_errors=True)
    if subprocess.run([MUTMUT, "run"], cwd=ROOT, check=False).returncode != 0:
        print("mutmut could not run: see above", file=sys.stderr)
        return 1
    results = dict(RESULT.findall(told("results", "--all", "true")))
    survivors = {change(name): name for name, status in results.items() if status not in KILLED}
    reasons = {
        (row["was"], row["becomes"]) for row in tomllib.loads(REASONS.read_text())["equivalent"]
    }
    unexplained = survivors.keys() - reasons
    stale = reasons - survivors.keys()
    print(
        f"\n{len(results)} mutants, {len(survivors)} ways to survive, {len(survivors) - len(unexplained)} of them with a reason"
    )
    for was, becomes in sorted(unexplained):
        print(
            f"\n{survivors[was, becomes]} survived, and {REASONS.relative_to(ROOT)} has no reason:\nwas     = {was!r}\nbecomes = {becomes!r}"
        )
    for was, becomes in sorted(stale):
        print(
            f"\nno mutant survived like this any more, so it goes from {REASONS.relative_to(ROOT)}:\nwas     = {was!r}\nbecomes = {becomes!r}"
        )
    return int(bool(unexplained or stale or not results))


def change(name: str) -> tuple[str, str]:
    """Returns the lines that a mutant takes away and those that it puts in their place: mutmut's numbers change with every edit, these do not."""
    changed = CHANGE.findall(told("show", name))
    return (
        "\n".join(text for sign, text in changed if sign == "-"),
        "\n".join(text for sign, text in changed if sign == "+"),
    )


def told(*arguments: str) -> str:
    """Returns what mutmut says of the run before."""
    return subprocess.run(
        [MUTMUT, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
