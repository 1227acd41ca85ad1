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
from tsfc.core.tailscale.status import PeerStatus
from tsfc.core.watchdog.decision import Due
from tsfc.core.watchdog.effects import Apply, Log, Warn
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed, Unobservable
from tsfc.core.watchdog.lines import line
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.remedy import (
    Attempt,
    AttemptResult,
    Declined,
    Done,
    Failed,
    Outcome,
    Remedy,
    Stage,
)
from tsfc.core.watchdog.state import ATTEMPT_LIMIT, Relay, State, pending
from tsfc.core.watchdog.step import step
from tsfc.core.watchdog.track import Reason, Verdict
from tsfc.core.watchdog.watch import Hold

from .worlds import (
    DOWN,
    NOW,
    POLICY,
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
COOLDOWN, HELD, RESTART, RECOVERED, RESTORED = (
    Reason.COOLDOWN,
    Reason.HELD,
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

ALL_OFFLINE = (
    Warn(
        "all peers are offline (1); if this node's own network works, see `tailscale status`, "
        "and try `systemctl restart tailscaled`"
    ),
)
CUT_OFF = decoded(Self={"Online": False}).self_
EXPIRED = decoded(Self={"Online": True, "KeyExpiry": "2023-11-14T22:13:20Z"}).self_
"A node whose key expires at `T0`."

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
        (Verdict("rpi3", DETECTED, is_excluded=True),),
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
        (Verdict("rpi3", WAITING, 600, is_excluded=True),),
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
        (Verdict("rpi3", EXCLUDED, 650, is_excluded=True),),
        logs("EXCLUDED: rpi3 on relay for 650s, excluded from restarts"),
        policy=EXCLUDES_RPI3,
    ),
    Row(
        "excluded, in cooldown",
        on_relay(rpi3=601, last_restart=1),
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", EXCLUDED, 601, is_excluded=True),),
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
        (Verdict("rpi3", RECOVERED, is_excluded=True),),
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
        ALL_OFFLINE,
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
            Verdict("a", EXCLUDED, 900, is_excluded=True),
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
        (
            Verdict("rpi3#nA", EXCLUDED, 700, is_excluded=True),
            Verdict("rpi3#nB", EXCLUDED, 800, is_excluded=True),
        ),
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
        (Verdict("rpi3#nA", RESTART, 700), Verdict("rpi3#nB", EXCLUDED, 800, is_excluded=True)),
        (
            *logs(
                "RESTART: rpi3#nA on relay for 700s, restarting tailscaled",
                "EXCLUDED: rpi3#nB on relay for 800s, excluded from restarts",
            ),
            Restart("rpi3#nA"),
        ),
        RESTART_PENDING,
        ThresholdPolicy(excluded=frozenset({"rpi3#nB"})),
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


def node_of(event: Observed, own: PeerStatus) -> Observed:
    """Return the observation with another node itself."""
    return Observed(replace(event.status, self_=own))


HELD_BACK = [
    Row(
        "held: the control server is away",
        on_relay(rpi3=601),
        node_of(observation(derp_peer("rpi3")), CUT_OFF),
        (Verdict("rpi3", HELD, 601),),
        logs("HELD: rpi3 on relay for 601s, not restarting: the control server cannot be reached"),
    ),
    Row(
        "held: the node's key has expired",
        on_relay(rpi3=601),
        node_of(observation(derp_peer("rpi3")), EXPIRED),
        (Verdict("rpi3", HELD, 601),),
        logs("HELD: rpi3 on relay for 601s, not restarting: this node's key has expired"),
    ),
    Row(
        "held: the node is expired",
        on_relay(rpi3=601),
        node_of(observation(derp_peer("rpi3")), replace(CUT_OFF, online=True, expired=True)),
        (Verdict("rpi3", HELD, 601),),
        logs("HELD: rpi3 on relay for 601s, not restarting: this node's key has expired"),
    ),
    Row(
        "each peer over the threshold is held",
        on_relay(a=601, b=700, c=10),
        node_of(observation(*map(derp_peer, "abc")), CUT_OFF),
        (Verdict("a", HELD, 601), Verdict("b", HELD, 700), Verdict("c", WAITING, 10)),
        logs(
            "HELD: a on relay for 601s, not restarting: the control server cannot be reached",
            "HELD: b on relay for 700s, not restarting: the control server cannot be reached",
            "WAITING: c on relay for 10s (threshold: 600s)",
        ),
    ),
    Row(
        "cut off, in cooldown",
        on_relay(rpi3=700, last_restart=100),
        node_of(observation(derp_peer("rpi3")), CUT_OFF),
        (Verdict("rpi3", COOLDOWN, 700),),
        logs("COOLDOWN: rpi3 exceeded threshold but in cooldown (500s remaining)"),
    ),
    Row(
        "cut off, excluded",
        on_relay(rpi3=700),
        node_of(observation(derp_peer("rpi3")), CUT_OFF),
        (Verdict("rpi3", EXCLUDED, 700, is_excluded=True),),
        logs("EXCLUDED: rpi3 on relay for 700s, excluded from restarts"),
        policy=EXCLUDES_RPI3,
    ),
    Row(
        "not known to be cut off",
        on_relay(rpi3=601),
        node_of(observation(derp_peer("rpi3")), replace(CUT_OFF, online=None)),
        (Verdict("rpi3", RESTART, 601),),
        (*RESTART_LINE, Restart("rpi3")),
        RESTART_PENDING,
    ),
    Row(
        "the key expires in a second",
        on_relay(rpi3=601),
        node_of(observation(derp_peer("rpi3")), EXPIRED),
        (Verdict("rpi3", WAITING, 600),),
        logs("WAITING: rpi3 on relay for 600s (threshold: 600s)"),
        now=Instant(T0 - 1),
    ),
]


def seen_before(seen: Instant, **fields: Any) -> State:
    """Return a state with a peer on relay for 700 s, last observed then."""
    return make_state({"rpi3": T0 - 700}, last_success=seen, last_run=seen, **fields)


def reading_of(unix: int, uptime: int, awake: int | None, boot: str = "b1") -> Instant:
    """Return a reading of all clocks."""
    return Instant(unix, Boot(boot, uptime, awake))


def starts_again(id_: str, before: State, now: Instant, why: str) -> Row:
    """Return a row of a run after a break."""
    return Row(
        id_,
        before,
        observation(derp_peer("rpi3")),
        DETECTED_VERDICT,
        (Warn(f"relay starts again for every peer: {why}"), *DETECTED_LINE),
        RELAY_BEGINS,
        now=now,
    )


def goes_on(id_: str, before: State, now: Instant, **changes: Any) -> Row:
    """Return a row of a run without a break, in which a restart is due."""
    return Row(
        id_,
        before,
        observation(derp_peer("rpi3")),
        (Verdict("rpi3", RESTART, 700),),
        (*logs("RESTART: rpi3 on relay for 700s, restarting tailscaled"), Restart("rpi3")),
        {**RESTART_PENDING, **changes},
        now=now,
    )


BREAKS = [
    starts_again(
        "no peer observed for 301 s",
        seen_before(Instant(T0 - 361), blind_since=T0 - 301),
        NOW,
        "no peer could be observed for 301s",
    ),
    goes_on(
        "no peer observed for 300 s", seen_before(Instant(T0 - 360), blind_since=T0 - 300), NOW
    ),
    goes_on("a timer of ten minutes", seen_before(Instant(T0 - 600)), NOW),
    starts_again(
        "reboot",
        seen_before(reading_of(T0 - 60, 900, 900)),
        reading_of(T0, 30, 30, "b2"),
        "the host was rebooted",
    ),
    starts_again(
        "reboot, clock ahead",
        seen_before(reading_of(T0 - 31_536_000, 900, 900)),
        reading_of(T0, 30, 30, "b2"),
        "the host was rebooted",
    ),
    starts_again(
        "suspended for 61 s",
        seen_before(reading_of(T0 - 120, 1000, 1000)),
        reading_of(T0, 1120, 1059),
        "the host was suspended for 61s",
    ),
    goes_on(
        "suspended for 60 s",
        seen_before(reading_of(T0 - 120, 1000, 1000)),
        reading_of(T0, 1120, 1060),
    ),
    goes_on(
        "a timer of ten minutes, awake",
        seen_before(reading_of(T0 - 600, 1000, 1000)),
        reading_of(T0, 1600, 1600),
    ),
    starts_again(
        "a long pause in a capture without CLOCK_MONOTONIC",
        seen_before(reading_of(T0 - 301, 1000, None)),
        reading_of(T0, 1301, None),
        "the host may have been suspended",
    ),
    goes_on(
        "a pause in a capture without CLOCK_MONOTONIC",
        seen_before(reading_of(T0 - 300, 1000, None)),
        reading_of(T0, 1300, None),
    ),
    goes_on("the boot clock is gone", seen_before(reading_of(T0 - 60, 1000, 1000)), NOW),
    goes_on("the boot clock is new", seen_before(Instant(T0 - 60)), reading_of(T0, 1000, 1000)),
]

TABLE = [*ONE_PEER, *SEVERAL_PEERS, *CLOCKS_AND_CRASHES, *HELD_BACK, *BREAKS]


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
    {"rpi3": Relay(T0 - 601)},
    (ATTEMPT,),
    restarts=2,
    restart_failures=1,
    last_success=NOW,
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
    failed_attempt = replace(ATTEMPT, stage=Stage.FAILED, result=AttemptResult.UNCONFIRMED)
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
    attempt = Attempt(Remedy.RESTART, "rpi3", T0, T0 + 900, peer_id="nrpi3CNTRL")
    assert [effect.attempt for effect in restarts(decided)] == [attempt]
    assert decided.state.attempts == (attempt,)
    asked = step(decided.state, Asking(attempt), now=NOW, policy=policy)
    assert asked.state == replace(
        decided.state, attempts=(replace(attempt, stage=Stage.ASKED),), has_answered=False
    )
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
        pytest.param((derp_peer("rpi3"),), AttemptResult.NO_EFFECT, id="on relay"),
        pytest.param((peer("rpi3", "offline"),), AttemptResult.UNCONFIRMED, id="offline"),
        pytest.param((), AttemptResult.UNCONFIRMED, id="gone"),
    ],
)
def test_the_result_of_a_restart_is_determined_at_judge_at(
    peers: tuple[dict[str, Any], ...], result: AttemptResult
) -> None:
    """A peer that is direct before that is enough."""
    done = replace(ATTEMPT, stage=Stage.DONE)
    state = State({"rpi3": Relay(T0 - 601)}, (done,), last_run=NOW)
    policy = ThresholdPolicy(max_relay_seconds=10**6)
    early = step(state, observation(*peers), now=Instant(T0 + 599), policy=policy).state
    assert early.attempts == (
        (replace(done, result=result),) if result is AttemptResult.HELPED else (done,)
    )
    in_time = step(state, observation(*peers), now=Instant(T0 + 600), policy=policy).state
    assert in_time.attempts == (replace(done, result=result),)
    unobserved = step(state, DOWN, now=Instant(T0 + 600), policy=policy).state
    assert unobserved.attempts == (done,)


