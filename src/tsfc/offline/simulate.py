"""`tsfc simulate`: show what the watchdog would do in a simulated tailnet.

A `World` simulates the tailnet. The watchdog sees its status and decides as it does on
a node. Restarts are applied to the world. The same scenario, seed and policy give
the same output, to the byte.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.clock import Instant
from tsfc.core.evaluation import candidate, output, policies, summary
from tsfc.core.evaluation.candidate import Bound, Candidate, watching
from tsfc.core.evaluation.observation import Observation, line, status_of
from tsfc.core.evaluation.statistics import Statistics, update
from tsfc.core.evaluation.timeline import Timeline, record
from tsfc.core.faults import Down, Fault
from tsfc.core.tailscale.status import Status
from tsfc.core.text import PATH_LIMIT, printable, printable_json
from tsfc.core.watchdog.policy import GuardedPolicy, Policy
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Done, Failed, Outcome, Remedy
from tsfc.core.watchdog.run import Run
from tsfc.core.watchdog.track import DIRECT
from tsfc.offline.comparison import Comparison
from tsfc.offline.host import OfflineHost
from tsfc.offline.parallel import ParallelError, run_all
from tsfc.offline.progress import Advance, measured, shown
from tsfc.offline.report import document, report
from tsfc.offline.simulation import scenario
from tsfc.offline.simulation.scenario import HOUR, Scenario
from tsfc.offline.simulation.world import World
from tsfc.shell.atomic import NotRegularError, atomic_write, temporary_path
from tsfc.shell.console import print_error, write_out

TOOL = "simulate"
DAY_SECONDS = 86400
RESTART_FAILED = (
    "restarting tailscaled: the simulated command failed; remove the event restart-fails"
)
LESS_IS_WORSE = frozenset({"direct_seconds", "recoveries"})
"Counts whose worst value is the smallest."
BLOCK_LIMIT = 16
"Maximum seeds per block. Each block carries the scenario; a seed takes about a second."
ENOUGH_BLOCKS = 64
"Number of blocks below which a block is a single seed, so that no worker is idle."
COMPARED_COLUMNS = (
    "restarts",
    "needless_restarts",
    "relay_seconds",
    "unserved_relay_seconds",
    "unserved_other_port_seconds",
    "harm_seconds",
    "daemon_down_seconds",
)
"Counts that a comparison of policies shows."


class Task(Struct, frozen=True):
    """One simulation: all that another process has to know."""

    scenario: Scenario
    policy: Candidate
    seed: int
    seconds: float


class Simulation(Struct, frozen=True):
    """Result of one simulation."""

    statistics: Statistics
    extra: dict[str, int]
    "Counts that only a simulation can know, by their JSON keys."

    def counts(self) -> dict[str, int]:
        """Return all counts by their JSON keys."""
        return summary.counts(self.statistics) | self.extra


class Options(Struct, frozen=True):
    """Options of `tsfc simulate`."""

    scenario: str | None
    comparison: Comparison
    days: float | None
    "None for the duration of the scenario."
    seed: int
    runs: int
    capture: str | None
    "Path of the capture to write."


Write = Callable[[int, tuple[str, ...]], None]
"Takes the Unix time and the lines of one run."
Keep = Callable[[Observation], None]
"Takes the observation of one run."


def run(options: Options) -> int:
    """Run the command; return its exit status."""
    if (error := usage_error(options)) is not None:
        print_error(TOOL, error)
        return 2
    found = scenario.find(options.scenario or "")
    if isinstance(found, Failure):
        print_error(TOOL, found.failure())
        return 1
    comparison = options.comparison
    if comparison.report is not None:
        obstacle = report.obstacle(comparison.report)
        if obstacle is not None:
            print_error(TOOL, obstacle)
            return 1
    if _is_single(options):
        return _simulate_one(options, _task(options, found.unwrap(), comparison.policy))
    return _simulate_all(options, found.unwrap(), comparison.policies().unwrap())


def usage_error(options: Options) -> str | None:
    """Return one line if options are missing, in conflict, or cannot be parsed."""
    if options.scenario is None:
        return "no scenario: give a built-in one (see `tsfc simulate --list`) or a TOML file"
    policies = options.comparison.policies()
    if isinstance(policies, Failure):
        return str(policies.failure())
    if options.capture is not None and not _is_single(options):
        return "--capture needs a single run; omit --runs, --compare and --cluster"
    return None


def print_list() -> int:
    """Print the built-in scenarios."""
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
    write: Write,
    *,
    keep: Keep | None = None,
    timeline: Timeline | None = None,
    advance: Advance | None = None,
) -> Simulation:
    """Simulate one tailnet; return the result.

    Runs are added to `timeline`. `advance` takes the simulated hours until now.
    """
    world = World(task.scenario, task.seed)
    statistics = Statistics()
    unnecessary_restarts = 0
    fixable_peers: Mapping[Remedy | None, int] = {}
    avoidable_relay_seconds = dict.fromkeys(Remedy, 0.0)
    before = 0.0

    def apply(attempt: Attempt) -> Outcome:
        nonlocal unnecessary_restarts
        if not world.can_restart():
            return Failed(RESTART_FAILED)
        unnecessary_restarts += not world.restart(attempt.remedy)
        return Done()

    host = OfflineHost(apply, world.ping)
    policy = watching(task.policy)
    while (at := world.next_watchdog_run(task.seconds)) is not None:
        # A remedy at the last run would have saved this relay time.
        for remedy in avoidable_relay_seconds:
            avoidable_relay_seconds[remedy] += (at - before) * fixable_peers.get(remedy, 0)
        before = at
        if advance is not None:
            advance(at / HOUR)
        if task.policy is Bound.ORACLE:
            world.cure()

        # Observe and run the watchdog, as on a node.
        now = world.instant()
        observed = _look(world) if keep is None else _captured(world, now, keep)
        start = world.tailscaled_start if isinstance(observed, Success) else None
        run, lines = host.run(observed, now=now, policy=policy, tailscaled_start=start)
        update(statistics, run)
        if timeline is not None:
            record(timeline, run, observed, lines, statistics)
        write(run.now.unix, lines)

        fixable_peers = _fixable_peers(world, run)
    return Simulation(
        statistics,
        {
            "needless_restarts": unnecessary_restarts,
            "daemon_down_seconds": round(world.daemon_down_seconds),
            "unserved_relay_seconds": round(avoidable_relay_seconds[Remedy.RESTART]),
            "unserved_other_port_seconds": round(avoidable_relay_seconds[Remedy.OTHER_PORT]),
            "harm_seconds": round(world.harm_seconds()),
            **_outcomes(policy, statistics),
        },
    )


def _outcomes(policy: Policy, statistics: Statistics) -> dict[str, int]:
    """Return how many remedies had each result, by JSON keys."""
    if not isinstance(policy, GuardedPolicy):
        return {}
    outcomes = statistics.state.memory.outcomes
    return {
        f"outcome_{remedy}_{result}".replace("-", "_"): outcomes.get(f"{remedy}/{result}", 0)
        for remedy in policy.remedies
        for result in AttemptResult
        if result is not AttemptResult.PENDING
    }


def _look(world: World) -> Result[Status, Fault]:
    status = world.status()
    return Failure(Down(status)) if isinstance(status, str) else Success(status)


def _captured(world: World, now: Instant, keep: Keep) -> Result[Status, Fault]:
    """Keep an observation, and decode its status as `_look` does."""
    status = world.observe()
    observation = (
        Observation(now.unix, now.boot, fault=status)
        if isinstance(status, str)
        else Observation(now.unix, now.boot, world.tailscaled_start, Raw(status))
    )
    keep(observation)
    return status_of(observation)


def _fixable_peers(world: World, run: Run) -> Mapping[Remedy | None, int]:
    """Return the number of peers on relay that each remedy would make direct."""
    return Counter(
        world.remedy_for(verdict.peer)
        for verdict in run.verdicts or ()
        if verdict.reason not in DIRECT
    )


def _is_single(options: Options) -> bool:
    """Whether there is one run, under one policy, on this machine."""
    comparison = options.comparison
    return options.runs == 1 and not comparison.comparisons and comparison.cluster is None


def _task(options: Options, chosen: Scenario, policy: Candidate) -> Task:
    seconds = (
        scenario.duration_seconds(chosen) if options.days is None else options.days * DAY_SECONDS
    )
    return Task(chosen, policy, options.seed, seconds)


def _simulate_one(options: Options, task: Task) -> int:
    """Simulate once, and write the output as it comes."""
    is_json = options.comparison.is_json
    log = output.Log(is_json)
    write_out(output.opening("scenario", _title(options), is_json=is_json, has_header=False))
    timeline = None if options.comparison.report is None else Timeline()
    try:
        with measured(task.seconds / HOUR, "simulated hours") as (advance, show):

            def write(unix: int, lines: tuple[str, ...]) -> None:
                if text := output.log_lines(log, unix, lines):
                    show(text)

            simulated = _simulate_captured(options.capture, task, write, timeline, advance)
    except OSError as error:
        advice = (
            "set --capture to a regular file"
            if isinstance(error, NotRegularError)
            else "give a writable --capture, or check disk space"
        )
        print_error(TOOL, f"writing {options.capture}: {error.strerror}; {advice}")
        return 1
    write_out(output.last_lines(log))
    write_out(output.closing(simulated.statistics, simulated.extra, (), is_json=is_json))
    if options.comparison.report is None or timeline is None:
        return 0
    return report.write(
        TOOL, options.comparison.report, _document(options, task, simulated, timeline)
    )


def _simulate_captured(
    path: str | None,
    task: Task,
    write: Write,
    timeline: Timeline | None,
    advance: Advance | None,
) -> Simulation:
    """Simulate, and write the observations to a capture if there is a path."""
    if path is None:
        return simulate(task, write, timeline=timeline, advance=advance)
    with _capture(path) as keep:
        return simulate(task, write, keep=keep, timeline=timeline, advance=advance)


def _simulate_all(options: Options, chosen: Scenario, policies: Sequence[Candidate]) -> int:
    """Simulate each policy with each seed in parallel, and write the distributions."""
    # Each policy runs with the same seeds.
    seeds = range(options.seed, options.seed + options.runs)
    tasks = [
        replace(_task(options, chosen, policy), seed=seed) for policy in policies for seed in seeds
    ]
    blocks = _blocks(tasks)
    results = run_all(_counts, blocks, cluster=options.comparison.cluster)
    try:
        counts = [one for block in shown(results, len(blocks), "blocks of seeds") for one in block]
    except ParallelError as error:
        print_error(TOOL, str(error))
        return 1

    # Group the counts by policy.
    by_policy = [
        counts[first : first + options.runs] for first in range(0, len(counts), options.runs)
    ]
    if options.comparison.is_json:
        write_out(_json(options, policies, by_policy))
    else:
        write_out(_text(policies, by_policy))
    if options.comparison.report is None:
        return 0
    return _write_report(options.comparison.report, options, tasks[0], policies, by_policy)


def _write_report(
    path: str,
    options: Options,
    first: Task,
    policies: Sequence[Candidate],
    by_policy: Sequence[Sequence[Mapping[str, int]]],
) -> int:
    """Write the report of many simulations. Its timeline is that of the first task."""
    timeline = Timeline()
    simulated = simulate(first, _discard, timeline=timeline)
    content = _document(options, first, simulated, timeline)
    if options.runs == 1:
        content = replace(content, comparison=document.Table(*_table(policies, by_policy)))
    else:
        distributions = [_distributions(runs) for runs in by_policy]
        content = document.of_many(content, options.runs, policies, distributions)
    return report.write(TOOL, path, content)


def distribution(values: Sequence[int], *, is_less_worse: bool) -> dict[str, int]:
    """Return the median, the 5th and 95th percentile (nearest rank) and the worst."""
    ordered = sorted(values)

    def percentile(percent: int) -> int:
        rank = -(-percent * len(ordered) // 100)
        return ordered[max(0, rank - 1)]

    return {
        "median": percentile(50),
        "p5": percentile(5),
        "p95": percentile(95),
        "worst": ordered[0] if is_less_worse else ordered[-1],
    }


def _distributions(runs: Sequence[Mapping[str, int]]) -> dict[str, dict[str, int]]:
    return {
        name: distribution([counts[name] for counts in runs], is_less_worse=name in LESS_IS_WORSE)
        for name in runs[0]
    }


def _title(options: Options) -> str:
    """Return the scenario's name for the output. A path may have any bytes."""
    return printable(options.scenario or "", PATH_LIMIT)


