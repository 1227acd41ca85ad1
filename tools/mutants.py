"""Mutation testing of the watchdog's decision and of files: `make mutants`.

Tests must kill each mutant, unless tests/mutants.toml explains why it is equivalent to
the original. `[tool.mutmut]` in pyproject.toml configures the mutated files and the
tests. Each run starts from scratch.
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
"Results that count as detected; a mutant with an endless loop times out."
RESULT = re.compile(r"^ {4}(\S+): (.+)$", re.MULTILINE)
CHANGE = re.compile(r"^([+-]) +(.+)$", re.MULTILINE)


def main() -> int:
    """Run mutmut, and compare the survivors with the explained ones."""
    # Run all mutants.
    shutil.rmtree(ROOT / "mutants", ignore_errors=True)
    if subprocess.run([MUTMUT, "run"], cwd=ROOT, check=False).returncode != 0:
        print("running mutmut: it failed; see its output above", file=sys.stderr)
        return 1
    # Compare the survivors with tests/mutants.toml, in both directions.
    results = dict(RESULT.findall(mutmut("results", "--all", "true")))
    survivors = {change(name): name for name, status in results.items() if status not in KILLED}
    reasons = {
        (row["was"], row["becomes"]) for row in tomllib.loads(REASONS.read_text())["equivalent"]
    }
    unexplained = survivors.keys() - reasons
    stale = reasons - survivors.keys()
    # Print the result, with the lines to add or remove.
    print(
        f"\n{len(results)} mutants, {len(survivors)} different survivors, "
        f"{len(survivors) - len(unexplained)} of them explained"
    )
    for was, becomes in sorted(unexplained):
        print(
            f"\n{survivors[was, becomes]} survived, unexplained in {REASONS.relative_to(ROOT)}:\n"
            f"was     = {was!r}\nbecomes = {becomes!r}"
        )
    for was, becomes in sorted(stale):
        print(
            f"\nno such survivor any more; remove it from {REASONS.relative_to(ROOT)}:\n"
            f"was     = {was!r}\nbecomes = {becomes!r}"
        )
    return int(bool(unexplained or stale or not results))


def change(name: str) -> tuple[str, str]:
    """Return the lines that a mutant removes and those that it adds.

    They identify a mutant over edits; mutmut's numbers change with every edit.
    """
    lines = CHANGE.findall(mutmut("show", name))
    return (
        "\n".join(text for sign, text in lines if sign == "-"),
        "\n".join(text for sign, text in lines if sign == "+"),
    )


def mutmut(*arguments: str) -> str:
    """Run mutmut on the results of the last run, and return its standard output."""
    return subprocess.run(
        [MUTMUT, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