def test_a_result_does_not_change_later() -> None:
    helped = replace(ATTEMPT, stage=Stage.DONE, result=AttemptResult.HELPED)
    state = State({"rpi3": Relay(T0 - 601)}, (helped,), last_run=NOW)
    later = step(
        state, observation(derp_peer("rpi3")), now=Instant(T0 + 700), policy=ThresholdPolicy(10**6)
    )
    assert later.state.attempts == (helped,)


def test_only_the_result_that_is_due_is_determined() -> None:
    """The earlier one stays as it was determined."""
    earlier = Attempt(Remedy.RESTART, "rpi3", T0 - 900, T0 - 300, Stage.DONE, AttemptResult.HELPED)
    state = State(
        {"rpi3": Relay(T0 - 601)}, (earlier, replace(ATTEMPT, stage=Stage.DONE)), last_run=NOW
    )
    policy = ThresholdPolicy(max_relay_seconds=10**6)
    later = step(state, observation(derp_peer("rpi3")), now=Instant(T0 + 600), policy=policy)
    assert later.state.attempts[0] == earlier
    assert later.state.attempts[1].result is AttemptResult.NO_EFFECT


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
    state, policy = State({"rpi3": Relay(0)}), ThresholdPolicy(0, 0)
    for at in range(1, 31):
        transition = step(state, observation(derp_peer("rpi3")), now=Instant(at), policy=policy)
        (effect,) = restarts(transition)
        performed = Performed(effect.attempt, Done())
        state = step(transition.state, performed, now=Instant(at), policy=policy).state
        assert pending(state) is None
    assert [attempt.at for attempt in state.attempts] == list(range(31 - ATTEMPT_LIMIT, 31))
    assert state.restarts == 30


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (DIRECT, None),
        (DETECTED, "DETECTED: rpi3 transitioned to relay"),
        (WAITING, "WAITING: rpi3 on relay for 300s (threshold: 601s)"),
        (
            HELD,
            "HELD: rpi3 on relay for 300s, not restarting: the control server cannot be reached",
        ),
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
            hold=Hold.NO_CONTROL,
            threshold_seconds=601,
        )
        == expected
    )


