"""Search the parameters of the guarded policy: `make policy-search`.

Each set of parameters runs in the scenario `mixed-month` with the same seeds, and gets
two numbers:

- cured: the part of the time on relay that a restart would have ended, which the policy
  ended. The oracle has 100 %, doing nothing has 0 %.
- needless: its restarts that fixed nothing, relative to the documented policy.

The sets that no other set beats in both are the frontier. The picture shows it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tsfc.core.evaluation.candidate import Bound, Candidate
from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
from tsfc.offline.parallel import run_all
from tsfc.offline.progress import shown
from tsfc.offline.simulate import Task, simulate
from tsfc.offline.simulation import scenario

SCENARIO = "mixed-month"
PICTURE = Path(__file__).parents[1] / "docs" / "policy-search.svg"
DISCOUNTS = (0.01, 0.03, 0.05, 0.1, 0.2, 0.4)
HALF_LIVES = (3.0, 7.0, 14.0, 28.0)
KNOWN_DIRECT = (3, 7, 14)
BUDGETS = (3, 6, 12)
FIRST_SEED, SEEDS, SETS = 1000, 10, 40
AIM_CURED, AIM_NEEDLESS = 0.9, 0.015
WIDTH, HEIGHT, MARGIN = 640, 400, 60


@dataclass(frozen=True)
class Score:
    """What a policy achieves, summed over all seeds."""

    policy: GuardedPolicy
    cured: float
    "1 for what the oracle cures, 0 for doing nothing."
    needless: float
    "1 for the needless restarts of the documented policy."

    @property
    def text(self) -> str:
        """The parameters and both numbers, as the row of a table."""
        policy = self.policy
        return (
            f"| {policy.discount:g} | {policy.half_life_days:g} | {policy.known_direct_days}"
            f" | {policy.budget} | {self.cured:.1%} | {self.needless:.2%} |"
        )


def main() -> None:
    """Run the search, print the frontier as a table, and draw the picture."""
    parser = argparse.ArgumentParser(description="Search the parameters of the guarded policy.")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="number of seeds")
    parser.add_argument("--sets", type=int, default=SETS, help="number of sets of parameters")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    scores = search(chosen(options.sets), seeds)
    best = frontier(scores)
    print(f"{len(scores)} sets of parameters, seeds {seeds[0]} to {seeds[-1]} of {SCENARIO}\n")
    print("| discount | half-life in days | known direct in days | budget | cured | needless |")
    print("|---|---|---|---|---|---|")
    print("\n".join(score.text for score in best))
    print("\nThe defaults:\n" + scores[0].text)
    PICTURE.write_text(picture(scores, best, seeds))


def chosen(number: int) -> list[GuardedPolicy]:
    """Return sets of parameters.

    The defaults come first, then those that differ from them in one parameter, then
    others at random.
    """
    default = GuardedPolicy()
    grid = [
        GuardedPolicy(
            discount=discount, half_life_days=half_life, known_direct_days=days, budget=budget
        )
        for discount, half_life, days, budget in product(
            DISCOUNTS, HALF_LIVES, KNOWN_DIRECT, BUDGETS
        )
    ]
    random.Random(0).shuffle(grid)  # noqa: S311
    return sorted(grid, key=lambda policy: min(2, differences(policy, default)))[:number]


def differences(policy: GuardedPolicy, other: GuardedPolicy) -> int:
    """Return the number of parameters that differ."""
    fields = ("discount", "half_life_days", "known_direct_days", "budget")
    return sum(getattr(policy, field) != getattr(other, field) for field in fields)


def search(policies: Sequence[GuardedPolicy], seeds: range) -> list[Score]:
    """Simulate each policy with each seed, on all processors; return their scores."""
    candidates: list[Candidate] = [Bound.NONE, ThresholdPolicy(), *policies]
    found = scenario.builtin()[SCENARIO]
    tasks = [
        Task(found, candidate, seed, scenario.duration_seconds(found))
        for candidate in candidates
        for seed in seeds
    ]
    results = list(shown(run_all(counts, tasks, cluster=None), len(tasks), "simulations"))
    sums = [
        total(results[first : first + len(seeds)]) for first in range(0, len(results), len(seeds))
    ]
    nothing, documented, *others = sums
    return [
        Score(
            policy,
            1 - one["unserved_relay_seconds"] / nothing["unserved_relay_seconds"],
            one["needless_restarts"] / documented["needless_restarts"],
        )
        for policy, one in zip(policies, others, strict=True)
    ]


def counts(task: Task) -> dict[str, int]:
    """Return the counts of one simulation."""
    return simulate(task, lambda _unix, _lines: None).counts()


def total(runs: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums of the counts of many simulations."""
    summed: dict[str, int] = {}
    for run in runs:
        for name, count in run.items():
            summed[name] = summed.get(name, 0) + count
    return summed


