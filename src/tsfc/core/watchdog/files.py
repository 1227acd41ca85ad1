"""The state directory as data: names and contents of its files.

`state.json` is the truth. Beside it are the files of the shell scripts that did this
job before tsfc: `peer_<name>` for each peer on relay, `.last_restart`,
`.restart_count`, `.detection_count` and `.recovery_count`; tsfc adds
`.restart_failure_count`. Each holds one decimal number. They are an export, written
after `state.json` for programs that read them. They are read only if there is no
`state.json`: a host that ran the scripts, or tsfc before 0.2, keeps its history.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.clock import MAX_NUMBER, Instant, Seconds, step_between
from tsfc.core.text import one_line
from tsfc.core.watchdog.remedy import Stage
from tsfc.core.watchdog.state import Relay, State, last_restart, restart_at

STATE = "state.json"
PEER_PREFIX = "peer_"
LAST_RESTART = ".last_restart"
RESTARTS, RESTART_FAILURES = ".restart_count", ".restart_failure_count"
DETECTIONS, RECOVERIES = ".detection_count", ".recovery_count"
LAST_RUN = ".last_run"
"Written by tsfc before 0.2, with what the scripts did not know."
OBSOLETE = frozenset({LAST_RUN, ".journal"})
"Files of tsfc before 0.2, which the export removes."
_NAMES = {LAST_RESTART, LAST_RUN, RESTARTS, RESTART_FAILURES, DETECTIONS, RECOVERIES}

WARNINGS_LIMIT = 10
"Number of damaged files that get a line each; one more line counts the others."


class LastRun(Struct, frozen=True, forbid_unknown_fields=True):
    """The document in `.last_run`."""

    at: Instant | None = None
    success: Seconds | None = None
    restart_pending: bool = False


_LAST_RUN_DECODER = msgspec.json.Decoder(LastRun)


def is_script_file(name: str) -> bool:
    """Whether a file of this name is part of the export."""
    return name.startswith(PEER_PREFIX) or name in _NAMES


def salvage(
    problem: str, files: Mapping[str, bytes | None], *, now: Instant
) -> tuple[State, tuple[str, ...]]:
    """The state if `state.json` is unusable, and what to say about it.

    `problem` says what is wrong with `state.json`. The counters go on from their
    export, and the cooldown begins now, so that nothing is restarted before it ends.
    `files` are as for `from_files`.
    """
    exported, warnings = from_files(files, now=now)
    line = f"{STATE} in the state directory {problem}"
    return replace(exported, relays={}, attempts=(restart_at(now.unix),)), (
        f"{line}: the cooldown begins now, and counters go on from the exported files",
        *warnings,
    )


def to_files(state: State) -> dict[str, str]:
    """The text of each file by its name. A file that is not named must not exist."""
    at = last_restart(state)
    numbers = {
        RESTARTS: state.restarts,
        RESTART_FAILURES: state.restart_failures,
        DETECTIONS: state.detections,
        RECOVERIES: state.recoveries,
        **({} if at is None else {LAST_RESTART: at}),
        **{
            PEER_PREFIX + quote(name, safe=""): relay.since
            for name, relay in sorted(state.relays.items())
        },
    }
    return {name: f"{number}\n" for name, number in numbers.items()}


def from_files(files: Mapping[str, bytes | None], *, now: Instant) -> tuple[State, tuple[str, ...]]:
    """The state that the files hold, and one line for each damaged file.

    None stands for the content of a file that cannot be read. A damaged file never
    means "long ago": the relay or the cooldown begins now, a counter begins at 0. A
    missing file means that there was nothing to keep.
    """
    last_run = _read_last_run(files.get(LAST_RUN, b"{}"))
    known = last_run.value_or(LastRun())
    warnings: list[str] = []
    # `step` moves all instants with the clock; what begins now must come out as now.
    begins_now = max(0, now.unix - step_between(known.at, now))

    def number(name: str, default: int, meaning: str) -> int | None:
        if name not in files:
            return None
        read = _read_number(files[name])
        if isinstance(read, Failure):
            warnings.append(f"{name} in the state directory {read.failure()}: {meaning}")
            return default
        return read.unwrap()

    def count(name: str) -> int:
        return number(name, 0, "counting from 0") or 0

    peer_files = sorted(name for name in files if name.startswith(PEER_PREFIX))
    since = {name: number(name, begins_now, "its relay begins now") for name in peer_files}
    restarted = number(LAST_RESTART, begins_now, "the cooldown begins now")
    attempts = () if restarted is None else (restart_at(restarted),)
    if known.restart_pending:
        at = begins_now if restarted is None else restarted
        attempts = (replace(restart_at(at), stage=Stage.ASKED),)
    state = State(
        relays={
            unquote(name.removeprefix(PEER_PREFIX)): Relay(at)
            for name, at in since.items()
            if at is not None
        },
        attempts=attempts,
        restarts=count(RESTARTS),
        restart_failures=count(RESTART_FAILURES),
        detections=count(DETECTIONS),
        recoveries=count(RECOVERIES),
        last_success=_last_success(known),
        last_run=known.at,
    )
    if isinstance(last_run, Failure):
        warnings.append(f"{LAST_RUN} in the state directory {last_run.failure()}: going on without")
    more = len(warnings) - WARNINGS_LIMIT
    if more > 0:
        warnings[WARNINGS_LIMIT:] = [f"{more} more damaged files in the state directory"]
    return state, tuple(warnings)


def _last_success(known: LastRun) -> Instant | None:
    if known.success is None:
        return None
    boot = known.at.boot if known.at is not None and known.at.unix == known.success else None
    return Instant(known.success, boot)


def _read_number(raw: bytes | None) -> Result[int, str]:
    if raw is None:
        return Failure("cannot be read")
    text = raw.strip()
    if not text:
        return Failure("is empty")
    if not text.isdigit() or len(text) > len(str(MAX_NUMBER)) or int(text) > MAX_NUMBER:
        return Failure(f"holds no number ({one_line(text.decode(errors='replace'), 20)!r})")
    return Success(int(text))


def _read_last_run(raw: bytes | None) -> Result[LastRun, str]:
    if raw is None:
        return Failure("cannot be read")
    try:
        return Success(_LAST_RUN_DECODER.decode(raw))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"cannot be read ({one_line(str(error), 80)})")