def test_the_default_threshold_and_cooldown_are_ten_minutes() -> None:
    assert ThresholdPolicy() == ThresholdPolicy(
        max_relay_seconds=600, cooldown_seconds=600, excluded=frozenset()
    )


def test_a_start_of_tailscaled_by_another_restarts_the_relay_timer() -> None:
    before = seen_before(Instant(T0 - 60), tailscaled_start=T0 - 9000)
    event = Observed(observation(derp_peer("rpi3")).status, T0 - 30)
    transition = step(before, event, now=NOW, policy=ThresholdPolicy())
    assert effects(transition) == (
        Warn("relay starts again for every peer: tailscaled was started, and not by the watchdog"),
        *DETECTED_LINE,
    )
    assert transition.is_after_break
    assert transition.state.tailscaled_start == T0 - 30


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param(T0 - 9000, T0 - 9000, id="the same"),
        pytest.param(None, T0 - 30, id="unknown before"),
        pytest.param(T0 - 9000, None, id="unknown now"),
    ],
)
def test_without_another_start_of_tailscaled_relay_counts_on(
    before: int | None, now: int | None
) -> None:
    state = seen_before(Instant(T0 - 60), tailscaled_start=before)
    event = Observed(observation(derp_peer("rpi3")).status, now)
    transition = step(state, event, now=NOW, policy=ThresholdPolicy())
    assert transition.verdicts == (Verdict("rpi3", RESTART, 700),)
    assert not transition.is_after_break


