"""Every row of the policy's table, at its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from support.statuses import decoded, peer
from tsfc.core.clock import Boot, Instant
from tsfc.core.faults import Unusable
from tsfc.core.watchdog.effects import Log, Warn
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed, Unobservable
from tsfc.core.watchdog.policy import ThresholdPolicy, is_excluded
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Done, Failed, Remedy, Stage
from tsfc.core.watchdog.state import State, pending
from tsfc.core.watchdog.step import step
from tsfc.core.watchdog.threshold import Due, line
from tsfc.core.watchdog.track import Reason, Verdict

from .worlds import (
    DOWN,
    NOW,
    ROWS,
    STOPPED,
    T0,
    Restart,
    derp_peer,
    effects,
    make_state,
    observation,
    restarts,
    rows,
    summarize,
)

DIRECT, DETECTED, WAITING, EXCLUDED = (
    Reason.DIRECT,
    Reason.DETECTED,
    Reason.WAITING,
    Reason.EXCLUDED,
)
COOLDOWN, RESTART, RECOVERED, RESTORED = (
    Reason.COOLDOWN,
    Reason.RESTART,
    Reason.RECOVERED,
    Reason.RESTORED,
)


class Row(Struct, frozen=True):
    """One run, and its transition.

    The summary of the state after it is that of `before` with `changes` and the times
    of the run.
    """

    id: str
    before: State
    event: Event
    verdicts: tuple[Verdict, ...] | None
    effects: tuple[Log | Warn | Restart, ...] = ()
    changes: Mapping[str, Any] = {}
    policy: ThresholdPolicy = ThresholdPolicy()
    now: Instant = NOW


def logs(*texts: str) -> tuple[Log, ...]:
    """Effects that log these lines."""
    return tuple(Log(text) for text in texts)


def on_relay(*, last_restart: int | None = None, **seconds: int) -> State:
    """Return a state; the arguments are seconds before `T0`."""
    return make_state(
        {name: T0 - d for name, d in seconds.items()},
        last_restart=None if last_restart is None else T0 - last_restart,
    )


DETECTED_VERDICT = (Verdict("rpi3", DETECTED),)
DETECTED_LINE = logs("DETECTED: rpi3 transitioned to relay")
RELAY_BEGINS = {"relay_since": {"rpi3": T0}, "detections": 1}
RECOVERED_LINE = logs("RECOVERED: rpi3 back to direct")
RESTART_LINE = logs("RESTART: rpi3 on relay for 601s, restarting tailscaled")
RESTART_PENDING = {"last_restart": T0, "restart_pending": True}
EXCLUDES_RPI3 = ThresholdPolicy(excluded=frozenset({"rpi3"}))
TWINS = (derp_peer("rpi3", ID="nA"), derp_peer("rpi3", ID="nB"))

ONE_PEER = [
    # A direct peer that was not on relay: nothing happens.
    Row("direct", State(), observation(peer("rpi3")), (Verdict("rpi3", DIRECT),)),
    # Newly on relay, that is without a direct address: relay begins now.
    Row(
        "derp",
        State(),
        observation(derp_peer("rpi3")),
        DETECTED_VERDICT,
        DETECTED_LINE,
        RELAY_BEGINS,
    ),
    Row(
        "peer relay",
        State(),
        observation(peer("rpi3", "peer_relay")),
        DETECTED_VERDICT,
        DETECTED_LINE,
        RELAY_BEGINS,
    ),
    Row(
        "idle",
        State(),
        observation(peer("rpi3", "idle")),
        DETECTED_VERDICT,
        DETECTED_LINE,
        RELAY_BEGINS,
    ),
    Row(
        "without an IP",
        State(),
        observation(derp_peer("rpi3", TailscaleIPs=None)),
        DETECTED_VERDICT,
        DETECTED_LINE,
        RELAY_BEGINS,
    ),
    Row(
        "excluded, detected",
        State(),
        observation(derp_peer("rpi3")),
        DETECTED_VERDICT,
        DETECTED_LINE,
        RELAY_BEGINS,
        EXCLUDES_RPI3,
    ),
    # On relay up to the threshold: wait.
    Row(
        "same second",
        on_relay(rpi3=0),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", WAITING, 0),),
        logs("WAITING: rpi3 on relay for 0s (threshold: 600s)"),
    ),
    Row(
        "below",
        on_relay(rpi3=300),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", WAITING, 300),),
        logs("WAITING: rpi3 on relay for 300s (threshold: 600s)"),
    ),
    Row(
        "d == max",
        on_relay(rpi3=600),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", WAITING, 600),),
        logs("WAITING: rpi3 on relay for 600s (threshold: 600s)"),
    ),
    Row(
        "excluded, below",
        on_relay(rpi3=600),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", WAITING, 600),),
        logs("WAITING: rpi3 on relay for 600s (threshold: 600s)"),
        policy=EXCLUDES_RPI3,
    ),
    Row(
        "another threshold",
        on_relay(rpi3=61),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", WAITING, 61),),
        logs("WAITING: rpi3 on relay for 61s (threshold: 61s)"),
        policy=ThresholdPolicy(max_relay_seconds=61),
    ),
    # On relay over the threshold, without a cooldown: restart.
    Row(
        "d == max + 1",
        on_relay(rpi3=601),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", RESTART, 601),),
        (*RESTART_LINE, Restart("rpi3")),
        RESTART_PENDING,
    ),
    Row(
        "cooldown over",
        on_relay(rpi3=601, last_restart=600),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", RESTART, 601),),
        (*RESTART_LINE, Restart("rpi3")),
        RESTART_PENDING,
    ),
    Row(
        "no cooldown at all",
        on_relay(rpi3=1, last_restart=0),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", RESTART, 1),),
        (
            *logs("RESTART: rpi3 on relay for 1s, restarting tailscaled"),
            Restart("rpi3"),
        ),
        RESTART_PENDING,
        ThresholdPolicy(max_relay_seconds=0, cooldown_seconds=0),
    ),
    # On relay over the threshold, in the cooldown: wait.
    Row(
        "cooldown, first second",
        on_relay(rpi3=601, last_restart=0),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", COOLDOWN, 601),),
        logs("COOLDOWN: rpi3 exceeded threshold but in cooldown (600s remaining)"),
    ),
    Row(
        "cooldown, last second",
        on_relay(rpi3=601, last_restart=599),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", COOLDOWN, 601),),
        logs("COOLDOWN: rpi3 exceeded threshold but in cooldown (1s remaining)"),
    ),
    # On relay over the threshold, excluded: wait.
    Row(
        "excluded",
        on_relay(rpi3=650),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", EXCLUDED, 650),),
        logs("EXCLUDED: rpi3 on relay for 650s, excluded from restarts"),
        policy=EXCLUDES_RPI3,
    ),
    Row(
        "excluded, in cooldown",
        on_relay(rpi3=601, last_restart=1),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", EXCLUDED, 601),),
        logs("EXCLUDED: rpi3 on relay for 601s, excluded from restarts"),
        policy=EXCLUDES_RPI3,
    ),
    # Direct again: a recovery, unless a restart caused it.
    Row(
        "recovered",
        on_relay(rpi3=30),
        observation(peer("rpi3")),
        (Verdict("rpi3", RECOVERED),),
        RECOVERED_LINE,
        {"relay_since": {}, "recoveries": 1},
    ),
    Row(
        "excluded, recovered",
        on_relay(rpi3=900),
        observation(peer("rpi3")),
        (Verdict("rpi3", RECOVERED),),
        RECOVERED_LINE,
        {"relay_since": {}, "recoveries": 1},
        EXCLUDES_RPI3,
    ),
    Row(
        "on relay only after the restart",
        on_relay(rpi3=99, last_restart=100),
        observation(peer("rpi3")),
        (Verdict("rpi3", RECOVERED),),
        RECOVERED_LINE,
        {"relay_since": {}, "recoveries": 1},
    ),
    Row(
        "on relay since the restart",
        on_relay(rpi3=100, last_restart=100),
        observation(peer("rpi3")),
        (Verdict("rpi3", RESTORED),),
        RECOVERED_LINE,
        {"relay_since": {}},
    ),
    Row(
        "restored in the last second",
        on_relay(rpi3=1300, last_restart=599),
        observation(peer("rpi3")),
        (Verdict("rpi3", RESTORED),),
        RECOVERED_LINE,
        {"relay_since": {}},
    ),
    Row(
        "recovered after the cooldown",
        on_relay(rpi3=1300, last_restart=600),
        observation(peer("rpi3")),
        (Verdict("rpi3", RECOVERED),),
        RECOVERED_LINE,
        {"relay_since": {}, "recoveries": 1},
    ),
    # Offline, gone or not watched: relay ends without a recovery.
    Row(
        "offline",
        on_relay(rpi3=900),
        observation(peer("rpi3", "offline")),
        (),
        (),
        {"relay_since": {}},
    ),
    Row("gone", on_relay(rpi3=900), observation(), (), (), {"relay_since": {}}),
    Row(
        "gone, and Peer is null",
        on_relay(rpi3=900),
        Observed(decoded(Peer=None)),
        (),
        (),
        {"relay_since": {}},
    ),
    Row(
        "expired",
        on_relay(rpi3=900),
        observation(derp_peer("rpi3", Expired=True)),
        (),
        (),
        {"relay_since": {}},
    ),
    Row(
        "sharee",
        on_relay(rpi3=900),
        observation(derp_peer("rpi3", ShareeNode=True)),
        (),
        (),
        {"relay_since": {}},
    ),
    Row(
        "Mullvad",
        on_relay(rpi3=900),
        observation(derp_peer("rpi3", DNSName="rpi3.mullvad.ts.net.")),
        (),
        (),
        {"relay_since": {}},
    ),
    # Without an observation: the state stays as it is.
    Row(
        "down",
        on_relay(rpi3=900),
        DOWN,
        None,
        (Warn("asking tailscaled: connection refused; is it running?"),),
    ),
    Row(
        "unusable status",
        on_relay(rpi3=900, last_restart=700),
        Unobservable(Unusable("not JSON")),
        None,
        (Warn("not JSON"),),
    ),
    Row(
        "not Running",
        on_relay(rpi3=900),
        STOPPED,
        None,
        (Warn("tailscaled is Stopped, not Running: no peer can be judged, the state is kept"),),
    ),
    Row(
        "hostile BackendState",
        State(),
        Observed(decoded(BackendState="a\n" + 60 * "b")),
        None,
        (
            Warn(
                f"tailscaled is a {38 * 'b'}…, not Running: "
                "no peer can be judged, the state is kept"
            ),
        ),
    ),
]

SEVERAL_PEERS = [
    Row(
        "one line each, sorted by name",
        on_relay(a=900, c=10, d=20, e=30, last_restart=100),
        observation(*map(derp_peer, "cba"), *map(peer, "ed")),
        (
            Verdict("a", COOLDOWN, 900),
            Verdict("b", DETECTED),
            Verdict("c", WAITING, 10),
            Verdict("d", RECOVERED),
            Verdict("e", RECOVERED),
        ),
        logs(
            "COOLDOWN: a exceeded threshold but in cooldown (500s remaining)",
            "DETECTED: b transitioned to relay",
            "WAITING: c on relay for 10s (threshold: 600s)",
            "RECOVERED: d back to direct",
            "RECOVERED: e back to direct",
        ),
        {"relay_since": {"a": T0 - 900, "b": T0, "c": T0 - 10}, "detections": 1, "recoveries": 2},
    ),
    Row(
        "the longest on relay is the cause, the others wait for the whole cooldown",
        on_relay(a=700, b=800, c=799, last_restart=601),
        observation(*map(derp_peer, "abc")),
        (Verdict("a", COOLDOWN, 700), Verdict("b", RESTART, 800), Verdict("c", COOLDOWN, 799)),
        (
            *logs(
                "COOLDOWN: a exceeded threshold but in cooldown (600s remaining)",
                "RESTART: b on relay for 800s, restarting tailscaled",
                "COOLDOWN: c exceeded threshold but in cooldown (600s remaining)",
            ),
            Restart("b"),
        ),
        RESTART_PENDING,
    ),
    Row(
        "in a tie the first by name is the cause",
        on_relay(c=700, a=650, b=700),
        observation(*map(derp_peer, "cba")),
        (Verdict("a", COOLDOWN, 650), Verdict("b", RESTART, 700), Verdict("c", COOLDOWN, 700)),
        (
            *logs(
                "COOLDOWN: a exceeded threshold but in cooldown (30s remaining)",
                "RESTART: b on relay for 700s, restarting tailscaled",
                "COOLDOWN: c exceeded threshold but in cooldown (30s remaining)",
            ),
            Restart("b"),
        ),
        RESTART_PENDING,
        ThresholdPolicy(cooldown_seconds=30),
    ),
    Row(
        "a restart does not affect peers within the threshold or excluded",
        on_relay(a=900, b=601, c=600, d=10),
        observation(*map(derp_peer, "abc"), peer("d"), peer("e"), derp_peer("f")),
        (
            Verdict("a", EXCLUDED, 900),
            Verdict("b", RESTART, 601),
            Verdict("c", WAITING, 600),
            Verdict("d", RECOVERED),
            Verdict("e", DIRECT),
            Verdict("f", DETECTED),
        ),
        (
            *logs(
                "EXCLUDED: a on relay for 900s, excluded from restarts",
                "RESTART: b on relay for 601s, restarting tailscaled",
                "WAITING: c on relay for 600s (threshold: 600s)",
                "RECOVERED: d back to direct",
                "DETECTED: f transitioned to relay",
            ),
            Restart("b"),
        ),
        RESTART_PENDING
        | {
            "relay_since": {"a": T0 - 900, "b": T0 - 601, "c": T0 - 600, "f": T0},
            "detections": 1,
            "recoveries": 1,
        },
        ThresholdPolicy(excluded=frozenset({"a"})),
    ),
    Row(
        "an excluded name covers all peers that share it",
        make_state({"rpi3#nA": T0 - 700, "rpi3#nB": T0 - 800}),
        observation(*TWINS),
        (Verdict("rpi3#nA", EXCLUDED, 700), Verdict("rpi3#nB", EXCLUDED, 800)),
        logs(
            "EXCLUDED: rpi3#nA on relay for 700s, excluded from restarts",
            "EXCLUDED: rpi3#nB on relay for 800s, excluded from restarts",
        ),
        policy=EXCLUDES_RPI3,
    ),
    Row(
        "an excluded name with an ID covers only that peer",
        make_state({"rpi3#nA": T0 - 700, "rpi3#nB": T0 - 800}),
        observation(*TWINS),
        (Verdict("rpi3#nA", RESTART, 700), Verdict("rpi3#nB", EXCLUDED, 800)),
        (
            *logs(
                "RESTART: rpi3#nA on relay for 700s, restarting tailscaled",
                "EXCLUDED: rpi3#nB on relay for 800s, excluded from restarts",
            ),
            Restart("rpi3#nA"),
        ),
        RESTART_PENDING,
        ThresholdPolicy(excluded=frozenset({"rpi3#nB", "rpi", "RPI3"})),
    ),
]

OUTCOME_UNKNOWN = Warn(
    "the run that restarted tailscaled ended before it knew the outcome: counted as done"
)


def clock_warning(seconds: int) -> Warn:
    """Warning about a clock step."""
    return Warn(f"the clock was set by {seconds:+d}s since the last run: all times moved with it")


def reading(unix: int, uptime: int, boot_id: str = "b1") -> Instant:
    """Reading of both clocks."""
    return Instant(unix, Boot(boot_id, uptime))


BEFORE = make_state(
    {"rpi3": T0 - 700}, last_restart=T0 - 650, last_success=T0 - 60, last_run=reading(T0 - 60, 940)
)

CLOCKS_AND_CRASHES = [
    Row(
        "a time in the future becomes now",
        make_state({"rpi3": T0 + 1}, last_restart=T0 + 1, last_success=T0 + 1),
        DOWN,
        None,
        (Warn("asking tailscaled: connection refused; is it running?"),),
        {"relay_since": {"rpi3": T0}, "last_restart": T0, "last_success": T0},
    ),
    Row(
        "relay that began in the future begins now",
        make_state({"rpi3": T0 + 5000}),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", WAITING, 0),),
        logs("WAITING: rpi3 on relay for 0s (threshold: 600s)"),
        {"relay_since": {"rpi3": T0}},
    ),
    Row(
        "a restart in the future becomes now",
        make_state({"rpi3": T0 - 700}, last_restart=T0 + 5000),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", COOLDOWN, 700),),
        logs("COOLDOWN: rpi3 exceeded threshold but in cooldown (600s remaining)"),
        {"last_restart": T0},
    ),
    Row(
        "a restart of unknown outcome counts as done in the next run",
        make_state(
            {"rpi3": T0 - 700},
            last_restart=T0 - 60,
            restarts=2,
            restart_failures=1,
            restart_pending=True,
        ),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", COOLDOWN, 700),),
        (
            OUTCOME_UNKNOWN,
            *logs("COOLDOWN: rpi3 exceeded threshold but in cooldown (540s remaining)"),
        ),
        {"restarts": 3, "restart_pending": False},
    ),
    Row(
        "a restart of unknown outcome counts as done, though tailscaled is down",
        make_state(last_restart=T0 - 60, restarts=2, restart_pending=True),
        DOWN,
        None,
        (OUTCOME_UNKNOWN, Warn("asking tailscaled: connection refused; is it running?")),
        {"restarts": 3, "restart_pending": False},
    ),
    Row(
        "a restart of unknown outcome counts as done, though tailscaled is not Running",
        make_state(last_restart=T0 - 60, restart_pending=True),
        STOPPED,
        None,
        (
            OUTCOME_UNKNOWN,
            Warn("tailscaled is Stopped, not Running: no peer can be judged, the state is kept"),
        ),
        {"restarts": 1, "restart_pending": False},
    ),
    Row(
        "no clock step: both clocks advanced equally",
        BEFORE,
        observation(peer("rpi3")),
        (Verdict("rpi3", RECOVERED),),
        RECOVERED_LINE,
        {"relay_since": {}, "recoveries": 1},
        now=reading(T0, 1000),
    ),
    Row(
        "no clock step: 5 s are tolerated",
        BEFORE,
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", RESTART, 700),),
        (
            *logs("RESTART: rpi3 on relay for 700s, restarting tailscaled"),
            Restart("rpi3"),
        ),
        RESTART_PENDING,
        now=reading(T0, 995),
    ),
    Row(
        "clock set forward: all times move, time on relay stays",
        BEFORE,
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", RESTART, 700),),
        (
            clock_warning(3600),
            *logs("RESTART: rpi3 on relay for 700s, restarting tailscaled"),
            Restart("rpi3"),
        ),
        {"relay_since": {"rpi3": T0 + 2900}, "last_restart": T0 + 3600, "restart_pending": True},
        now=reading(T0 + 3600, 1000),
    ),
    Row(
        "clock set back: all times move, time on relay stays",
        BEFORE,
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", COOLDOWN, 700),),
        (
            clock_warning(-3600),
            *logs("COOLDOWN: rpi3 exceeded threshold but in cooldown (50s remaining)"),
        ),
        {"relay_since": {"rpi3": T0 - 4300}, "last_restart": T0 - 4250},
        ThresholdPolicy(cooldown_seconds=700),
        reading(T0 - 3600, 1000),
    ),
    Row(
        "clock set back, tailscaled down: all times move",
        replace(BEFORE, attempts=(replace(BEFORE.attempts[0], stage=Stage.ASKED),)),
        DOWN,
        None,
        (
            clock_warning(-6),
            OUTCOME_UNKNOWN,
            Warn("asking tailscaled: connection refused; is it running?"),
        ),
        {
            "relay_since": {"rpi3": T0 - 706},
            "last_restart": T0 - 656,
            "last_success": T0 - 66,
            "restarts": 1,
            "restart_pending": False,
        },
        now=reading(T0 - 6, 1000),
    ),
    Row(
        "clock set back: no time moves to before the epoch",
        make_state({"a": 99, "b": 101}, last_run=reading(1000, 10)),
        observation(*map(derp_peer, "ab")),
        (Verdict("a", WAITING, 901), Verdict("b", WAITING, 900)),
        (
            clock_warning(-100),
            *logs(
                "WAITING: a on relay for 901s (threshold: 5000s)",
                "WAITING: b on relay for 900s (threshold: 5000s)",
            ),
        ),
        {"relay_since": {"a": 0, "b": 1}},
        ThresholdPolicy(max_relay_seconds=5000),
        reading(901, 11),
    ),
    Row(
        "another boot: the clocks cannot be compared",
        BEFORE,
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", RESTART, 4300),),
        (
            *logs("RESTART: rpi3 on relay for 4300s, restarting tailscaled"),
            Restart("rpi3"),
        ),
        {"last_restart": T0 + 3600, "restart_pending": True},
        now=reading(T0 + 3600, 1000, "b2"),
    ),
    Row(
        "no boot clock: a clock step is not detected",
        BEFORE,
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", WAITING, 0),),
        logs("WAITING: rpi3 on relay for 0s (threshold: 600s)"),
        {"relay_since": {"rpi3": T0 - 3600}, "last_restart": T0 - 3600},
        now=Instant(T0 - 3600),
    ),
]

TABLE = [*ONE_PEER, *SEVERAL_PEERS, *CLOCKS_AND_CRASHES]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_each_row_of_the_table(row: Row) -> None:
    """The effects, the verdicts and the state are exactly those of the row."""
    success = {} if row.verdicts is None else {"last_success": row.now.unix}
    expected = replace(summarize(row.before), last_run=row.now, **success, **row.changes)
    transition = step(row.before, row.event, now=row.now, policy=row.policy)
    assert effects(transition) == row.effects
    assert transition.verdicts == row.verdicts
    assert summarize(transition.state) == expected


def test_the_cases_cover_every_row_of_the_table() -> None:
    covered = {
        name
        for row in TABLE
        for name in rows(row.before, step(row.before, row.event, now=row.now, policy=row.policy))
    }
    assert covered == ROWS


ATTEMPT = Attempt(Remedy.RESTART, "rpi3", T0, T0 + 600, Stage.ASKED)
ASKED = State(
    {"rpi3": T0 - 601},
    (ATTEMPT,),
    restarts=2,
    restart_failures=1,
    last_success=T0,
    last_run=NOW,
)


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(NOW, id="at once"),
        pytest.param(Instant(0), id="clock set back"),
        pytest.param(Instant(T0 + 9999), id="much later"),
    ],
)
def test_a_successful_restart_is_counted_with_its_outcome(now: Instant) -> None:
    """The outcome changes the counter and the attempt, and nothing else."""
    transition = step(ASKED, Performed(ATTEMPT, Done()), now=now, policy=ThresholdPolicy())
    assert transition.state == replace(
        ASKED, restarts=3, attempts=(replace(ATTEMPT, stage=Stage.DONE),)
    )
    assert transition.effects == ()
    assert transition.verdicts is None


def test_a_failed_restart_is_counted_as_a_failure_and_begins_the_cooldown() -> None:
    failed = step(
        ASKED, Performed(ATTEMPT, Failed("systemctl: not found")), now=NOW, policy=ThresholdPolicy()
    )
    failed_attempt = replace(ATTEMPT, stage=Stage.FAILED, result=AttemptResult.UNKNOWN)
    assert failed.state == replace(ASKED, restart_failures=2, attempts=(failed_attempt,))
    assert failed.effects == (Warn("systemctl: not found"),)
    assert failed.verdicts is None
    again = step(
        failed.state,
        observation(derp_peer("rpi3")),
        now=Instant(T0 + 599),
        policy=ThresholdPolicy(),
    )
    assert again.verdicts == (Verdict("rpi3", COOLDOWN, 1200),)
    assert again.state.restarts == 2


def test_a_restart_is_decided_then_asked_for_then_performed() -> None:
    """Each transition has its stage in the state, so that the shell can store it."""
    policy = ThresholdPolicy(cooldown_seconds=900)
    decided = step(on_relay(rpi3=601), observation(derp_peer("rpi3")), now=NOW, policy=policy)
    attempt = Attempt(Remedy.RESTART, "rpi3", T0, T0 + 900)
    assert [effect.attempt for effect in restarts(decided)] == [attempt]
    assert decided.state.attempts == (attempt,)
    asked = step(decided.state, Asking(attempt), now=NOW, policy=policy)
    assert asked.state == replace(decided.state, attempts=(replace(attempt, stage=Stage.ASKED),))
    assert (asked.effects, asked.verdicts) == ((), None)
    performed = step(asked.state, Performed(attempt, Done()), now=NOW, policy=policy)
    assert performed.state.attempts == (replace(attempt, stage=Stage.DONE),)


NEVER_ASKED = Warn("the run that decided to restart tailscaled ended before it did: not counted")


def test_a_restart_that_was_decided_but_not_asked_for_is_discarded() -> None:
    """It is not counted and begins no cooldown. The next run decides again."""
    before = on_relay(rpi3=700, last_restart=900)
    decided = step(before, observation(derp_peer("rpi3")), now=NOW, policy=ThresholdPolicy()).state
    later = Instant(T0 + 60)
    again = step(decided, observation(derp_peer("rpi3")), now=later, policy=ThresholdPolicy())
    assert effects(again) == (
        NEVER_ASKED,
        *logs("RESTART: rpi3 on relay for 760s, restarting tailscaled"),
        Restart("rpi3"),
    )
    assert [attempt.at for attempt in again.state.attempts] == [T0 - 900, T0 + 60]
    assert again.state.restarts == before.restarts
    unobserved = step(decided, DOWN, now=later, policy=ThresholdPolicy()).state
    assert unobserved.attempts == before.attempts


@pytest.mark.parametrize(
    ("peers", "result"),
    [
        pytest.param((peer("rpi3"),), AttemptResult.HELPED, id="direct"),
        pytest.param((derp_peer("rpi3"),), AttemptResult.FUTILE, id="on relay"),
        pytest.param((peer("rpi3", "offline"),), AttemptResult.UNKNOWN, id="offline"),
        pytest.param((), AttemptResult.UNKNOWN, id="gone"),
    ],
)
def test_the_result_of_a_restart_is_determined_at_judge_at(
    peers: tuple[dict[str, Any], ...], result: AttemptResult
) -> None:
    done = replace(ATTEMPT, stage=Stage.DONE)
    state = State({"rpi3": T0 - 601}, (done,), last_run=NOW)
    policy = ThresholdPolicy(max_relay_seconds=10**6)
    early = step(state, observation(*peers), now=Instant(T0 + 599), policy=policy).state
    assert early.attempts == (done,)
    in_time = step(state, observation(*peers), now=Instant(T0 + 600), policy=policy).state
    assert in_time.attempts == (replace(done, result=result),)
    unobserved = step(state, DOWN, now=Instant(T0 + 600), policy=policy).state
    assert unobserved.attempts == (done,)


def test_a_result_does_not_change_later() -> None:
    helped = replace(ATTEMPT, stage=Stage.DONE, result=AttemptResult.HELPED)
    state = State({"rpi3": T0 - 601}, (helped,), last_run=NOW)
    later = step(
        state, observation(derp_peer("rpi3")), now=Instant(T0 + 700), policy=ThresholdPolicy(10**6)
    )
    assert later.state.attempts == (helped,)


def test_only_the_result_that_is_due_is_determined() -> None:
    """The earlier one stays as it was determined."""
    earlier = Attempt(Remedy.RESTART, "rpi3", T0 - 900, T0 - 300, Stage.DONE, AttemptResult.HELPED)
    state = State({"rpi3": T0 - 601}, (earlier, replace(ATTEMPT, stage=Stage.DONE)), last_run=NOW)
    policy = ThresholdPolicy(max_relay_seconds=10**6)
    later = step(state, observation(derp_peer("rpi3")), now=Instant(T0 + 600), policy=policy)
    assert later.state.attempts[0] == earlier
    assert later.state.attempts[1].result is AttemptResult.FUTILE


def test_only_a_peer_that_stays_on_relay_can_be_over_the_threshold() -> None:
    """Even over a threshold that no command line accepts."""
    transition = step(
        on_relay(nas=10),
        observation(peer("bravo"), derp_peer("carol"), derp_peer("nas")),
        now=NOW,
        policy=ThresholdPolicy(max_relay_seconds=-1),
    )
    assert transition.verdicts == (
        Verdict("bravo", DIRECT),
        Verdict("carol", DETECTED),
        Verdict("nas", RESTART, 10),
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param(on_relay(rpi3=300), Due(T0 + 301, Remedy.RESTART, "rpi3"), id="threshold"),
        pytest.param(
            on_relay(rpi3=700, last_restart=400),
            Due(T0 + 200, Remedy.RESTART, "rpi3"),
            id="cooldown",
        ),
        pytest.param(on_relay(rpi3=601), Due(T0, Remedy.RESTART, "rpi3"), id="now"),
    ],
)
def test_a_transition_says_when_the_next_attempt_is_due(state: State, expected: Due) -> None:
    transition = step(state, observation(derp_peer("rpi3")), now=NOW, policy=ThresholdPolicy())
    assert transition.due == expected


def test_the_times_of_an_attempt_move_with_the_clock() -> None:
    state = State(attempts=(ATTEMPT,), last_run=reading(T0, 1000))
    moved = step(state, DOWN, now=reading(T0 + 3660, 1060), policy=ThresholdPolicy()).state
    (attempt,) = moved.attempts
    assert (attempt.at, attempt.judge_at) == (T0 + 3600, T0 + 4200)


def test_the_newest_attempts_are_kept() -> None:
    state, policy = State({"rpi3": 0}), ThresholdPolicy(0, 0)
    for at in range(1, 31):
        transition = step(state, observation(derp_peer("rpi3")), now=Instant(at), policy=policy)
        (effect,) = restarts(transition)
        performed = Performed(effect.attempt, Done())
        state = step(transition.state, performed, now=Instant(at), policy=policy).state
        assert pending(state) is None
    assert [attempt.at for attempt in state.attempts] == list(range(26, 31))
    assert state.restarts == 30


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (DIRECT, None),
        (DETECTED, "DETECTED: rpi3 transitioned to relay"),
        (WAITING, "WAITING: rpi3 on relay for 300s (threshold: 601s)"),
        (EXCLUDED, "EXCLUDED: rpi3 on relay for 300s, excluded from restarts"),
        (COOLDOWN, "COOLDOWN: rpi3 exceeded threshold but in cooldown (200s remaining)"),
        (RESTART, "RESTART: rpi3 on relay for 300s, restarting tailscaled"),
        (RECOVERED, "RECOVERED: rpi3 back to direct"),
        (RESTORED, "RECOVERED: rpi3 back to direct"),
    ],
)
def test_each_reason_has_its_documented_line(reason: Reason, expected: str | None) -> None:
    assert (
        line(
            Verdict("rpi3", reason, 300),
            cooldown_seconds=200,
            policy=ThresholdPolicy(max_relay_seconds=601),
        )
        == expected
    )


@pytest.mark.parametrize(
    ("excluded", "name", "expected"),
    [
        ({"rpi3"}, "rpi3", True),
        ({"rpi3"}, "rpi3#nA", True),
        ({"rpi3#nA"}, "rpi3#nA", True),
        ({"rpi3#nA"}, "rpi3#nB", False),
        ({"rpi3#nA"}, "rpi3", False),
        ({"rpi3"}, "rpi3.tail2.ts.net", False),
        ({"rpi3"}, "rpi33", False),
        (set[str](), "rpi3", False),
    ],
)
def test_an_excluded_name_covers_the_peer_and_those_that_share_its_name(
    *, excluded: set[str], name: str, expected: bool
) -> None:
    assert is_excluded(ThresholdPolicy(excluded=frozenset(excluded)), name) is expected


def test_the_default_threshold_and_cooldown_are_ten_minutes() -> None:
    assert ThresholdPolicy() == ThresholdPolicy(
        max_relay_seconds=600, cooldown_seconds=600, excluded=frozenset()
    )
