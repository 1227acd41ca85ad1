"""`tsfc report-bug`: gather, redact, write one file, and say what is in it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.bugreport import document, machine, redaction
from tsfc.bugreport.document import Section
from tsfc.bugreport.redaction import Names
from tsfc.core.evaluation.observation import Observation, line, status_of
from tsfc.core.tailscale import naming
from tsfc.core.tailscale.peers import named
from tsfc.core.tailscale.status import Status
from tsfc.core.text import PATH_LIMIT, one_line, printable
from tsfc.core.watchdog.snapshot import Snapshot, encode
from tsfc.offline.capture import record
from tsfc.offline.capture.redact import redacted
from tsfc.shell import waiting
from tsfc.shell.atomic import write_new
from tsfc.shell.clocks import unix_time
from tsfc.shell.console import print_error, write_out
from tsfc.shell.system import System
from tsfc.shell.tailscaled.observe import RunOptions
from tsfc.view import doctor, table
from tsfc.view.cells import header_lines
from tsfc.view.look import observed_by, own_net_info, read_snapshot
from tsfc.view.model import make_view, without_hidden
from tsfc.view.selection import EVERYTHING, select

TOOL = "report-bug"
METRIC_LINES = 3000
"Lines of a metrics file in the report; that of 100 peers has 2,000."
FREE_TEXT = frozenset({"kernel", "machine", "distribution"})
"Versions that whoever builds the system can choose."


class Options(Struct, frozen=True):
    """Options of `tsfc report-bug`, in addition to those of all jobs."""

    watchdog_metrics: str
    "Path of the watchdog's metrics; other jobs write to the same directory."
    output: str | None
    "None for a name with the time, in the working directory."
    peers: tuple[str, ...]
    "Peers whose pseudonyms are printed, but not written."


class _Node(Struct, frozen=True):
    """The node before and after redaction. The statuses are None if there is none."""

    original: Status | None
    status: Status | None
    observation: Observation
    "Redacted."
    names: Names
    fault: str | None
    "Why there is no status; not redacted."


def run(common: RunOptions, options: Options) -> int:
    """Write the report, print what is in it, and return the exit status."""
    path = os.path.abspath(options.output or _default_path(common))
    if os.path.lexists(path):
        print_error(TOOL, f"writing {path}: it exists; set --output to a new file")
        return 1
    node = _observe(common, secrets.token_bytes(32))
    sections, missing = _sections(common, options, node)
    pseudonyms = [_pseudonym(peer, node) for peer in options.peers]
    written = _write(path, document.render(sections))
    if isinstance(written, Failure):
        print_error(TOOL, written.failure())
        return 1
    write_out(
        "".join(
            (
                f"The report is {printable(path, PATH_LIMIT)}, readable only by you.\n",
                document.contents(sections, missing),
                *(f"{one_line(line)}\n" for line in pseudonyms),
            )
        )
    )
    return 0


def _observe(common: RunOptions, key: bytes) -> _Node:
    observation, fault = record.observe(common)
    other = redacted(observation, key)
    original, status = status_of(observation), status_of(other)
    if isinstance(original, Failure) or isinstance(status, Failure):
        return _Node(None, None, other, Names(key), None if fault is None else fault.detail)
    names = redaction.names_of(original.unwrap(), status.unwrap(), key)
    return _Node(original.unwrap(), status.unwrap(), other, names, None)


def _sections(
    common: RunOptions, options: Options, node: _Node
) -> tuple[tuple[Section, ...], tuple[str, ...]]:
    """Return the redacted sections, and one line for each thing that is missing.

    Those lines have no pseudonyms: the user has to act on them.
    """
    names, missing = node.names, list[str]()
    unit_files = _value(machine.units(), missing, "")
    read = read_snapshot(options.watchdog_metrics)
    snapshot = read.value_or(None)
    if isinstance(read, Failure):
        missing.append(f"{read.failure()}; set --watchdog-metrics")
    if node.fault is not None:
        missing.append(node.fault)
    sections = (
        Section("versions", _versions(node)),
        *_views(common, node, snapshot),
        *_units(unit_files, missing, names),
        *_journal(unit_files, missing, names),
        *_metrics(options.watchdog_metrics, unit_files, missing, names),
        *_snapshot_section(snapshot, node),
        Section(document.STATUS, (line(node.observation).decode().removesuffix("\n"),)),
    )
    lines = tuple(map(one_line, dict.fromkeys(missing)))
    return (Section("missing", _redacted(lines, names)), *sections) if lines else sections, lines


T = TypeVar("T")


def _value(result: Result[T, str], missing: list[str], default: T) -> T:
    """The value of a result; of a failure, the default, with a line in `missing`."""
    if isinstance(result, Failure):
        missing.append(result.failure())
        return default
    return result.unwrap()


def _versions(node: _Node) -> tuple[str, ...]:
    tailscaled = "" if node.status is None else node.status.version
    return (
        *([f"tailscaled: {one_line(tailscaled)}"] if tailscaled else []),
        *(
            f"{name}: {redaction.release(text, node.names) if name in FREE_TEXT else text}"
            for name, text in machine.versions().items()
        ),
    )


def _views(common: RunOptions, node: _Node, snapshot: Snapshot | None) -> tuple[Section, ...]:
    """What `tsfc doctor` and `tsfc peers` say, if there is a status.

    Both see only the redacted status and snapshot, so they cannot print a name.
    """
    if node.original is None or node.status is None:
        return ()
    system = System(TOOL, common)
    observed = observed_by(system, node.status, snapshot)
    view = without_hidden(
        make_view(
            observed,
            None if snapshot is None else redaction.snapshot(snapshot, node.original, node.names),
            now=redaction.instant(system.now(), node.names),
            pings={},
        )
    )
    found = doctor.findings(view, waiting.run(own_net_info(common, node.original)))
    rows = select(view, EVERYTHING)
    peers = table.render(view, rows, header_lines(view), is_terminal=False)
    return (
        Section("tsfc doctor", tuple(doctor.render(view, found).splitlines())),
        Section("tsfc peers", tuple(peers.splitlines())),
    )


def _units(unit_files: str, missing: list[str], names: Names) -> Iterator[Section]:
    if not unit_files:
        return
    states = _value(machine.states(), missing, "")
    yield Section("states of the units", _redacted(states.splitlines(), names))
    lines = (redaction.unit(text, names) for text in unit_files.splitlines())
    yield Section("options of the units", tuple(text for text in lines if text is not None))


def _journal(unit_files: str, missing: list[str], names: Names) -> Iterator[Section]:
    for identifier in machine.identifiers(unit_files):
        lines = _value(machine.journal(identifier), missing, ())
        if lines:
            title = f"journal of {redaction.line(identifier, names)}"
            yield Section(title, _redacted(lines, names))


def _metrics(
    watchdog_metrics: str, unit_files: str, missing: list[str], names: Names
) -> Iterator[Section]:
    directory = os.path.dirname(os.path.abspath(watchdog_metrics))
    paths = machine.metrics_paths(directory, unit_files)
    if not paths:
        missing.append(f"reading {directory}: it has no metrics of tsfc; set --watchdog-metrics")
    for path in paths:
        lines = _value(machine.metrics(path), missing, ())
        samples = [text for text in (redaction.metric(one, names) for one in lines) if text]
        if samples:
            omitted = max(0, len(samples) - METRIC_LINES)
            yield Section(
                redaction.line(path, names), tuple(samples[:METRIC_LINES]), omitted=omitted
            )


def _snapshot_section(snapshot: Snapshot | None, node: _Node) -> tuple[Section, ...]:
    if snapshot is None:
        return ()
    other = redaction.snapshot(snapshot, node.original, node.names)
    return (Section("snapshot of the watchdog", (encode(other).removesuffix("\n"),)),)


def _redacted(lines: Iterable[str], names: Names) -> tuple[str, ...]:
    return tuple(redaction.line(text, names) for text in lines)


def _pseudonym(peer: str, node: _Node) -> str:
    found = () if node.original is None else naming.find(named(node.original), peer)
    if not found:
        return f"No peer has the name {peer}."
    return " ".join(f"{one.name} is {redaction.name(one.name, node.names)}." for one in found)


def _default_path(common: RunOptions) -> str:
    at = datetime.fromtimestamp(unix_time(common.now), UTC)
    return f"tsfc-report-{at:%Y%m%d-%H%M%S}.txt"


def _write(path: str, text: str) -> Result[None, str]:
    """Write a new file that only its owner may read."""
    try:
        write_new(path, text.encode(errors="replace"), 0o600)
    except OSError as error:
        advice = "set --output to a new file in a writable directory with free space"
        return Failure(f"writing {path}: {error.strerror}; {advice}")
    return Success(None)