def test_the_start_that_the_watchdog_caused_is_no_break() -> None:
    """Whatever the time of the start is: the restart may take long."""
    status = observation(derp_peer("rpi3")).status
    before = seen_before(Instant(T0 - 60), tailscaled_start=T0 - 9000)
    decided = step(before, Observed(status, T0 - 9000), now=NOW, policy=ThresholdPolicy())
    (effect,) = restarts(decided)
    done = after_apply(decided.state, effect, Done())
    for later, start in ((T0 + 60, T0 + 90), (T0 + 120, T0 + 90)):
        run = step(done, Observed(status, start), now=Instant(later), policy=ThresholdPolicy())
        assert run.verdicts == (Verdict("rpi3", COOLDOWN, later - T0 + 700),)
        done = run.state


def after_apply(state: State, effect: Apply, outcome: Outcome) -> State:
    """Return the state after a restart was asked for, and had this outcome."""
    for event in (Asking(effect.attempt), Performed(effect.attempt, outcome)):
        state = step(state, event, now=NOW, policy=ThresholdPolicy()).state
    return state


def after_restart(outcome: Outcome) -> State:
    """Return the state after a restart at `T0` because of `rpi3`."""
    decided = step(
        on_relay(rpi3=601), observation(derp_peer("rpi3")), now=NOW, policy=ThresholdPolicy()
    )
    (effect,) = restarts(decided)
    return after_apply(decided.state, effect, outcome)


@pytest.mark.parametrize("outcome", [Done(), Failed("systemctl: no")], ids=["done", "failed"])
def test_a_tailscaled_that_a_restart_left_down_is_restarted_after_each_cooldown(
    outcome: Outcome,
) -> None:
    state = after_restart(outcome)
    for at in (T0 + 60, T0 + 599):
        waiting = step(state, DOWN, now=Instant(at), policy=ThresholdPolicy())
        assert restarts(waiting) == ()
        state = waiting.state
    for at in (T0 + 600, T0 + 1200):
        again = step(state, DOWN, now=Instant(at), policy=ThresholdPolicy())
        assert effects(again) == (
            Warn("asking tailscaled: connection refused; is it running?"),
            *logs("RESTART: tailscaled down since the restart 600s ago, restarting tailscaled"),
            Restart("rpi3"),
        )
        (effect,) = restarts(again)
        state = after_apply(again.state, effect, outcome)
    counts = (state.restarts, state.restart_failures)
    assert counts == ((3, 0) if outcome == Done() else (0, 3))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(observation(peer("rpi3")), id="with peers"),
        pytest.param(STOPPED, id="Stopped"),
    ],
)
def test_after_an_answer_a_tailscaled_that_is_down_is_left_alone(answer: Event) -> None:
    """Then the watchdog is not the one who stopped it."""
    answered = step(
        after_restart(Done()), answer, now=Instant(T0 + 60), policy=ThresholdPolicy()
    ).state
    later = step(answered, DOWN, now=Instant(T0 + 6000), policy=ThresholdPolicy())
    assert restarts(later) == ()


