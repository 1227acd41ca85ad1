"""`tsfc replay`: show what the watchdog would have done during a capture.

Memory does not grow with the length of a capture: only the watchdog's state and the
statistics are kept. Each of several captures is replayed separately, as one node.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct, field
from returns.result import Failure

from tsfc.core.evaluation import candidate, output, policies, summary
from tsfc.core.evaluation.candidate import Bound, Candidate, watching
from tsfc.core.evaluation.observation import Observation, instant, parse_whole, status_of
from tsfc.core.evaluation.statistics import Statistics, update
from tsfc.core.evaluation.timeline import Timeline, record
from tsfc.core.text import PATH_LIMIT, printable, printable_json
from tsfc.core.watchdog.metrics import metrics
from tsfc.core.watchdog.run import Run
from tsfc.offline.capture.read import Broken, Skipped, observations
from tsfc.offline.comparison import Comparison, worst
from tsfc.offline.host import OfflineHost
from tsfc.offline.parallel import ParallelError, run_all
from tsfc.offline.progress import Advance, measured, shown
from tsfc.offline.report import document, report
from tsfc.shell import textfile
from tsfc.shell.console import print_error, write_out

TOOL = "replay"
ERRORS_LIMIT = 20
"Maximum number of lines that are printed about damaged records of one capture."
COUNTERFACTUAL_NOTE = (
    "the first restart that it would have made was at {at}: what that would have changed,"
    " a recording cannot show; see `tsfc simulate`"
)

Write = Callable[[str], None]
"Write a piece of the output."


class Task(Struct, frozen=True):
    """One capture to replay: all that another process has to know."""

    source: str
    policies: tuple[Candidate, ...]
    "At least one; not `Bound.ORACLE`."
    since: float
    "Unix time. Earlier observations are skipped."
    until: float
    "Unix time. Observations at this time or later are skipped."
    is_json: bool
    is_comparison: bool
    has_header: bool
    "Print the name of the capture before its text."

    @property
    def title(self) -> str:
        """The name of the capture in the output. A path may have any bytes."""
        return printable(self.source, PATH_LIMIT)


class ReadErrors(Struct):
    """Errors while reading one capture. Updated in place."""

    lines: list[str] = field(default_factory=list[str])
    "The first `ERRORS_LIMIT` of them, notes, and the one that ended the reading."
    number: int = 0
    is_complete: bool = True
    "The capture was read to its end."


class Replay(Struct, frozen=True):
    """Result of replaying one capture."""

    statistics: tuple[Statistics, ...]
    "One per policy."
    last_run: Run | None
    "Verdicts of the last run under the first policy."
    errors: tuple[str, ...]
    has_succeeded: bool
    "The capture was read to its end and had observations."


class Options(Struct, frozen=True):
    """Options of `tsfc replay`."""

    sources: tuple[str, ...]
    comparison: Comparison
    since: float
    until: float
    metrics_path: str | None


def run(options: Options) -> int:
    """Run the command; return its exit status."""
    if (error := usage_error(options)) is not None:
        print_error(TOOL, error)
        return 2
    comparison = options.comparison
    if comparison.report is not None:
        obstacle = report.obstacle(comparison.report)
        if obstacle is not None:
            print_error(TOOL, obstacle)
            return 1
    tasks = _tasks(options, comparison.policies().unwrap())
    if len(tasks) > 1 or comparison.cluster is not None:
        return _replay_all(tasks, comparison.cluster)
    return _replay_one(options, tasks[0])


def usage_error(options: Options) -> str | None:
    """Return one line if options are in conflict or cannot be parsed."""
    policies = options.comparison.policies()
    if isinstance(policies, Failure):
        return str(policies.failure())
    if Bound.ORACLE in policies.unwrap():
        return (
            "--compare policy=oracle needs to know the faults, which a recording does not show;"
            " see `tsfc simulate`"
        )
    is_parallel = len(options.sources) > 1 or options.comparison.cluster is not None
    if is_parallel and (options.metrics_path or options.comparison.report):
        return "--metrics-path and --report need a single capture, and no --cluster"
    return None


def replay(
    task: Task, write: Write, timeline: Timeline | None = None, advance: Advance | None = None
) -> Replay:
    """Replay one capture and write the output; return the result.

    The runs under the first policy are added to `timeline`. `advance` takes the number
    of observations until now.
    """
    statistics = tuple(Statistics() for _ in task.policies)
    hosts = tuple(OfflineHost() for _ in task.policies)
    first, *others = map(watching, task.policies)
    errors = ReadErrors()
    last_run: Run | None = None
    log = output.Log(task.is_json)
    if not task.is_comparison:
        write(
            output.opening("capture", task.title, is_json=task.is_json, has_header=task.has_header)
        )

    for observation in _selected(task, errors):
        observed, now = status_of(observation), instant(observation)
        start = observation.tailscaled_start

        # The other policies are only counted.
        for other, host, policy in zip(statistics[1:], hosts[1:], others, strict=True):
            run, _ = host.run(observed, now=now, policy=policy, tailscaled_start=start)
            update(other, run)

        # The first policy is what the output and the timeline show.
        run, lines = hosts[0].run(observed, now=now, policy=first, tailscaled_start=start)
        update(statistics[0], run)
        if timeline is not None:
            record(timeline, run, observed, lines, statistics[0])
        if advance is not None:
            advance(statistics[0].observations)
        last_run = run
        if not task.is_comparison and (text := output.log_lines(log, now.unix, lines)):
            write(text)

    # Text about a capture without observations would be only zeros.
    if task.is_comparison:
        write(_comparison(task, statistics))
    elif task.is_json or statistics[0].observations:
        write(output.last_lines(log))
        write(output.closing(statistics[0], {}, notes(statistics[0]), is_json=task.is_json))
    return Replay(
        statistics,
        last_run,
        _error_lines(task, errors, statistics[0]),
        has_succeeded=errors.is_complete and statistics[0].observations > 0,
    )


def notes(*statistics: Statistics) -> tuple[str, ...]:
    """Return the notes for the reader: a restart would have changed what follows it."""
    restarts = [one.first_restart for one in statistics if one.first_restart is not None]
    if not restarts:
        return ()
    return (COUNTERFACTUAL_NOTE.format(at=summary.utc(min(restarts))),)


def _comparison(task: Task, statistics: Sequence[Statistics]) -> str:
    """Return the policies side by side, as a table or as JSON."""
    note = next(iter(notes(*statistics)), None)
    if task.is_json:
        rows = [
            {"policy": candidate.as_object(policy), **summary.counts(one)}
            for policy, one in zip(task.policies, statistics, strict=True)
        ]
        comparison = {"capture": task.title, "compare": rows, "note": note}
        return printable_json(comparison) + "\n"
    header = f"== {task.title}\n" if task.has_header else ""
    table = summary.table(*_table(task, statistics))
    return header + table + (f"note: {note}\n" if note else "")


def _table(
    task: Task, statistics: Sequence[Statistics]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return policies.table(task.policies, [summary.counts(one) for one in statistics])


def _selected(task: Task, errors: ReadErrors) -> Iterator[Observation]:
    """Return the observations from `since` to `until`; add read errors to `errors`."""
    for read in observations(task.source, parse_whole):
        if not isinstance(read, Observation):
            errors.number += 1
            errors.is_complete = errors.is_complete and not isinstance(read, Broken)
            if len(errors.lines) < ERRORS_LIMIT or not isinstance(read, Skipped):
                errors.lines.append(read.detail)
        elif task.since <= read.captured_at < task.until:
            yield read


def _error_lines(task: Task, errors: ReadErrors, statistics: Statistics) -> tuple[str, ...]:
    lines = list(errors.lines)
    if (omitted := errors.number - len(errors.lines)) > 0:
        lines.append(f"reading {task.source}: {omitted} more errors like these")
    if errors.is_complete and not statistics.observations:
        lines.append(
            f"replaying {task.source}: no observations;"
            " give another capture, or change --from and --to"
        )
    return tuple(lines)


def _tasks(options: Options, policies: tuple[Candidate, ...]) -> list[Task]:
    return [
        Task(
            source,
            policies,
            options.since,
            options.until,
            is_json=options.comparison.is_json,
            is_comparison=bool(options.comparison.comparisons),
            has_header=len(options.sources) > 1,
        )
        for source in options.sources
    ]


def _replay_one(options: Options, task: Task) -> int:
    """Replay in this process, and write the output as it comes."""
    report_path = options.comparison.report
    timeline = None if report_path is None else Timeline()
    with measured(None, "observations") as (advance, write):
        replayed = replay(task, write, timeline, advance)
    status = _print_errors(replayed)
    if options.metrics_path is not None and replayed.statistics[0].observations:
        status = worst(status, _write_metrics(options.metrics_path, task, replayed))
    if report_path is not None and timeline is not None and timeline.last is not None:
        status = worst(status, _write_report(report_path, task, replayed, timeline))
    return status


def _replay_all(tasks: Sequence[Task], cluster: str | None) -> int:
    """Replay many captures in parallel; write the outputs in their order."""
    results = run_all(_replay_packed, tasks, cluster=cluster)
    try:
        statuses = [
            _write_packed(packed, replayed)
            for packed, replayed in shown(results, len(tasks), "captures")
        ]
    except ParallelError as error:
        print_error(TOOL, str(error))
        return 1
    return worst(*statuses)


def _replay_packed(task: Task) -> tuple[bytes, Replay]:
    """Replay in another process. Return the output compressed, to about a twentieth."""
    packer = zlib.compressobj(1)
    pieces: list[bytes] = []
    replayed = replay(task, lambda text: pieces.append(packer.compress(text.encode())))
    return b"".join((*pieces, packer.flush())), replayed


def _write_packed(packed: bytes, replayed: Replay) -> int:
    unpacker = zlib.decompressobj()
    while packed:
        write_out(unpacker.decompress(packed, 2**20))
        packed = unpacker.unconsumed_tail
    write_out(unpacker.flush())
    return _print_errors(replayed)


def _print_errors(replayed: Replay) -> int:
    for error in replayed.errors:
        print_error(TOOL, error)
    return int(not replayed.has_succeeded)


def _write_metrics(path: str, task: Task, replayed: Replay) -> int:
    """Write the watchdog's metrics after the last observation."""
    from tsfc.core.metrics.exposition import render  # noqa: PLC0415 - slow to import

    if replayed.last_run is None:
        return 1
    written = textfile.write(path, render(metrics(replayed.last_run, watching(task.policies[0]))))
    if isinstance(written, Failure):
        print_error(TOOL, written.failure())
        return 1
    return 0


def _write_report(path: str, task: Task, replayed: Replay, timeline: Timeline) -> int:
    statistics = replayed.statistics
    comparison = document.Table(*_table(task, statistics)) if task.is_comparison else None
    content = document.of_one(
        f"Replay of {task.title}",
        task.policies[0],
        statistics[0],
        timeline,
        node=timeline.node_name,
        extra={},
        notes=[*notes(statistics[0]), *replayed.errors],
        comparison=comparison,
    )
    return report.write(TOOL, path, content)
