"""`tsfc replay`: what the watchdog would have logged and done on a capture.

Observations are evaluated one by one. Memory holds the state and the statistics, so it
does not grow with the length of the capture. Several captures are several nodes,
evaluated separately.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec import Struct, field
from returns.result import Failure

from tsfc.core.evaluation import output, summary
from tsfc.core.evaluation import policies as compare
from tsfc.core.evaluation.observation import Observation, instant, status_of
from tsfc.core.evaluation.statistics import Statistics, update
from tsfc.core.evaluation.timeline import Timeline, record
from tsfc.core.watchdog.metrics import metrics
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.track import Verdict
from tsfc.offline.capture.read import Broken, Skipped, observations
from tsfc.offline.host import OfflineHost
from tsfc.offline.parallel import ParallelError, run_all
from tsfc.offline.progress import shown
from tsfc.offline.report import document as pages
from tsfc.offline.report import report
from tsfc.shell import textfile
from tsfc.shell.console import print_error, write_out

TOOL = "replay"
COMPLAINTS_LIMIT = 20
"Maximum number of errors to print per capture; the rest is counted."
COUNTERFACTUAL_NOTE = (
    "the first restart that it would have made was at {at}: what that would have changed, "
    "a recording cannot show; see `tsfc simulate`"
)

Write = Callable[[str], None]
"Write a piece of the output."


class Task(Struct, frozen=True):
    """One capture to replay, with all that a worker process needs."""

    source: str
    policies: tuple[Policy, ...]
    "The policy, or all policies to compare."
    since: float
    until: float
    "Unix time. Observations from `since` on and before `until` are replayed."
    is_json: bool
    is_comparison: bool
    has_header: bool
    "Whether to print the name of the capture, because there are several."


class Troubles(Struct):
    """Errors of reading one capture, updated in place."""

    lines: list[str] = field(default_factory=list[str])
    number: int = 0
    is_whole: bool = True
    "Whether the capture was read to its end."


class Folded(Struct, frozen=True):
    """Result of one capture."""

    tallies: tuple[Statistics, ...]
    "One for each policy."
    verdicts: tuple[Verdict, ...] | None
    "Verdicts of the last run, under the first policy."
    complaints: tuple[str, ...]
    is_whole: bool
    "Whether the capture was read to its end and had an observation."


class Options(Struct, frozen=True):
    """Options of `tsfc replay`."""

    sources: tuple[str, ...]
    policy: Policy
    comparisons: tuple[str, ...]
    since: float
    until: float
    is_json: bool
    metrics_path: str | None
    report: str | None
    cluster: str | None
    "Address of a Dask scheduler; None to use this machine."


def run(options: Options) -> int:
    """Replay, and return the exit status."""
    policies = compare.policies(options.policy, options.comparisons)
    if isinstance(policies, Failure):
        print_error(TOOL, policies.failure())
        return 2
    several = len(options.sources) > 1
    if (several or options.cluster is not None) and (options.metrics_path or options.report):
        print_error(
            TOOL,
            "--metrics-path and --report need a single capture on this machine; "
            "give one capture, and no --cluster",
        )
        return 2
    if options.report is not None and (missing := report.missing()) is not None:
        print_error(TOOL, missing)
        return 1
    tasks = [
        Task(
            source,
            policies.unwrap(),
            options.since,
            options.until,
            options.is_json,
            bool(options.comparisons),
            several,
        )
        for source in options.sources
    ]
    if several or options.cluster is not None:
        return _run_all(tasks, options.cluster)
    timeline = None if options.report is None else Timeline()
    folded = replay(tasks[0], write_out, timeline)
    status = _told(folded)
    if options.metrics_path is not None and folded.tallies[0].state.last_run is not None:
        status = _write_metrics(options.metrics_path, tasks[0], folded) or status
    if options.report is not None and timeline is not None and timeline.last is not None:
        status = _write_report(options.report, tasks[0], folded, timeline) or status
    return status


def replay(task: Task, write: Write, timeline: Timeline | None = None) -> Folded:
    """Replay one capture and write the output.

    Add each run under the first policy to `timeline`, if there is one.
    """
    tallies = tuple(Statistics() for _ in task.policies)
    hosts = tuple(OfflineHost() for _ in task.policies)
    troubles = Troubles()
    verdicts: tuple[Verdict, ...] | None = None
    is_first = True
    if not task.is_comparison:
        write(
            output.opening("capture", task.source, is_json=task.is_json, has_header=task.has_header)
        )
    for observation in _observed(task, troubles):
        observed, now = status_of(observation), instant(observation)
        for statistics, host, policy in zip(tallies[1:], hosts[1:], task.policies[1:], strict=True):
            update(statistics, host.run(observed, now=now, policy=policy)[0])
        run, lines = hosts[0].run(observed, now=now, policy=task.policies[0])
        update(tallies[0], run)
        if timeline is not None:
            record(timeline, run, observed, lines, tallies[0])
        verdicts = run.verdicts
        if lines and not task.is_comparison:
            write(output.log_lines(now.unix, lines, is_json=task.is_json, is_first=is_first))
            is_first = False
    complaints = _complaints(task, troubles, tallies[0])
    if task.is_comparison:
        write(comparison(task, tallies))
    elif task.is_json or tallies[0].observations:
        write(output.closing(tallies[0], {}, notes(tallies[0]), is_json=task.is_json))
    return Folded(tallies, verdicts, complaints, troubles.is_whole and tallies[0].observations > 0)


def notes(statistics: Statistics) -> tuple[str, ...]:
    """Notes on how to read the numbers."""
    return (
        ()
        if statistics.first_restart is None
        else (COUNTERFACTUAL_NOTE.format(at=summary.utc(statistics.first_restart)),)
    )


def comparison(task: Task, tallies: Sequence[Statistics]) -> str:
    """Return the policies side by side, as a table or as a JSON object."""
    first = min(
        (
            statistics.first_restart
            for statistics in tallies
            if statistics.first_restart is not None
        ),
        default=None,
    )
    note = None if first is None else COUNTERFACTUAL_NOTE.format(at=summary.utc(first))
    if task.is_json:
        rows = [
            {"policy": summary.policy_object(policy), **summary.counts(statistics)}
            for policy, statistics in zip(task.policies, tallies, strict=True)
        ]
        return (
            msgspec.json.encode({"capture": task.source, "compare": rows, "note": note}).decode()
            + "\n"
        )
    header = f"== {task.source}\n" if task.has_header else ""
    return header + summary.table(*_compared(task, tallies)) + (f"note: {note}\n" if note else "")


def _compared(
    task: Task, tallies: Sequence[Statistics]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    return compare.table(task.policies, [summary.counts(statistics) for statistics in tallies])


def _observed(task: Task, troubles: Troubles) -> Iterator[Observation]:
    """Yield the observations within the time range, and record what cannot be read."""
    for read in observations(task.source):
        if not isinstance(read, Observation):
            troubles.number += 1
            troubles.is_whole = troubles.is_whole and isinstance(read, Skipped)
            if len(troubles.lines) < COMPLAINTS_LIMIT or isinstance(read, Broken):
                troubles.lines.append(read.detail)
        elif task.since <= read.captured_at < task.until:
            yield read


def _complaints(task: Task, troubles: Troubles, statistics: Statistics) -> tuple[str, ...]:
    unsaid = troubles.number - len(troubles.lines)
    more = (f"reading {task.source}: and {unsaid} more such lines",) if unsaid else ()
    nothing = (
        f"replaying {task.source}: there is no observation in it; "
        "give a capture, and a --from and --to within its times"
    )
    return (
        *troubles.lines,
        *more,
        *(() if statistics.observations or not troubles.is_whole else (nothing,)),
    )


def _run_all(tasks: Sequence[Task], cluster: str | None) -> int:
    """Replay several captures in parallel; their output keeps their order."""
    try:
        return max(
            _unpacked(packed, folded)
            for packed, folded in shown(
                run_all(_packed, tasks, cluster=cluster), len(tasks), "captures"
            )
        )
    except ParallelError as problem:
        print_error(TOOL, str(problem))
        return 1


def _packed(task: Task) -> tuple[bytes, Folded]:
    """Replay in a worker process.

    The output is compressed, because log lines shrink to a twentieth.
    """
    packer = zlib.compressobj(1)
    pieces: list[bytes] = []
    folded = replay(task, lambda text: pieces.append(packer.compress(text.encode())))
    return b"".join((*pieces, packer.flush())), folded


def _unpacked(packed: bytes, folded: Folded) -> int:
    unpacker = zlib.decompressobj()
    while packed:
        write_out(unpacker.decompress(packed, 2**20))
        packed = unpacker.unconsumed_tail
    write_out(unpacker.flush())
    return _told(folded)


def _told(folded: Folded) -> int:
    for complaint in folded.complaints:
        print_error(TOOL, complaint)
    return int(not folded.is_whole)


def _write_metrics(path: str, task: Task, folded: Folded) -> int:
    from tsfc.core.metrics.exposition import render  # noqa: PLC0415 - prometheus_client is most of a start

    state = folded.tallies[0].state
    if state.last_run is None:
        return 1
    written = textfile.write(
        path, render(metrics(state, folded.verdicts, now=state.last_run, policy=task.policies[0]))
    )
    if isinstance(written, Failure):
        print_error(TOOL, written.failure())
        return 1
    return 0


def _write_report(path: str, task: Task, folded: Folded, timeline: Timeline) -> int:
    comparison = pages.Table(*_compared(task, folded.tallies)) if task.is_comparison else None
    said = [*notes(folded.tallies[0]), *folded.complaints]
    document = pages.of_one(
        f"Replay of {task.source}",
        task.policies[0],
        folded.tallies[0],
        timeline,
        extra={},
        notes=said,
        comparison=comparison,
    )
    return report.write(TOOL, path, document)