def test_a_unit_that_was_stopped_on_purpose_is_left_alone() -> None:
    state = after_restart(Declined("tailscaled.service is stopped"))
    assert (state.restarts, state.restart_failures) == (0, 0)
    (attempt,) = state.attempts
    assert (attempt.stage, attempt.result) == (Stage.DECLINED, AttemptResult.UNCONFIRMED)
    later = step(state, DOWN, now=Instant(T0 + 6000), policy=ThresholdPolicy())
    assert restarts(later) == ()


def test_an_unusable_status_does_not_show_that_tailscaled_is_down() -> None:
    event = Unobservable(Unusable("reading tailscaled's status: not JSON"))
    later = step(after_restart(Done()), event, now=Instant(T0 + 6000), policy=ThresholdPolicy())
    assert restarts(later) == ()


def test_without_a_restart_a_tailscaled_that_is_down_is_left_alone() -> None:
    assert restarts(step(State(), DOWN, now=NOW, policy=ThresholdPolicy())) == ()


def test_the_relay_of_a_peer_goes_on_when_another_takes_its_name() -> None:
    """The StableNodeID identifies it, whatever its name is now."""
    alone = step(State(), observation(derp_peer("rpi3", ID="nA")), now=NOW, policy=POLICY).state
    assert alone.relays == {"rpi3": Relay(T0, "nA")}
    with_twin = step(alone, observation(*TWINS), now=Instant(T0 + 60), policy=POLICY)
    assert with_twin.verdicts == (
        Verdict("rpi3#nA", WAITING, 60),
        Verdict("rpi3#nB", DETECTED),
    )
    alone_again = step(
        with_twin.state,
        observation(derp_peer("rpi3", ID="nB")),
        now=Instant(T0 + 120),
        policy=POLICY,
    )
    assert alone_again.verdicts == (Verdict("rpi3", WAITING, 60),)


def test_another_node_of_the_same_name_starts_its_own_relay() -> None:
    old = State({"rpi3": Relay(T0 - 700, "nA")})
    transition = step(old, observation(derp_peer("rpi3", ID="nB")), now=NOW, policy=POLICY)
    assert transition.verdicts == (Verdict("rpi3", DETECTED),)


def test_the_result_of_a_restart_goes_with_the_peer_whatever_its_name_is() -> None:
    attempt = Attempt(Remedy.RESTART, "rpi3", T0 - 600, T0, Stage.DONE, peer_id="nA")
    state = State({"rpi3": Relay(T0 - 900, "nA")}, (attempt,))
    policy = ThresholdPolicy(max_relay_seconds=10**6)
    after = step(state, observation(*TWINS), now=NOW, policy=policy).state
    assert after.attempts[-1].result is AttemptResult.NO_EFFECT


def test_an_excluded_name_that_no_peer_has_is_told_at_each_run() -> None:
    policy = ThresholdPolicy(excluded=frozenset({"RPI3.tail1.ts.net", "typo"}))
    for before in (State(), on_relay(rpi3=700)):
        transition = step(before, observation(derp_peer("rpi3")), now=NOW, policy=policy)
        warning = Warn("--exclude-peer typo: no peer has that name; see `tsfc peers`")
        assert effects(transition)[0] == warning
        assert transition.unmatched == ("typo",)
        assert restarts(transition) == ()


def test_that_all_peers_are_offline_is_told_once_and_again_after_one_was_online() -> None:
    runs = [
        (observation(peer("a"), peer("b", "offline")), ()),
        (observation(peer("a", "offline"), peer("b", "offline")), (2,)),
        (observation(peer("a", "offline")), ()),
        (observation(peer("a")), ()),
        (observation(peer("a", "offline")), (1,)),
        (observation(), ()),
        (observation(peer("a", "offline", Expired=True)), ()),
        (observation(peer("a", "offline")), (1,)),
    ]
    state = State()
    for minute, (event, numbers) in enumerate(runs):
        transition = step(state, event, now=Instant(T0 + 60 * minute), policy=POLICY)
        warnings = [effect.line for effect in transition.effects if isinstance(effect, Warn)]
        assert [int(line.split("(")[1].split(")")[0]) for line in warnings] == list(numbers)
        state = transition.state
