"""The files of the state directory: `state.json`, and those of the shell scripts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tsfc.core.clock import MAX_NUMBER, Boot, Instant
from tsfc.core.watchdog.files import from_files, is_script_file, salvage, to_files
from tsfc.core.watchdog.state import Relay, State, decode, encode, restart_at
from tsfc.core.watchdog.step import step
from tsfc.core.watchdog.track import Reason, Verdict

from .worlds import NOW, POLICY, T0, derp_peer, make_state, observation

FULL = make_state(
    relay_since={"rpi3": T0 - 60, "rpi3#nA": T0, "a/b": 0},
    last_restart=T0 - 600,
    restarts=3,
    restart_failures=1,
    detections=17,
    recoveries=9,
    restart_pending=True,
    last_success=T0 - 5,
    last_run=Instant(T0 - 1, Boot("b1", 77)),
)


def test_each_value_is_exported_to_the_file_of_the_shell_scripts() -> None:
    assert to_files(FULL) == {
        ".restart_count": "3\n",
        ".restart_failure_count": "1\n",
        ".detection_count": "17\n",
        ".recovery_count": "9\n",
        ".last_restart": f"{T0 - 600}\n",
        "peer_rpi3": f"{T0 - 60}\n",
        "peer_rpi3%23nA": f"{T0}\n",
        "peer_a%2Fb": "0\n",
    }


def test_an_empty_state_exports_only_its_counters() -> None:
    """Counters start at 0; other values have no file."""
    zeros = dict.fromkeys(
        [".restart_count", ".restart_failure_count", ".detection_count", ".recovery_count"], "0\n"
    )
    assert to_files(State()) == zeros


def test_the_order_of_the_files_does_not_depend_on_the_order_of_the_peers() -> None:
    reverse = replace(FULL, relays=dict(sorted(FULL.relays.items(), reverse=True)))
    assert list(to_files(reverse).items()) == list(to_files(FULL).items())


def test_the_files_of_the_shell_scripts_are_read() -> None:
    """The history of such a host is kept, also under names that tsfc would encode."""
    files = {
        "peer_rpi3": b"1700000000\n",
        "peer_my phone": b"1699999999",
        "peer_nas": b"  1699999998 \n\n",
        ".last_restart": b"1699999000\n",
        ".restart_count": b"3\n",
        ".detection_count": b"0017\n",
        ".recovery_count": b"9",
    }
    state, warnings = from_files(files, now=NOW)
    assert warnings == ()
    assert state == make_state(
        {"rpi3": 1700000000, "my phone": 1699999999, "nas": 1699999998},
        last_restart=1699999000,
        restarts=3,
        restart_failures=0,
        detections=17,
        recoveries=9,
    )


def test_an_empty_directory_gives_an_empty_state() -> None:
    assert from_files({}, now=NOW) == (State(), ())


def test_files_of_other_programs_are_ignored() -> None:
    assert from_files(
        {".lock": b"", "peer": b"7\n", ".peer_a": b"7\n", "restart_count": b"7\n"}, now=NOW
    ) == (State(), ())


UNKNOWN: list[tuple[bytes | None, str]] = [
    (None, "cannot be read"),
    (b"", "is empty"),
    (b" \n", "is empty"),
    (b"garbage\n", "holds no number ('garbage')"),
    (b"-1\n", "holds no number ('-1')"),
    (b"+1\n", "holds no number ('+1')"),
    (b"1.5\n", "holds no number ('1.5')"),
    (b"1_0\n", "holds no number ('1_0')"),
    (b"1 2\n", "holds no number ('1 2')"),
    (b"1\0", "holds no number ('1\N{REPLACEMENT CHARACTER}')"),
    ("١".encode(), "holds no number ('١')"),  # noqa: RUF001 - an Arabic digit
    (b"\xff\xfe", "holds no number ('\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}')"),
    (b"%d" % (MAX_NUMBER + 1), f"holds no number ('{MAX_NUMBER + 1}')"),
    (b"0" * 17, f"holds no number ('{17 * '0'}')"),
    (b"9" * 5000, f"holds no number ('{20 * '9'}…')"),
    (b"\xf0\x9f\xa7\xa6" * 30, f"holds no number ('{20 * chr(0x1F9E6)}…')"),
    (b"x" * 19 + b"\n" + b"y" * 100, f"holds no number ('{19 * 'x'} …')"),
]


@pytest.mark.parametrize(("raw", "problem"), UNKNOWN)
@pytest.mark.parametrize(
    ("name", "expected", "instead"),
    [
        ("peer_rpi3", make_state({"rpi3": T0}), "its relay begins now"),
        (".last_restart", make_state(last_restart=T0), "the cooldown begins now"),
        (".restart_count", State(), "counting from 0"),
        (".restart_failure_count", State(), "counting from 0"),
        (".detection_count", State(), "counting from 0"),
        (".recovery_count", State(), "counting from 0"),
    ],
)
def test_an_invalid_number_starts_from_now_or_0_with_one_warning(
    name: str, expected: State, instead: str, raw: bytes | None, problem: str
) -> None:
    """Relay and the cooldown begin now; a counter begins at 0."""
    state, warnings = from_files({name: raw}, now=NOW)
    assert state == expected
    assert warnings == (f"{name} in the state directory {problem}: {instead}",)


def test_the_largest_number_is_read() -> None:
    """It is the largest that a float64 sample represents exactly, with all below it."""
    state, warnings = from_files(
        {".restart_count": b"9007199254740992\n", "peer_a": b"9007199254740992"}, now=NOW
    )
    assert (state, warnings) == (make_state({"a": 2**53}, restarts=2**53), ())


def test_each_unreadable_file_has_one_warning_in_a_fixed_order() -> None:
    """The order does not depend on the order in the directory."""
    names = [
        "peer_b",
        "peer_a",
        ".last_run",
        ".recovery_count",
        ".detection_count",
        ".restart_failure_count",
        ".restart_count",
        ".last_restart",
    ]
    state, warnings = from_files(dict.fromkeys(names), now=NOW)
    assert state == make_state({"a": T0, "b": T0}, last_restart=T0)
    subjects = [warning.split(" ")[0] for warning in warnings]
    assert subjects == [
        "peer_a",
        "peer_b",
        ".last_restart",
        ".restart_count",
        ".restart_failure_count",
        ".detection_count",
        ".recovery_count",
        ".last_run",
    ]
    assert warnings[-1] == ".last_run in the state directory cannot be read: going on without"


def test_at_most_ten_damaged_files_are_named() -> None:
    """One line counts the others: 100,000 files in the directory must not fill the journal."""
    names = [f"peer_{number:02}" for number in range(12)]
    _, warnings = from_files(dict.fromkeys(names, b""), now=NOW)
    assert [warning.split(" ")[0] for warning in warnings[:10]] == names[:10]
    assert warnings[10:] == ("2 more damaged files in the state directory",)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"surprise":1}',
        b'{"success":-1}',
        b'{"success":9007199254740993}',
        b'{"success":"\xff"}',
        b'{"at":{"unix":1,"surprise":1}}',
        b'{"at":{"unix":1,"boot":{"id":"b1"}}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_last_run_is_ignored_with_one_warning(raw: bytes) -> None:
    """The counters are kept; the values of `.last_run` get their defaults."""
    state, warnings = from_files({".restart_count": b"3\n", ".last_run": raw}, now=NOW)
    assert state == State(restarts=3)
    assert len(warnings) == 1
    assert warnings[0].isprintable()
    assert warnings[0].startswith(".last_run in the state directory cannot be read (")
    assert warnings[0].endswith("): going on without")


def test_a_warning_quotes_at_most_80_characters_of_the_problem() -> None:
    _, warnings = from_files({".last_run": b'{"' + 200 * b"x" + b'":1}'}, now=NOW)
    (warning,) = warnings
    assert warning == (
        ".last_run in the state directory cannot be read "
        f"(Object contains unknown field `{49 * 'x'}…): going on without"
    )


def test_a_last_run_of_an_older_version_is_read() -> None:
    """Missing fields have their defaults."""
    assert from_files({".last_run": b'{"success":7}'}, now=NOW) == (make_state(last_success=7), ())
    assert from_files({".last_run": b'{"at":{"unix":7}}'}, now=NOW) == (
        State(last_run=Instant(7)),
        (),
    )


def test_a_restart_that_an_older_tsfc_left_pending_was_asked_for() -> None:
    """An older tsfc wrote the file right before it asked systemd."""
    files = {".last_restart": b"1699999000\n", ".last_run": b'{"restart_pending":true}'}
    state, warnings = from_files(files, now=NOW)
    assert (state, warnings) == (
        make_state(last_restart=1699999000, restart_pending=True),
        (),
    )


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(b"", "is damaged (Input data was truncated)", id="empty"),
        pytest.param(b'{"version":1', "is damaged (Input data was truncated)", id="cut off"),
        pytest.param(b"null", "is damaged (Expected `object`, got `null`)", id="null"),
        pytest.param(b'{"version":2,"state":{"new":1}}', "has version 2, and", id="newer"),
        pytest.param(b'{"version":1,"state":{"x":1}}', "is damaged (Object cont", id="unknown"),
        pytest.param(
            b'{"version":1,"state":{"restarts":-1}}', "is damaged (Expected `int`", id="negative"
        ),
        pytest.param(b'{"version":1,"state":"\xff"}', "is damaged (", id="not UTF-8"),
        pytest.param(b"[" * 100_000, "is damaged (", id="nested"),
    ],
)
def test_a_damaged_state_json_begins_the_cooldown_now(raw: bytes, problem: str) -> None:
    """Nothing is restarted before a whole cooldown has passed."""
    files = {".restart_count": b"7\n", "peer_rpi3": b"1\n", ".last_restart": b"1\n"}
    state, (warning,) = salvage(decode(raw).failure(), files, now=NOW)
    assert state == State(attempts=(restart_at(T0),), restarts=7)
    assert warning.startswith(f"state.json in the state directory {problem}")
    assert warning.endswith(": the cooldown begins now, and counters go on from the exported files")
    assert warning.isprintable()
    long_on_relay = replace(state, relays={"rpi3": Relay(T0 - 9000)})
    transition = step(
        long_on_relay, observation(derp_peer("rpi3")), now=Instant(T0 + 599), policy=POLICY
    )
    assert transition.verdicts == (Verdict("rpi3", Reason.COOLDOWN, 9599),)


@pytest.mark.parametrize("raw", [b"", b"garbage", None])
def test_empty_or_damaged_script_files_cause_no_immediate_restart(raw: bytes | None) -> None:
    files = dict.fromkeys(
        [
            "peer_rpi3",
            ".last_restart",
            ".restart_count",
            ".detection_count",
            ".recovery_count",
            ".last_run",
        ],
        raw,
    )
    state, _ = from_files(files, now=NOW)
    assert step(state, observation(derp_peer("rpi3")), now=NOW, policy=POLICY).verdicts == (
        Verdict("rpi3", Reason.WAITING, 0),
    )


def test_an_empty_peer_file_causes_no_immediate_restart_after_a_clock_step() -> None:
    """Relay begins now by the new clock; the clock step must not move that time."""
    now = Instant(T0, Boot("b1", 1060))
    files = {
        "peer_rpi3": b"",
        ".last_run": b'{"at":{"unix":%d,"boot":{"id":"b1","seconds":1000}}}' % (T0 + 3600),
    }
    state, _ = from_files(files, now=now)
    assert step(state, observation(derp_peer("rpi3")), now=now, policy=POLICY).verdicts == (
        Verdict("rpi3", Reason.WAITING, 0),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("peer_rpi3", True),
        ("peer_", True),
        (".last_restart", True),
        (".last_run", True),
        (".restart_count", True),
        (".restart_failure_count", True),
        (".detection_count", True),
        (".recovery_count", True),
        (".lock", False),
        ("state.json", False),
        (".journal", False),
        (".tmp", False),
        ("peer", False),
        ("a.peer_rpi3", False),
    ],
)
def test_only_the_exported_files_are_script_files(name: str, expected: bool) -> None:  # noqa: FBT001 - a row of the table
    assert is_script_file(name) is expected


def test_the_error_about_a_damaged_state_json_is_short() -> None:
    raw = b'{"version":1,"state":{"' + 200 * b"x" + b'":1}}'
    _, (warning,) = salvage(decode(raw).failure(), {}, now=NOW)
    problem = f"is damaged (Object contains unknown field `{49 * 'x'}…)"
    assert warning.startswith(f"state.json in the state directory {problem}: ")


def test_the_document_does_not_depend_on_the_order_of_the_peers() -> None:
    one, other = make_state({"a": 1, "b": 2}), make_state({"b": 2, "a": 1})
    assert encode(one) == encode(other)


def test_a_damaged_file_at_the_epoch_begins_then() -> None:
    state, _ = from_files({"peer_a": b""}, now=Instant(0))
    assert state.relays == {"a": Relay(0)}