def _json(
    options: Options,
    policies: Sequence[Candidate],
    by_policy: Sequence[Sequence[Mapping[str, int]]],
) -> str:
    rows = [
        {
            "policy": candidate.as_object(policy),
            "distributions": _distributions(runs),
            "runs": runs,
        }
        for policy, runs in zip(policies, by_policy, strict=True)
    ]
    document = {"scenario": _title(options), "seed": options.seed, "compare": rows}
    return printable_json(document) + "\n"


def _text(policies: Sequence[Candidate], by_policy: Sequence[Sequence[Mapping[str, int]]]) -> str:
    if len(by_policy[0]) == 1:
        return summary.table(*_table(policies, by_policy))
    tables: list[str] = []
    for policy, runs in zip(policies, by_policy, strict=True):
        rows = [
            (name.replace("_", " "), *(str(value) for value in numbers.values()))
            for name, numbers in _distributions(runs).items()
        ]
        title = f"{candidate.text(policy)}, {len(runs)} runs\n"
        tables.append(title + summary.table(("", "median", "p5", "p95", "worst"), rows))
    return "\n".join(tables)


def _table(
    compared: Sequence[Candidate], by_policy: Sequence[Sequence[Mapping[str, int]]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the header and the rows of a comparison with one run per policy."""
    return policies.table(compared, [runs[0] for runs in by_policy], COMPARED_COLUMNS)


def _document(
    options: Options, task: Task, simulated: Simulation, timeline: Timeline
) -> document.Document:
    return document.of_one(
        f"Simulation of {_title(options)}",
        task.policy,
        simulated.statistics,
        timeline,
        extra=simulated.extra | {"seed": task.seed},
        notes=(task.scenario.summary,),
    )


def _blocks(tasks: Sequence[Task]) -> list[Sequence[Task]]:
    """Return the tasks in blocks: one worker simulates one block."""
    size = min(BLOCK_LIMIT, max(1, len(tasks) // ENOUGH_BLOCKS))
    return [tasks[first : first + size] for first in range(0, len(tasks), size)]


def _counts(block: Sequence[Task]) -> list[dict[str, int]]:
    return [simulate(task, _discard).counts() for task in block]


def _discard(_unix: int, _lines: tuple[str, ...]) -> None:
    """Ignore the lines of a run."""


@contextmanager
def _capture(path: str) -> Generator[Keep]:
    """Write a capture atomically. Yields a function that adds an observation."""
    with (
        atomic_write(path, temporary_path(path), 0o644) as descriptor,
        open(descriptor, "wb", closefd=False) as file,
        _compressed(path, file) as compressed,
    ):

        def keep(observation: Observation) -> None:
            compressed.write(line(observation))

        yield keep


def _compressed(path: str, file: BinaryIO) -> BinaryIO | gzip.GzipFile:
    """Return a file that compresses, as the suffix of the path says."""
    if path.endswith(".gz"):
        return gzip.GzipFile("", "wb", fileobj=file, mtime=0)
    if path.endswith(".zst"):
        import zstandard  # noqa: PLC0415 - most captures are not

        return zstandard.ZstdCompressor().stream_writer(file, closefd=False)
    return file
