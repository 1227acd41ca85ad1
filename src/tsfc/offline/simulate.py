"""`tsfc simulate`: what the watchdog would do in a simulated tailnet.

The tailnet is a `World`. Its status goes through the same decoder and the same job as
on a node, and a restart is applied to the world. The same scenario, seed and policy
give the same output, to the byte.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace
from returns.result import Failure

from tsfc.core.evaluation import output, summary
from tsfc.core.evaluation import policies as compare
from tsfc.core.evaluation.observation import Observation, line, status_of
from tsfc.core.evaluation.statistics import Statistics, update
from tsfc.core.evaluation.timeline import Timeline, record
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.remedy import Attempt, Done, Outcome
from tsfc.core.watchdog.track import DIRECT
from tsfc.offline.host import OfflineHost
from tsfc.offline.parallel import ParallelError, run_all
from tsfc.offline.progress import shown
from tsfc.offline.report import document as pages
from tsfc.offline.report import report
from tsfc.offline.simulation import scenario
from tsfc.offline.simulation.scenario import Scenario
from tsfc.offline.simulation.world import World
from tsfc.shell.atomic import atomic_write
from tsfc.shell.console import print_error, write_out

TOOL = "simulate"
DAY_SECONDS = 86400
BETTER_MORE = frozenset({"direct_seconds", "recoveries"})
"Numbers that are worst when they are small."
BLOCK = 16
"""Maximum number of seeds per task. Each task carries the scenario; a seed takes about
a second."""
ENOUGH_BLOCKS = 64
"Number of tasks below which each task has a single seed."
SPREAD_COLUMNS = (
    "restarts",
    "needless_restarts",
    "relay_seconds",
    "unserved_relay_seconds",
    "daemon_down_seconds",
)
"Columns of a comparison over many seeds."


class Task(Struct, frozen=True):
    """One simulation, with all that a worker process needs."""

    scenario: Scenario
    policy: Policy
    seed: int
    seconds: float


class Simulated(Struct, frozen=True):
    """Result of one simulation."""

    statistics: Statistics
    extra: dict[str, int]
    "Numbers that only a simulation knows."

    def numbers(self) -> dict[str, int]:
        """Return all numbers."""
        return summary.counts(self.statistics) | self.extra


class Options(Struct, frozen=True):
    """Options of `tsfc simulate`."""

    scenario: str | None
    policy: Policy
    comparisons: tuple[str, ...]
    days: float | None
    seed: int
    runs: int
    is_json: bool
    capture: str | None
    report: str | None
    cluster: str | None
    "Address of a Dask scheduler; None to use this machine."


def run(options: Options) -> int:
    """Simulate, and return the exit status."""
    if options.scenario is None:
        print_error(
            TOOL,
            "there is no scenario: give a built-in one (`tsfc simulate --list`) or a TOML file",
        )
        return 2
    found = scenario.find(options.scenario)
    if isinstance(found, Failure):
        print_error(TOOL, found.failure())
        return 1
    policies = compare.policies(options.policy, options.comparisons)
    if isinstance(policies, Failure):
        print_error(TOOL, policies.failure())
        return 2
    if options.report is not None and (missing := report.missing()) is not None:
        print_error(TOOL, missing)
        return 1
    wanted = found.unwrap()
    seconds = (
        scenario.duration_seconds(wanted) if options.days is None else options.days * DAY_SECONDS
    )
    if options.runs == 1 and not options.comparisons and options.cluster is None:
        return _one(options, Task(wanted, options.policy, options.seed, seconds))
    if options.capture is not None:
        print_error(
            TOOL,
            "--capture needs a single run under one policy on this machine; "
            "remove --runs, --compare and --cluster",
        )
        return 2
    return _many(options, policies.unwrap(), wanted, seconds)


def print_list() -> int:
    """Print the names and summaries of the built-in scenarios."""
    builtin = scenario.builtin()
    width = max(map(len, builtin))
    write_out("".join(f"{name:{width}}  {found.summary}\n" for name, found in builtin.items()))
    return 0


def print_schema() -> int:
    """Print the JSON Schema of scenarios."""
    write_out(msgspec.json.format(msgspec.json.encode(scenario.schema()), indent=2) + b"\n")
    return 0


def simulate(
    task: Task,
    write: Callable[[int, tuple[str, ...]], None],
    *,
    keep: Callable[[Observation], None] | None = None,
    timeline: Timeline | None = None,
) -> Simulated:
    """Simulate one tailnet.

    `write` gets the time and the lines of each run, `keep` its observation. Each run is
    added to `timeline`, if there is one.
    """
    world = World(task.scenario, task.seed)
    statistics = Statistics()
    needless = curable = 0
    unserved = before = 0.0

    def apply(_: Attempt) -> Outcome:
        nonlocal needless
        needless += not world.restart()
        return Done()

    host = OfflineHost(apply)
    while (at := world.next_watchdog_run()) < task.seconds:
        world.advance(at)
        unserved += (at - before) * curable
        shows, now = world.observe(), world.instant()
        observation = (
            Observation(now.unix, now.boot, fault=shows)
            if isinstance(shows, str)
            else Observation(now.unix, now.boot, status=Raw(shows))
        )
        if keep is not None:
            keep(observation)
        observed = status_of(observation)
        run, lines = host.run(observed, now=now, policy=task.policy)
        update(statistics, run)
        if timeline is not None:
            record(timeline, run, observed, lines, statistics)
        if lines:
            write(now.unix, lines)
        curable = sum(
            world.curable(verdict.peer)
            for verdict in run.verdicts or ()
            if verdict.reason not in DIRECT
        )
        before = at
    world.advance(task.seconds)
    seconds = {"daemon_down_seconds": world.daemon_down_seconds, "unserved_relay_seconds": unserved}
    return Simulated(
        statistics,
        {"needless_restarts": needless} | {name: round(value) for name, value in seconds.items()},
    )


def _one(options: Options, task: Task) -> int:
    """Simulate once, and print the lines as they come."""
    is_first = True

    def write(unix: int, lines: tuple[str, ...]) -> None:
        nonlocal is_first
        write_out(output.log_lines(unix, lines, is_json=options.is_json, is_first=is_first))
        is_first = False

    write_out(
        output.opening("scenario", str(options.scenario), is_json=options.is_json, has_header=False)
    )
    timeline = None if options.report is None else Timeline()
    if options.capture is None:
        simulated = simulate(task, write, timeline=timeline)
    else:
        try:
            with _capture(options.capture) as keep:
                simulated = simulate(task, write, keep=keep, timeline=timeline)
        except OSError as error:
            print_error(
                TOOL,
                f"writing {options.capture}: {error.strerror}; "
                "check permissions and disk space, or set another --capture",
            )
            return 1
    write_out(output.closing(simulated.statistics, simulated.extra, (), is_json=options.is_json))
    return (
        0
        if options.report is None or timeline is None
        else report.write(TOOL, options.report, _document(options, task, simulated, timeline))
    )


def _many(options: Options, policies: Sequence[Policy], wanted: Scenario, seconds: float) -> int:
    """Simulate each policy with each seed, and print the distributions."""
    seeds = range(options.seed, options.seed + options.runs)
    tasks = [Task(wanted, policy, seed, seconds) for policy in policies for seed in seeds]
    blocks = _blocks(tasks)
    try:
        numbers = [
            number
            for block in shown(
                run_all(_numbers, blocks, cluster=options.cluster), len(blocks), "blocks of seeds"
            )
            for number in block
        ]
    except ParallelError as problem:
        print_error(TOOL, str(problem))
        return 1
    counted = [
        numbers[first : first + options.runs] for first in range(0, len(numbers), options.runs)
    ]
    if options.is_json:
        write_out(_json(options, policies, counted))
    else:
        write_out(_text(policies, counted))
    if options.report is None:
        return 0
    timeline = Timeline()
    first = _document(
        options,
        tasks[0],
        simulate(tasks[0], lambda _unix, _lines: None, timeline=timeline),
        timeline,
    )
    if options.runs == 1:
        columns, rows = _compared(policies, counted)
        return report.write(
            TOOL, options.report, replace(first, comparison=pages.Table(columns, rows))
        )
    return report.write(
        TOOL,
        options.report,
        pages.of_many(first, options.runs, policies, [_spreads(runs) for runs in counted]),
    )


def spread_of(values: Sequence[int], *, is_better_more: bool) -> dict[str, int]:
    """Median, 5th and 95th percentile (nearest rank), and the worst value."""
    ordered = sorted(values)

    def rank(percent: int) -> int:
        return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]

    return {
        "median": rank(50),
        "p5": rank(5),
        "p95": rank(95),
        "worst": ordered[0] if is_better_more else ordered[-1],
    }


def _spreads(runs: Sequence[Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {
        name: spread_of([numbers[name] for numbers in runs], is_better_more=name in BETTER_MORE)
        for name in runs[0]
    }


def _json(
    options: Options, policies: Sequence[Policy], counted: Sequence[Sequence[Mapping[str, int]]]
) -> bytes:
    rows = [
        {"policy": summary.policy_object(policy), "distributions": _spreads(runs), "runs": runs}
        for policy, runs in zip(policies, counted, strict=True)
    ]
    return (
        msgspec.json.encode({"scenario": options.scenario, "seed": options.seed, "compare": rows})
        + b"\n"
    )


def _text(policies: Sequence[Policy], counted: Sequence[Sequence[Mapping[str, int]]]) -> str:
    if len(counted[0]) == 1:
        return summary.table(*_compared(policies, counted))
    tables: list[str] = []
    for policy, runs in zip(policies, counted, strict=True):
        rows = [
            (name.replace("_", " "), *(str(value) for value in spread.values()))
            for name, spread in _spreads(runs).items()
        ]
        tables.append(
            f"{summary.policy_text(policy)}, {len(runs)} runs\n"
            + summary.table(("", "median", "p5", "p95", "worst"), rows)
        )
    return "\n".join(tables)


def _compared(
    policies: Sequence[Policy], counted: Sequence[Sequence[Mapping[str, int]]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of a comparison with one run per policy."""
    rows = [
        (summary.policy_text(policy), *(str(runs[0][name]) for name in SPREAD_COLUMNS))
        for policy, runs in zip(policies, counted, strict=True)
    ]
    return ("policy", *(name.replace("_", " ") for name in SPREAD_COLUMNS)), rows


