"""Every row of the watchdog's table, at its thresholds: what is said, counted, remembered and done."""

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
from tsfc.core.watchdog.threshold import line
from tsfc.core.watchdog.track import Reason, Verdict

from .worlds import (
    DOWN,
    NOW,
    ROWS,
    STOPPED,
    T0,
    Restart,
    effects,
    relayed,
    remembered,
    remembering,
    restarts,
    rows,
    seen,
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
    """One run. The state after it is the one before it with `becomes`, and with the run's own instants."""

    id: str
    before: State
    event: Event
    verdicts: tuple[Verdict, ...] | None
    effects: tuple[Log | Warn | Restart, ...] = ()
    becomes: Mapping[str, Any] = {}
    policy: ThresholdPolicy = ThresholdPolicy()
    now: Instant = NOW


def said(*texts: str) -> tuple[Log, ...]:
    """Returns the log lines."""
    return tuple(Log(text) for text in texts)


def on_relay(*, last_restart: int | None = None, **seconds: int) -> State:
    """Returns a state in which these peers are on relay for so long."""
    return remembering(
        {name: T0 - d for name, d in seconds.items()},
        last_restart=None if last_restart is None else T0 - last_restart,
    )


ONE_DETECTED = (Verdict("rpi3", DETECTED),)
DETECTED_RPI3 = said("DETECTED: rpi3 transitioned to relay")
REMEMBERED = {"relay_since": {"rpi3": T0}, "detections": 1}
RECOVERED_RPI3 = said("RECOVERED: rpi3 back to direct")
RESTART_RPI3 = said("RESTART: rpi3 on relay for 601s, restarting tailscaled")
RESTARTED = {"last_restart": T0, "restart_pending": True}
WITHOUT_RPI3 = ThresholdPolicy(excluded=frozenset({"rpi3"}))
TWINS = (relayed("rpi3", ID="nA"), relayed("rpi3", ID="nB"))

ONE_PEER = [
    # direct | nothing -> nothing
    Row("direct", State(), seen(peer("rpi3")), (Verdict("rpi3", DIRECT),)),
    # on relay | nothing -> remember now; "on relay" is to have no direct address, whatever else there is
    Row("derp", State(), seen(relayed("rpi3")), ONE_DETECTED, DETECTED_RPI3, REMEMBERED),
    Row(
        "peer relay",
        State(),
        seen(peer("rpi3", "peer_relay")),
        ONE_DETECTED,
        DETECTED_RPI3,
        REMEMBERED,
    ),
    Row("idle", State(), seen(peer("rpi3", "idle")), ONE_DETECTED, DETECTED_RPI3, REMEMBERED),
    Row(
        "without an IP",
        State(),
        seen(relayed("rpi3", TailscaleIPs=None)),
        ONE_DETECTED,
        DETECTED_RPI3,
        REMEMBERED,
    ),
    Row(
        "excluded, detected",
        State(),
        seen(relayed("rpi3")),
        ONE_DETECTED,
        DETECTED_RPI3,
        REMEMBERED,
        WITHOUT_RPI3,
    ),
    # on relay | since, d <= max -> keep
    Row(
        "same second",
        on_relay(rpi3=0),
        seen(relayed("rpi3")),
        (Verdict("rpi3", WAITING, 0),),
        said("WAITING: rpi3 on relay for 0s (threshold: 600s)"),
    ),
    Row(
        "below",
        on_relay(rpi3=300),
        seen(relayed("rpi3")),
        (Verdict("rpi3", WAITING, 300),),
        said("WAITING: rpi3 on relay for 300s (threshold: 600s)"),
    ),
    Row(
        "d == max",
        on_relay(rpi3=600),
        seen(relayed("rpi3")),
        (Verdict("rpi3", WAITING, 600),),
        said("WAITING: rpi3 on relay for 600s (threshold: 600s)"),
    ),
    Row(
        "excluded, below",
        on_relay(rpi3=600),
        seen(relayed("rpi3")),
        (Verdict("rpi3", WAITING, 600),),
        said("WAITING: rpi3 on relay for 600s (threshold: 600s)"),
        policy=WITHOUT_RPI3,
    ),
    Row(
        "another threshold",
        on_relay(rpi3=61),
        seen(relayed("rpi3")),
        (Verdict("rpi3", WAITING, 61),),
        said("WAITING: rpi3 on relay for 61s (threshold: 61s)"),
        policy=ThresholdPolicy(max_relay_seconds=61),
    ),
    # on relay | since, d > max, no cooldown -> keep; restart
    Row(
        "d == max + 1",
        on_relay(rpi3=601),
        seen(relayed("rpi3")),
        (Verdict("rpi3", RESTART, 601),),
        (*RESTART_RPI3, Restart("rpi3")),
        RESTARTED,
    ),
    Row(
        "cooldown over",
        on_relay(rpi3=601, last_restart=600),
        seen(relayed("rpi3")),
        (Verdict("rpi3", RESTART, 601),),
        (*RESTART_RPI3, Restart("rpi3")),
        RESTARTED,
    ),
    Row(
        "no cooldown at all",
        on_relay(rpi3=1, last_restart=0),
        seen(relayed("rpi3")),
        (Verdict("rpi3", RESTART, 1),),
        (
            *said("RESTART: rpi3 on relay for 1s, restarting tailscaled"),
            Restart("rpi3"),
        ),
        RESTARTED,
        ThresholdPolicy(max_relay_seconds=0, cooldown_seconds=0),
    ),
    # on relay | since, d > max, cooldown holds -> keep
    Row(
        "cooldown, first second",
        on_relay(rpi3=601, last_restart=0),
        seen(relayed("rpi3")),
        (Verdict("rpi3", COOLDOWN, 601),),
        said("COOLDOWN: rpi3 exceeded threshold but in cooldown (600s remaining)"),
    ),
    Row(
        "cooldown, last second",
        on_relay(rpi3=601, last_restart=599),
        seen(relayed("rpi3")),
        (Verdict("rpi3", COOLDOWN, 601),),
        said("COOLDOWN: rpi3 exceeded threshold but in cooldown (1s remaining)"),
    ),
    # on relay | since, d > max, excluded -> keep
    Row(
        "excluded",
        on_relay(rpi3=650),
        seen(relayed("rpi3")),
        (Verdict("rpi3", EXCLUDED, 650),),
        said("EXCLUDED: rpi3 on relay for 650s, excluded from restarts"),
        policy=WITHOUT_RPI3,
    ),
    Row(
        "excluded, in cooldown",
        on_relay(rpi3=601, last_restart=1),
        seen(relayed("rpi3")),
        (Verdict("rpi3", EXCLUDED, 601),),
        said("EXCLUDED: rpi3 on relay for 601s, excluded from restarts"),
        policy=WITHOUT_RPI3,
    ),
    # direct | since -> forget; a recovery, unless the restart did it
    Row(
        "recovered",
        on_relay(rpi3=30),
        seen(peer("rpi3")),
        (Verdict("rpi3", RECOVERED),),
        RECOVERED_RPI3,
        {"relay_since": {}, "recoveries": 1},
    ),
    Row(
        "excluded, recovered",
        on_relay(rpi3=900),
        seen(peer("rpi3")),
        (Verdict("rpi3", RECOVERED),),
        RECOVERED_RPI3,
        {"relay_since": {}, "recoveries": 1},
        WITHOUT_RPI3,
    ),
    Row(
        "on relay only after the restart",
        on_relay(rpi3=99, last_restart=100),
        seen(peer("rpi3")),
        (Verdict("rpi3", RECOVERED),),
        RECOVERED_RPI3,
        {"relay_since": {}, "recoveries": 1},
    ),
    Row(
        "on relay since the restart",
        on_relay(rpi3=100, last_restart=100),
        seen(peer("rpi3")),
        (Verdict("rpi3", RESTORED),),
        RECOVERED_RPI3,
        {"relay_since": {}},
    ),
    Row(
        "restored in the last second",
        on_relay(rpi3=1300, last_restart=599),
        seen(peer("rpi3")),
        (Verdict("rpi3", RESTORED),),
        RECOVERED_RPI3,
        {"relay_since": {}},
    ),
    Row(
        "recovered after the cooldown",
        on_relay(rpi3=1300, last_restart=600),
        seen(peer("rpi3")),
        (Verdict("rpi3", RECOVERED),),
        RECOVERED_RPI3,
        {"relay_since": {}, "recoveries": 1},
    ),
    # offline, gone or not watched | since -> forget
    Row("offline", on_relay(rpi3=900), seen(peer("rpi3", "offline")), (), (), {"relay_since": {}}),
    Row("gone", on_relay(rpi3=900), seen(), (), (), {"relay_since": {}}),
    Row(
        "gone, and the map is null",
        on_relay(rpi3=900),
        Observed(decoded(Peer=None)),
        (),
        (),
        {"relay_since": {}},
    ),
    Row(
        "expired",
        on_relay(rpi3=900),
        seen(relayed("rpi3", Expired=True)),
        (),
        (),
        {"relay_since": {}},
    ),
    Row(
        "sharee",
        on_relay(rpi3=900),
        seen(relayed("rpi3", ShareeNode=True)),
        (),
        (),
        {"relay_since": {}},
    ),
    Row(
        "Mullvad",
        on_relay(rpi3=900),
        seen(relayed("rpi3", DNSName="rpi3.mullvad.ts.net.")),
        (),
        (),
        {"relay_since": {}},
    ),
    # nothing could be seen | anything -> keep all
    Row(
        "down",
        on_relay(rpi3=900),
        DOWN,
        None,
        (Warn("asking tailscaled: connection refused; is it running?"),),
    ),
    Row(
        "unreadable",
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
        "in a state from hell",
        State(),
        Observed(decoded(BackendState="a\n" + 60 * "b")),
        None,
        (
            Warn(
                f"tailscaled is a {38 * 'b'}…, not Running: no peer can be judged, the state is kept"
            ),
        ),
    ),
]

SEVERAL_PEERS = [
    Row(
        "in the order of the names, one line each",
        on_relay(a=900, c=10, d=20, e=30, last_restart=100),
        seen(*map(relayed, "cba"), *map(peer, "ed")),
        (
            Verdict("a", COOLDOWN, 900),
            Verdict("b", DETECTED),
            Verdict("c", WAITING, 10),
            Verdict("d", RECOVERED),
            Verdict("e", RECOVERED),
        ),
        said(
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
        seen(*map(relayed, "abc")),
        (Verdict("a", COOLDOWN, 700), Verdict("b", RESTART, 800), Verdict("c", COOLDOWN, 799)),
        (
            *said(
                "COOLDOWN: a exceeded threshold but in cooldown (600s remaining)",
                "RESTART: b on relay for 800s, restarting tailscaled",
                "COOLDOWN: c exceeded threshold but in cooldown (600s remaining)",
            ),
            Restart("b"),
        ),
        RESTARTED,
    ),
    Row(
        "of equals the first by name is the cause",
        on_relay(c=700, a=650, b=700),
        seen(*map(relayed, "cba")),
        (Verdict("a", COOLDOWN, 650), Verdict("b", RESTART, 700), Verdict("c", COOLDOWN, 700)),
        (
            *said(
                "COOLDOWN: a exceeded threshold but in cooldown (30s remaining)",
                "RESTART: b on relay for 700s, restarting tailscaled",
                "COOLDOWN: c exceeded threshold but in cooldown (30s remaining)",
            ),
            Restart("b"),
        ),
        RESTARTED,
        ThresholdPolicy(cooldown_seconds=30),
    ),
    Row(
        "a restart moves nobody who does not wait for it",
        on_relay(a=900, b=601, c=600, d=10),
        seen(*map(relayed, "abc"), peer("d"), peer("e"), relayed("f")),
        (
            Verdict("a", EXCLUDED, 900),
            Verdict("b", RESTART, 601),
            Verdict("c", WAITING, 600),
            Verdict("d", RECOVERED),
            Verdict("e", DIRECT),
            Verdict("f", DETECTED),
        ),
        (
            *said(
                "EXCLUDED: a on relay for 900s, excluded from restarts",
                "RESTART: b on relay for 601s, restarting tailscaled",
                "WAITING: c on relay for 600s (threshold: 600s)",
                "RECOVERED: d back to direct",
                "DETECTED: f transitioned to relay",
            ),
            Restart("b"),
        ),
        RESTARTED
        | {
            "relay_since": {"a": T0 - 900, "b": T0 - 601, "c": T0 - 600, "f": T0},
            "detections": 1,
            "recoveries": 1,
        },
        ThresholdPolicy(excluded=frozenset({"a"})),
    ),
    Row(
        "an excluded name covers all that share it",
        remembering({"rpi3#nA": T0 - 700, "rpi3#nB": T0 - 800}),
        seen(*TWINS),
        (Verdict("rpi3#nA", EXCLUDED, 700), Verdict("rpi3#nB", EXCLUDED, 800)),
        said(
            "EXCLUDED: rpi3#nA on relay for 700s, excluded from restarts",
            "EXCLUDED: rpi3#nB on relay for 800s, excluded from restarts",
        ),
        policy=WITHOUT_RPI3,
    ),
    Row(
        "an excluded name with an ID covers that one alone",
        remembering({"rpi3#nA": T0 - 700, "rpi3#nB": T0 - 800}),
        seen(*TWINS),
        (Verdict("rpi3#nA", RESTART, 700), Verdict("rpi3#nB", EXCLUDED, 800)),
        (
            *said(
                "RESTART: rpi3#nA on relay for 700s, restarting tailscaled",
                "EXCLUDED: rpi3#nB on relay for 800s, excluded from restarts",
            ),
            Restart("rpi3#nA"),
        ),
        RESTARTED,
        ThresholdPolicy(excluded=frozenset({"rpi3#nB", "rpi", "RPI3"})),
    ),
]

PENDING = Warn(
    "the run that restarted tailscaled ended before it knew the outcome: counted as done"
)


def stepped(seconds: int) -> Warn:
    """Returns the line about a clock that was set."""
    return Warn(f"the clock was set by {seconds:+d}s since the last run: all times moved with it")


def read(unix: int, boot: int, boot_id: str = "b1") -> Instant:
    """Returns a reading of both clocks."""
    return Instant(unix, Boot(boot_id, boot))


BEFORE = remembering(
    {"rpi3": T0 - 700}, last_restart=T0 - 650, last_success=T0 - 60, last_run=read(T0 - 60, 940)
)

CLOCKS_AND_CRASHES = [
    Row(
        "a remembered instant in the future becomes now",
        remembering({"rpi3": T0 + 1}, last_restart=T0 + 1, last_success=T0 + 1),
        DOWN,
        None,
        (Warn("asking tailscaled: connection refused; is it running?"),),
        {"relay_since": {"rpi3": T0}, "last_restart": T0, "last_success": T0},
    ),
    Row(
        "relay that began in the future began now",
        remembering({"rpi3": T0 + 5000}),
        seen(relayed("rpi3")),
        (Verdict("rpi3", WAITING, 0),),
        said("WAITING: rpi3 on relay for 0s (threshold: 600s)"),
        {"relay_since": {"rpi3": T0}},
    ),
    Row(
        "a restart in the future was now",
        remembering({"rpi3": T0 - 700}, last_restart=T0 + 5000),
        seen(relayed("rpi3")),
        (Verdict("rpi3", COOLDOWN, 700),),
        said("COOLDOWN: rpi3 exceeded threshold but in cooldown (600s remaining)"),
        {"last_restart": T0},
    ),
    Row(
        "a restart of unknown outcome counts as done in the next run",
        remembering(
            {"rpi3": T0 - 700},
            last_restart=T0 - 60,
            restarts=2,
            restart_failures=1,
            restart_pending=True,
        ),
        seen(relayed("rpi3")),
        (Verdict("rpi3", COOLDOWN, 700),),
        (PENDING, *said("COOLDOWN: rpi3 exceeded threshold but in cooldown (540s remaining)")),
        {"restarts": 3, "restart_pending": False},
    ),
    Row(
        "a restart of unknown outcome counts as done, though nothing can be seen",
        remembering(last_restart=T0 - 60, restarts=2, restart_pending=True),
        DOWN,
        None,
        (PENDING, Warn("asking tailscaled: connection refused; is it running?")),
        {"restarts": 3, "restart_pending": False},
    ),
    Row(
        "a restart of unknown outcome counts as done, though tailscaled is not Running",
        remembering(last_restart=T0 - 60, restart_pending=True),
        STOPPED,
        None,
        (
            PENDING,
            Warn("tailscaled is Stopped, not Running: no peer can be judged, the state is kept"),
        ),
        {"restarts": 1, "restart_pending": False},
    ),
    Row(
        "no step: both clocks went on alike",
        BEFORE,
        seen(peer("rpi3")),
        (Verdict("rpi3", RECOVERED),),
        RECOVERED_RPI3,
        {"relay_since": {}, "recoveries": 1},
        now=read(T0, 1000),
    ),
    Row(
        "no step: as much as rounding makes",
        BEFORE,
        seen(relayed("rpi3")),
        (Verdict("rpi3", RESTART, 700),),
        (
            *said("RESTART: rpi3 on relay for 700s, restarting tailscaled"),
            Restart("rpi3"),
        ),
        RESTARTED,
        now=read(T0, 995),
    ),
    Row(
        "forward: all is moved, nobody is longer on relay for it",
        BEFORE,
        seen(relayed("rpi3")),
        (Verdict("rpi3", RESTART, 700),),
        (
            stepped(3600),
            *said("RESTART: rpi3 on relay for 700s, restarting tailscaled"),
            Restart("rpi3"),
        ),
        {"relay_since": {"rpi3": T0 + 2900}, "last_restart": T0 + 3600, "restart_pending": True},
        now=read(T0 + 3600, 1000),
    ),
    Row(
        "back: all is moved, nobody is shorter on relay for it",
        BEFORE,
        seen(relayed("rpi3")),
        (Verdict("rpi3", COOLDOWN, 700),),
        (
            stepped(-3600),
            *said("COOLDOWN: rpi3 exceeded threshold but in cooldown (50s remaining)"),
        ),
        {"relay_since": {"rpi3": T0 - 4300}, "last_restart": T0 - 4250},
        ThresholdPolicy(cooldown_seconds=700),
        read(T0 - 3600, 1000),
    ),
    Row(
        "back, and tailscaled is down: moved all the same",
        replace(BEFORE, attempts=(replace(BEFORE.attempts[0], stage=Stage.ASKED),)),
        DOWN,
        None,
        (stepped(-6), PENDING, Warn("asking tailscaled: connection refused; is it running?")),
        {
            "relay_since": {"rpi3": T0 - 706},
            "last_restart": T0 - 656,
            "last_success": T0 - 66,
            "restarts": 1,
            "restart_pending": False,
        },
        now=read(T0 - 6, 1000),
    ),
    Row(
        "back behind the epoch: nothing is remembered from before it",
        remembering({"a": 99, "b": 101}, last_run=read(1000, 10)),
        seen(*map(relayed, "ab")),
        (Verdict("a", WAITING, 901), Verdict("b", WAITING, 900)),
        (
            stepped(-100),
            *said(
                "WAITING: a on relay for 901s (threshold: 5000s)",
                "WAITING: b on relay for 900s (threshold: 5000s)",
            ),
        ),
        {"relay_since": {"a": 0, "b": 1}},
        ThresholdPolicy(max_relay_seconds=5000),
        read(901, 11),
    ),
    Row(
        "another boot: the clocks do not compare",
        BEFORE,
        seen(relayed("rpi3")),
        (Verdict("rpi3", RESTART, 4300),),
        (
            *said("RESTART: rpi3 on relay for 4300s, restarting tailscaled"),
            Restart("rpi3"),
        ),
        {"last_restart": T0 + 3600, "restart_pending": True},
        now=read(T0 + 3600, 1000, "b2"),
    ),
    Row(
        "no boot clock: what cannot be known is not guessed",
        BEFORE,
        seen(relayed("rpi3")),
        (Verdict("rpi3", WAITING, 0),),
        said("WAITING: rpi3 on relay for 0s (threshold: 600s)"),
        {"relay_since": {"rpi3": T0 - 3600}, "last_restart": T0 - 3600},
        now=Instant(T0 - 3600),
    ),
]

TABLE = [*ONE_PEER, *SEVERAL_PEERS, *CLOCKS_AND_CRASHES]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_row(row: Row) -> None:
    """A run says, counts, remembers and does what its row of the table says, and nothing else."""
    success = {} if row.verdicts is None else {"last_success": row.now.unix}
    expected = replace(remembered(row.before), last_run=row.now, **success, **row.becomes)
    transition = step(row.before, row.event, now=row.now, policy=row.policy)
    assert effects(transition) == row.effects
    assert transition.verdicts == row.verdicts
    assert remembered(transition.state) == expected


def test_every_row_is_reached() -> None:
    """No row of the table, and no reason, is without a case here."""
    reached = {
        name
        for row in TABLE
        for name in rows(row.before, step(row.before, row.event, now=row.now, policy=row.policy))
    }
    assert reached == ROWS


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
    "now", [NOW, Instant(0), Instant(T0 + 9999)], ids=["at once", "clock set back", "much later"]
)
def test_a_restart_that_was_done_is_counted_once_it_was_done(now: Instant) -> None:
    """The outcome counts the restart, and changes nothing else."""
    transition = step(ASKED, Performed(ATTEMPT, Done()), now=now, policy=ThresholdPolicy())
    assert transition.state == replace(
        ASKED, restarts=3, attempts=(replace(ATTEMPT, stage=Stage.DONE),)
    )
    assert transition.effects == ()
    assert transition.verdicts is None


def test_a_restart_that_failed_counts_as_a_failure_and_starts_the_cooldown_all_the_same() -> None:
    """A failure is counted and said, is no restart, and is not tried again before the cooldown is over."""
    failed = step(
        ASKED, Performed(ATTEMPT, Failed("systemctl: not found")), now=NOW, policy=ThresholdPolicy()
    )
    unhelpful = replace(ATTEMPT, stage=Stage.FAILED, result=AttemptResult.UNKNOWN)
    assert failed.state == replace(ASKED, restart_failures=2, attempts=(unhelpful,))
    assert failed.effects == (Warn("systemctl: not found"),)
    assert failed.verdicts is None
    again = step(
        failed.state, seen(relayed("rpi3")), now=Instant(T0 + 599), policy=ThresholdPolicy()
    )
    assert again.verdicts == (Verdict("rpi3", COOLDOWN, 1200),)
    assert again.state.restarts == 2


def test_a_restart_is_decided_then_asked_for_then_performed() -> None:
    """Each stage is in the state of its transition, for the shell to make durable."""
    policy = ThresholdPolicy(cooldown_seconds=900)
    decided = step(on_relay(rpi3=601), seen(relayed("rpi3")), now=NOW, policy=policy)
    attempt = Attempt(Remedy.RESTART, "rpi3", T0, T0 + 900)
    assert [effect.attempt for effect in restarts(decided)] == [attempt]
    assert decided.state.attempts == (attempt,)
    asked = step(decided.state, Asking(attempt), now=NOW, policy=policy)
    assert asked.state == replace(decided.state, attempts=(replace(attempt, stage=Stage.ASKED),))
    assert (asked.effects, asked.verdicts) == ((), None)
    performed = step(asked.state, Performed(attempt, Done()), now=NOW, policy=policy)
    assert performed.state.attempts == (replace(attempt, stage=Stage.DONE),)


WITHDRAWN = Warn("the run that decided to restart tailscaled ended before it did: not counted")


def test_a_restart_that_was_never_asked_for_is_withdrawn() -> None:
    """It is not counted and begins no cooldown: the next run decides again."""
    before = on_relay(rpi3=700, last_restart=900)
    died = step(before, seen(relayed("rpi3")), now=NOW, policy=ThresholdPolicy()).state
    later = Instant(T0 + 60)
    again = step(died, seen(relayed("rpi3")), now=later, policy=ThresholdPolicy())
    assert effects(again) == (
        WITHDRAWN,
        *said("RESTART: rpi3 on relay for 760s, restarting tailscaled"),
        Restart("rpi3"),
    )
    assert [attempt.at for attempt in again.state.attempts] == [T0 - 900, T0 + 60]
    assert again.state.restarts == before.restarts
    unseen = step(died, DOWN, now=later, policy=ThresholdPolicy()).state
    assert unseen.attempts == before.attempts


@pytest.mark.parametrize(
    ("peers", "result"),
    [
        pytest.param((peer("rpi3"),), AttemptResult.HELPED, id="direct"),
        pytest.param((relayed("rpi3"),), AttemptResult.FUTILE, id="on relay"),
        pytest.param((peer("rpi3", "offline"),), AttemptResult.UNKNOWN, id="offline"),
        pytest.param((), AttemptResult.UNKNOWN, id="gone"),
    ],
)
def test_whether_a_restart_helped_is_determined_when_its_time_has_come(
    peers: tuple[dict[str, Any], ...], result: AttemptResult
) -> None:
    done = replace(ATTEMPT, stage=Stage.DONE)
    state = State({"rpi3": T0 - 601}, (done,), last_run=NOW)
    policy = ThresholdPolicy(max_relay_seconds=10**6)
    early = step(state, seen(*peers), now=Instant(T0 + 599), policy=policy).state
    assert early.attempts == (done,)
    in_time = step(state, seen(*peers), now=Instant(T0 + 600), policy=policy).state
    assert in_time.attempts == (replace(done, result=result),)
    unseen = step(state, DOWN, now=Instant(T0 + 600), policy=policy).state
    assert unseen.attempts == (done,)


def test_a_result_is_determined_once() -> None:
    helped = replace(ATTEMPT, stage=Stage.DONE, result=AttemptResult.HELPED)
    state = State({"rpi3": T0 - 601}, (helped,), last_run=NOW)
    later = step(state, seen(relayed("rpi3")), now=Instant(T0 + 700), policy=ThresholdPolicy(10**6))
    assert later.state.attempts == (helped,)


def test_the_time_of_the_result_moves_with_the_clock() -> None:
    state = State(attempts=(ATTEMPT,), last_run=read(T0, 1000))
    moved = step(state, DOWN, now=read(T0 + 3660, 1060), policy=ThresholdPolicy()).state
    (attempt,) = moved.attempts
    assert (attempt.at, attempt.judge_at) == (T0 + 3600, T0 + 4200)


def test_the_newest_attempts_are_kept() -> None:
    state, policy = State({"rpi3": 0}), ThresholdPolicy(0, 0)
    for at in range(1, 31):
        transition = step(state, seen(relayed("rpi3")), now=Instant(at), policy=policy)
        (effect,) = restarts(transition)
        performed = Performed(effect.attempt, Done())
        state = step(transition.state, performed, now=Instant(at), policy=policy).state
        assert pending(state) is None
    assert [attempt.at for attempt in state.attempts] == list(range(11, 31))
    assert state.restarts == 30


@pytest.mark.parametrize(
    ("reason", "said"),
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
def test_line(reason: Reason, said: str | None) -> None:
    """Each reason has its line, in the documented form."""
    assert (
        line(
            Verdict("rpi3", reason, 300),
            cooldown_seconds=200,
            policy=ThresholdPolicy(max_relay_seconds=601),
        )
        == said
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
def test_is_excluded(excluded: set[str], name: str, expected: bool) -> None:  # noqa: FBT001 - a row of the table
    """An excluded name covers the peer of that name, and those that had to share it."""
    assert is_excluded(ThresholdPolicy(excluded=frozenset(excluded)), name) is expected


def test_the_documented_policy_is_ten_minutes_each() -> None:
    """The defaults are those of the documentation."""
    assert ThresholdPolicy() == ThresholdPolicy(
        max_relay_seconds=600, cooldown_seconds=600, excluded=frozenset()
    )