def frontier(scores: Iterable[Score]) -> list[Score]:
    """Return the scores that no other beats, the fewest needless restarts first."""
    best: list[Score] = []
    for score in sorted(scores, key=lambda score: (score.needless, -score.cured)):
        if not best or score.cured > best[-1].cured:
            best.append(score)
    return best


def picture(scores: Sequence[Score], best: Sequence[Score], seeds: range) -> str:
    """Draw all scores, the frontier and the defaults, which are the first, as SVG."""
    right = max(AIM_NEEDLESS, *(score.needless for score in scores)) * 1.1
    bottom = min(AIM_CURED, *(score.cured for score in scores)) - 0.01

    def x(needless: float) -> float:
        return round(MARGIN + needless / right * (WIDTH - 2 * MARGIN), 1)

    def y(cured: float) -> float:
        return round(HEIGHT - MARGIN - (cured - bottom) / (1 - bottom) * (HEIGHT - 2 * MARGIN), 1)

    def dot(score: Score, color: str, radius: int) -> str:
        place = f'cx="{x(score.needless)}" cy="{y(score.cured)}"'
        return f'<circle {place} r="{radius}" fill="{color}"><title>{score.text}</title></circle>'

    def label(at_x: float, at_y: float, text: str, more: str = "") -> str:
        return f'<text x="{at_x}" y="{at_y}" {more}>{text}</text>'

    line = " ".join(f"{x(score.needless)},{y(score.cured)}" for score in best)
    default = scores[0]
    left, low = x(0), y(bottom)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {_FONT}>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<path d="M{left},{y(1)} V{low} H{x(right)}" fill="none" stroke="black"/>',
            f'<path d="M{x(AIM_NEEDLESS)},{y(1)} V{y(AIM_CURED)} H{left}" {_DASHED}/>',
            label(x(AIM_NEEDLESS) + 4, y(AIM_CURED) + 14, "the aim", 'fill="gray"'),
            *(
                label(left - 8, y(percent / 100) + 4, f"{percent} %", 'text-anchor="end"')
                for percent in range(0, 101, 2 if bottom > 1 / 2 else 10)
                if percent / 100 > bottom
            ),
            *(
                label(x(tenths / 1000), low + 18, f"{tenths / 10} %", 'text-anchor="middle"')
                for tenths in range(0, int(right * 1000) + 1, 5)
            ),
            label(WIDTH / 2, HEIGHT - 16, "needless restarts, of those of documented", _MIDDLE),
            label(left, y(1) - 12, "cured, of what the oracle cures"),
            label(WIDTH - MARGIN, y(1) - 12, f"{len(seeds)} seeds", 'text-anchor="end"'),
            f'<polyline points="{line}" fill="none" stroke="#1f77b4"/>',
            *(dot(score, "#bbbbbb", 3) for score in scores if score not in best),
            *(dot(score, "#1f77b4", 4) for score in best),
            dot(default, "#d62728", 5),
            label(x(default.needless) + 8, y(default.cured) + 4, "defaults", 'fill="#d62728"'),
            "</svg>\n",
        ]
    )


_FONT = 'font-family="sans-serif" font-size="12"'
_DASHED = 'fill="none" stroke="gray" stroke-dasharray="4"'
_MIDDLE = 'text-anchor="middle"'

if __name__ == "__main__":
    main()
