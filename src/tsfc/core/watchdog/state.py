"""What the watchdog remembers from run to run, and the files that hold it.

The files are those of the shell scripts that did this before, so that a host can switch and keep its history:
`peer_<name>` for each peer on relay, `.last_restart`, `.restart_count`, `.detection_count`, `.recovery_count`, each one
number in decimal. Beside them `.restart_failure_count`, of the same kind, and `.last_run`, a JSON document, for what
the scripts did not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct
from returns.result import Failure, Result, Success

from tsfc.core.clock import MAX_NUMBER, Instant, Seconds, step_between
from tsfc.core.text import one_line

PEER_PREFIX = "peer_"
LAST_RESTART, LAST_RUN = ".last_restart", ".last_run"
RESTARTS, RESTART_FAILURES, DETECTIONS, RECOVERIES = (
    ".restart_count",
    ".restart_failure_count",
    ".detection_count",
    ".recovery_count",
)


class State(Struct, frozen=True):
    """All that is remembered. Instants are Unix time in whole seconds."""

    relay_since: Mapping[str, int] = {}
    "When relay began, for each peer that was on relay when last seen."
    last_restart: int | None = None
    "When a restart was last tried, whatever came of it: the start of the cooldown."
    restarts: int = 0
    restart_failures: int = 0
    detections: int = 0
    recoveries: int = 0
    restart_pending: bool = False
    "A restart was asked for and what came of it is not known yet; still so in the next run, if this one is killed in between."
    last_success: int | None = None
    "The last run that could see tailscaled."
    last_run: Instant | None = None
    "When the last run was, by both clocks."


class LastRun(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The document in `.last_run`."""

    at: Instant | None = None
    success: Seconds | None = None
    restart_pending: bool = False


_LAST_RUN_DECODER = msgspec.json.Decoder(LastRun)


def is_state_file(name: str) -> bool:
    """Reports whether a file of this name is part of the state."""
    return name.startswith(PEER_PREFIX) or name in {
        LAST_RESTART,
        LAST_RUN,
        RESTARTS,
        RESTART_FAILURES,
        DETECTIONS,
        RECOVERIES,
    }


def to_files(state: State) -> dict[str, str]:
    """Returns the state as the text of each file by its name; a file that is not named is to be absent."""
    numbers = {
        RESTARTS: state.restarts,
        RESTART_FAILURES: state.restart_failures,
        DETECTIONS: state.detections,
        RECOVERIES: state.recoveries,
        **({} if state.last_restart is None else {LAST_RESTART: state.last_restart}),
        **{
            PEER_PREFIX + quote(name, safe=""): since
            for name, since in sorted(state.relay_since.items())
        },
    }
    last_run = LastRun(
        at=state.last_run, success=state.last_success, restart_pending=state.restart_pending
    )
    return {
        **{name: f"{number}\n" for name, number in numbers.items()},
        LAST_RUN: msgspec.json.encode(last_run).decode() + "\n",
    }


def from_files(files: Mapping[str, bytes | None], *, now: Instant) -> tuple[State, tuple[str, ...]]:
    """Returns the state that the files hold, and a line for each that is empty or unreadable (None).

    Such a file means that its content is unknown, never that it was long ago: a peer's relay began now, the cooldown
    begins now, a counter begins at 0. A file that is not there means that there was nothing to remember.
    """
    last_run = _read_last_run(files.get(LAST_RUN, b"{}"))
    known = last_run.value_or(LastRun())
    complaints: list[str] = []
    # `step` moves what is remembered with the clock; what begins now must come out as now.
    begins_now = now.unix - step_between(known.at, now)

    def number(name: str, unknown: int, meaning: str) -> int | None:
        if name not in files:
            return None
        read = _read_number(files[name])
        if isinstance(read, Failure):
            complaints.append(f"{name} in the state directory {read.failure()}: {meaning}")
            return unknown
        return read.unwrap()

    def count(name: str) -> int:
        return number(name, 0, "counting from 0") or 0

    peer_files = sorted(name for name in files if name.startswith(PEER_PREFIX))
    begins = {name: number(name, begins_now, "its relay begins now") for name in peer_files}
    state = State(
        relay_since={
            unquote(name.removeprefix(PEER_PREFIX)): since
            for name, since in begins.items()
            if since is not None
        },
        last_restart=number(LAST_RESTART, begins_now, "the cooldown begins now"),
        restarts=count(RESTARTS),
        restart_failures=count(RESTART_FAILURES),
        detections=count(DETECTIONS),
        recoveries=count(RECOVERIES),
        restart_pending=known.restart_pending,
        last_success=known.success,
        last_run=known.at,
    )
    if isinstance(last_run, Failure):
        complaints.append(
            f"{LAST_RUN} in the state directory {last_run.failure()}: going on without"
        )
    return state, tuple(complaints)


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
