"""A state directory in which anything can be: two runs, no traceback, no counter lost.

Names, types and contents are drawn. What the runs do with them is real: the lock, the
reads, the commits and the exports of `shell/statedir.py`.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from returns.result import Failure, Success

from support.statuses import encoded, peer
from tsfc.core.clock import MAX_NUMBER, Boot, Instant
from tsfc.core.tailscale.status import decode as decode_status
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.files import DETECTIONS, RECOVERIES, RESTART_FAILURES, RESTARTS, STATE
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.state import Relay, State, decode, encode, restart_at
from tsfc.core.watchdog.step import step
from tsfc.shell import statedir

T = 1_800_000_000
NOW = Instant(T, Boot("b1", 5000, 5000))
STATUS = decode_status(encoded(peer("rpi3", "derp"), peer("nas"))).unwrap()

Put = Callable[[Path], None]
"Makes something at a path."


def _file(content: bytes, mode: int) -> Put:
    def put(path: Path) -> None:
        path.write_bytes(content)
        path.chmod(mode)

    return put


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "inner").write_bytes(b"1\n")


def _unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        bound = path.parent.with_name("bound")  # a socket's path has at most 108 bytes
        listener.bind(str(bound))
        bound.rename(path)


def _link(target: str) -> Put:
    def put(path: Path) -> None:
        path.symlink_to(target)

    return put


NUMBERS = st.sampled_from([0, 1, 7, T - 700, T, T + 9, MAX_NUMBER]) | st.integers(0, MAX_NUMBER)
STATES = st.builds(
    State,
    relays=st.dictionaries(st.sampled_from(["rpi3", "nas", "x/y"]), st.builds(Relay, NUMBERS)),
    attempts=st.just(()) | st.tuples(st.builds(restart_at, NUMBERS)),
    restarts=NUMBERS,
    restart_failures=NUMBERS,
    detections=NUMBERS,
    recoveries=NUMBERS,
    last_run=st.none() | st.just(Instant(T - 60, Boot("b1", 4940, 4940))),
)


@st.composite
def damaged_states(draw: st.DrawFn) -> bytes:
    """Draw a `state.json` with a few bytes replaced."""
    data = encode(draw(STATES))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(data)))
        data = data[:begin] + draw(st.binary(max_size=4)) + data[begin + draw(st.integers(0, 9)) :]
    return data


CONTENTS = (
    NUMBERS.map(lambda number: f"{number}\n".encode())
    | damaged_states()
    | st.sampled_from([b"", b"\n", b"-1\n", b"\xff\n", b"1e3\n", b"9" * 70_000, b"{}", bytes(4096)])
    | st.binary(max_size=20)
)
THINGS = st.one_of(
    st.builds(_file, CONTENTS, st.sampled_from([0o644, 0o600, 0o000])),
    st.builds(_file, CONTENTS, st.just(0o644)),
    st.sampled_from([_directory, os.mkfifo, _unix_socket]),
    st.builds(
        _link,
        st.sampled_from(["nowhere", ".", "..", STATE, ".lock", ".restart_count", "/dev/zero"]),
    ),
)
COUNTERS = {
    RESTARTS: "restarts",
    RESTART_FAILURES: "restart_failures",
    DETECTIONS: "detections",
    RECOVERIES: "recoveries",
}
NAMES = (
    st.sampled_from([STATE, *COUNTERS, ".last_restart", ".last_run", ".journal", ".lock", ".tmp"])
    | st.sampled_from(
        ["peer_rpi3", "peer_", "peer_%2F", "peer_%00", "peer_a\nb", "peer_" + "x" * 250]
    )
    | st.sampled_from(["aside_00000000_state.json", "other", "\udcff", "peer_\udcff", "\x1b[31m"])
    | st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).filter(
        lambda name: name not in {".", ".."} and _is_encodable(name)
    )
)


def _is_encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _known_counters(directory: Path) -> dict[str, int]:
    """Return the counters that a reader of the directory would know, by their fields.

    They are those of a valid `state.json`, else those of the scripts' files.
    """
    known: dict[str, int] = {}
    if (directory / STATE).is_file():
        state = decode((directory / STATE).read_bytes())
        if isinstance(state, Success):
            return {field: getattr(state.unwrap(), field) for field in COUNTERS.values()}
    for name, field in COUNTERS.items():
        text = (directory / name).read_bytes().strip() if (directory / name).is_file() else b""
        if text.isdigit() and len(text) < 17 and int(text) <= MAX_NUMBER:
            known[field] = int(text)
    return known


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _run(directory: Path, now: Instant) -> tuple[State, tuple[str, ...]] | str:
    """Do what a run of the watchdog does with its state.

    Return the state after it and the warnings, or why there was no run.
    """
    store = statedir.Directory(str(directory))
    locked = statedir.lock(str(directory))
    if isinstance(locked, Failure):
        problem = locked.failure()
        assert isinstance(problem, str), "nobody else holds the lock"
        return problem
    try:
        loaded = store.load(now)
        if isinstance(loaded, Failure):
            return str(loaded.failure())
        before, warnings = loaded.unwrap()
        after = step(before, Observed(STATUS), now=now, policy=ThresholdPolicy()).state
        committed = store.commit(after)
        if isinstance(committed, Failure):
            return str(committed.failure().detail)
        exported = store.export(after)
        if isinstance(exported, Failure):
            warnings = (*warnings, exported.failure())
        return after, warnings
    finally:
        os.close(locked.unwrap().descriptor)


@settings(
    max_examples=int(os.environ.get("TSFC_SOAK_EXAMPLES", "2000")),
    derandomize=False,
    print_blob=True,
)
@given(st.dictionaries(NAMES, THINGS, max_size=8))
def test_two_runs_lose_no_counter_silently(things: dict[str, Put]) -> None:
    with tempfile.TemporaryDirectory(prefix="tsfc-", dir="/tmp") as box:
        directory = Path(box) / "s"
        directory.mkdir()
        for entry, put in things.items():
            put(directory / entry)
        known = _known_counters(directory)
        had_something = any(_is_there(directory / entry) for entry in (STATE, *COUNTERS))

        # The first run says what it could not read, or keeps all counters.
        first = _run(directory, NOW)
        if isinstance(first, str):
            assert first
            assert "; " in first, "the line says what to do"
            assert _known_counters(directory) == known, "a run that failed changes nothing"
            return
        after, warnings = first
        for name, field in COUNTERS.items():
            is_kept = getattr(after, field) >= known.get(field, 0)
            assert is_kept or any(line.startswith(f"{name} ") for line in warnings)
        if had_something and len(known) < len(set(COUNTERS) & set(things)):
            assert warnings, "what is damaged gets a line"

        # The second run reads what the first one wrote, and is silent.
        second = _run(directory, replace(NOW, unix=T + 60, boot=Boot("b1", 5060, 5060)))
        assert not isinstance(second, str), second
        later, warnings = second
        assert warnings == ()
        for field in COUNTERS.values():
            assert getattr(later, field) >= getattr(after, field)
        assert decode((directory / STATE).read_bytes()) == Success(later)