def _document(
    options: Options, task: Task, simulated: Simulated, timeline: Timeline
) -> pages.Document:
    title = f"Simulation of {options.scenario}"
    return pages.of_one(
        title,
        task.policy,
        simulated.statistics,
        timeline,
        extra=simulated.extra | {"seed": task.seed},
        notes=(task.scenario.summary,),
    )


def _blocks(tasks: Sequence[Task]) -> list[Sequence[Task]]:
    """Split the tasks into blocks, one for each worker at a time."""
    size = min(BLOCK, max(1, len(tasks) // ENOUGH_BLOCKS))
    return [tasks[first : first + size] for first in range(0, len(tasks), size)]


def _numbers(block: Sequence[Task]) -> list[dict[str, int]]:
    return [simulate(task, lambda _unix, _lines: None).numbers() for task in block]


@contextmanager
def _capture(path: str) -> Generator[Callable[[Observation], None]]:
    """Yield a function that writes an observation to a new capture.

    The capture appears when it is complete.
    """
    with (
        atomic_write(path, f"{path}.tmp", 0o644) as descriptor,
        open(descriptor, "wb", closefd=False) as file,
        _packed(path, file) as packed,
    ):

        def keep(observation: Observation) -> None:
            packed.write(line(observation))

        yield keep


def _packed(path: str, file: BinaryIO) -> BinaryIO | gzip.GzipFile:
    if path.endswith(".gz"):
        return gzip.GzipFile("", "wb", fileobj=file, mtime=0)
    if path.endswith(".zst"):
        import zstandard  # noqa: PLC0415 - most captures are not

        return zstandard.ZstdCompressor().stream_writer(file, closefd=False)
    return file
