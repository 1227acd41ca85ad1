"""A random tailnet with a watchdog, and the promises that each run must keep.

`Ledger` is the oracle. It records observations and restarts by itself and knows each
clock step exactly. It reads neither the state nor the verdicts.
"""
# ruff: noqa: D102 - the name of a rule says what it does

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from msgspec.structs import replace
from returns.result import Success

from support.statuses import PATHS, decoded, peer
from tsfc.core.clock import STEP_SECONDS, Boot, Instant
from tsfc.core.watchdog.effects import Apply
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.remedy import Done, Failed, Outcome, Stage
from tsfc.core.watchdog.state import State, decode, encode, last_restart, pending
from tsfc.core.watchdog.step import Transition, step

from .worlds import DOWN, STOPPED, T0, Step, lines, restarts, rows

NODES = {"cam#nA": "cam", "cam#nB": "cam", "nas": "nas", "pi": "pi", "rpi3": "rpi3"}
"""Host name of each node, by the name that the watchdog gives it.

Two nodes share a host name. Both are always in the netmap, so their names never change.
"""

UNWATCHED: dict[str, dict[str, Any]] = {
    "offline": {"Online": False},
    "expired": {"Expired": True},
    "sharee": {"ShareeNode": True},
    "mullvad": {"DNSName": "se-got-wg-001.mullvad.ts.net."},
    "browser": {"OS": "js"},
    "no path": {"InMagicSock": False},
}
"Fields of a node that is in the status but not watched, by the reason."

DURATIONS = [0, 1, 5, 59, 60, 61, 299, 300, 301, 599, 600, 601]
"Seconds: the limits of the policies, one less and one more."

CLOCK_STEPS = [1, 5, 6, 601, 86_400]

NAMES = st.sampled_from(sorted(NODES))
RELAYS = st.sampled_from([path for path in PATHS if path not in {"direct", "offline"}])
EXCLUDED = st.frozensets(st.sampled_from([*NODES, "cam"]), max_size=2)
OUTCOMES = st.sampled_from([Done(), Failed("systemctl: no"), Stage.DECIDED, Stage.ASKED])
"The outcome of a restart, or the last stage that a killed run stored."


def node(name: str, path: str, reason: str | None) -> dict[str, Any]:
    """Peer entry of a node in the status."""
    return peer(NODES[name], path, ID=name.partition("#")[2] or f"n{name}") | (
        UNWATCHED[reason] if reason else {}
    )


class Break:
    """Reasons why relay was not watched since the last run that observed peers."""

    def __init__(self) -> None:
        self.blind_since: int | None = None
        self.is_rebooted = False
        self.slept = 0
        self.is_other_start = False

    def applies(self, now: int, *, has_boot_clocks: bool) -> bool:
        """Whether a run that observes peers now starts every relay again."""
        is_blind = self.blind_since is not None and now - self.blind_since > 300
        is_interrupted = has_boot_clocks and (self.is_rebooted or self.slept > 60)
        return is_blind or is_interrupted or self.is_other_start


class Ledger:
    """Expected state: when each relay began, and the last restart."""

    def __init__(self) -> None:
        self.relay_since: dict[str, int] = {}
        self.last_restart: int | None = None
        self.previous_restart: int | None = None
        self.interruption = Break()
        self.had_boot_clock: bool | None = None
        "At the last run that observed peers; None before the first."
        self.is_start_known = False
        "Whether that run knew the start of tailscaled, and no restart followed."
        self.has_answered = True
        "Whether tailscaled has answered since the last restart."

    def settle(self, clock_step: int, now: int) -> None:
        """Move all times by a clock step, and none past `now`."""
        self.relay_since = {
            name: min(since + clock_step, now) for name, since in self.relay_since.items()
        }
        if self.last_restart is not None:
            self.last_restart = min(self.last_restart + clock_step, now)
        blind = self.interruption.blind_since
        if blind is not None:
            self.interruption.blind_since = max(0, min(blind + clock_step, now))
        self.previous_restart = self.last_restart

    def recoveries(self, direct: frozenset[str], now: int, cooldown: int) -> list[str]:
        """Peers that are direct again, but not because of a restart."""
        cause = (
            self.last_restart
            if self.last_restart is not None and now - self.last_restart < cooldown
            else -1
        )
        return [
            name for name, since in self.relay_since.items() if name in direct and since > cause
        ]

    def watch(self, now: int, *, has_boot_clock: bool, is_start_known: bool) -> None:
        """Record a run that observes peers: forget all relays after a break."""
        has_boot_clocks = has_boot_clock and bool(self.had_boot_clock)
        self.interruption.is_other_start &= self.is_start_known and is_start_known
        is_first = self.had_boot_clock is None
        if not is_first and self.interruption.applies(now, has_boot_clocks=has_boot_clocks):
            self.relay_since = {}
        self.interruption = Break()
        self.had_boot_clock, self.is_start_known = has_boot_clock, is_start_known
        self.has_answered = True

    def observe(self, on_relay: frozenset[str], now: int) -> None:
        """Record the peers on relay; a peer that already was keeps its time."""
        self.relay_since = {name: self.relay_since.get(name, now) for name in on_relay}


class Tailnet(RuleBasedStateMachine):
    """Random tailnet: the rules are the events that can happen to it."""

    decide: Step = staticmethod(step)
    covered_rows: set[str] | None = None
    "Collects the table's rows that apply to the runs; None if not needed."

    def __init__(self) -> None:
        super().__init__()
        self.paths: dict[str, str] = dict.fromkeys(NODES, "direct")
        self.unwatched: dict[str, str | None] = dict.fromkeys(NODES)
        self.absent: set[str] = set()
        self.policy = ThresholdPolicy()
        self.unix, self.uptime, self.awake, self.boot = T0, 1000, 1000, 1
        self.start, self.is_start_known = T0 - 500, True
        self.is_cut_off = False
        self.has_boot_clock = True
        self.clock_change = 0
        # True if the next run can compare its boot clock with that of the last run.
        self.is_comparable = False
        self.state = State()
        self.ledger = Ledger()

    @initialize(has_boot_clock=st.booleans(), names=st.sets(NAMES), excluded=EXCLUDED)
    def starts(self, *, has_boot_clock: bool, names: set[str], excluded: frozenset[str]) -> None:
        self.has_boot_clock = has_boot_clock
        self.operator_excludes(excluded)
        self.paths |= dict.fromkeys(names, "derp")

    @rule(name=NAMES, path=RELAYS)
    def falls_back_to_relay(self, name: str, path: str) -> None:
        self.paths[name] = path

    @rule(name=NAMES)
    def finds_a_direct_path(self, name: str) -> None:
        self.paths[name] = "direct"

    @rule(name=NAMES, reason=st.sampled_from([*UNWATCHED, None]))
    def becomes_watched_or_unwatched(self, name: str, reason: str | None) -> None:
        if reason != "mullvad" or "#" not in name:
            self.unwatched[name] = reason

    @rule(name=st.sampled_from([name for name in NODES if "#" not in name]))
    def leaves_or_joins(self, name: str) -> None:
        self.absent ^= {name}

    @rule(
        seconds=st.sampled_from(DURATIONS),
        threshold=st.sampled_from([0, 60, 600]),
        cooldown=st.sampled_from([0, 60, 600]),
    )
    def operator_changes_the_limits(self, seconds: int, threshold: int, cooldown: int) -> None:
        self.advance(seconds)
        self.policy = replace(self.policy, max_relay_seconds=threshold, cooldown_seconds=cooldown)

    @rule(excluded=EXCLUDED)
    def operator_excludes(self, excluded: frozenset[str]) -> None:
        self.policy = replace(self.policy, excluded=excluded)

    @rule(seconds=st.sampled_from(CLOCK_STEPS), sign=st.sampled_from([-1, 1]))
    def clock_is_set(self, seconds: int, sign: int) -> None:
        self.unix += sign * seconds
        self.clock_change += sign * seconds

    @rule()
    def node_reboots(self) -> None:
        self.boot += 1
        self.uptime = self.awake = 0
        self.is_comparable = False
        self.ledger.interruption.is_rebooted = True

    @rule(seconds=st.sampled_from([1, 30, 60, 61, 28_800]))
    def node_is_suspended(self, seconds: int) -> None:
        self.unix += seconds
        self.uptime += seconds
        self.ledger.interruption.slept += seconds

    @rule()
    def operator_restarts_tailscaled(self) -> None:
        self.start += 1
        self.ledger.interruption.is_other_start = True

    @rule()
    def start_of_tailscaled_is_unknown_or_known(self) -> None:
        self.is_start_known = not self.is_start_known

    @rule()
    def control_server_goes_or_returns(self) -> None:
        self.is_cut_off = not self.is_cut_off

    @rule()
    def boot_clock_disappears_or_returns(self) -> None:
        self.has_boot_clock = not self.has_boot_clock

    @rule(seconds=st.sampled_from(DURATIONS), outcome=OUTCOMES)
    def timer_fires(self, seconds: int, outcome: Outcome | Stage) -> None:
        self.advance(seconds)
        present = [
            node(name, path, self.unwatched[name])
            for name, path in self.paths.items()
            if name not in self.absent
        ]
        own = {"Self": {"Online": not self.is_cut_off}}
        start = self.start if self.is_start_known else None
        self.run_watchdog(Observed(decoded(*present, **own), start), outcome)

    @rule(name=NAMES, seconds=st.sampled_from(DURATIONS), outcome=OUTCOMES)
    def is_stuck_on_relay(self, name: str, seconds: int, outcome: Outcome | Stage) -> None:
        self.paths[name] = "derp"
        self.timer_fires(0, outcome)
        self.timer_fires(self.policy.max_relay_seconds, outcome)
        self.timer_fires(seconds, outcome)

    @rule(seconds=st.sampled_from(DURATIONS))
    def all_find_a_direct_path(self, seconds: int) -> None:
        self.paths = dict.fromkeys(NODES, "direct")
        self.timer_fires(seconds, Stage.ASKED)

    @rule(seconds=st.sampled_from(DURATIONS), event=st.sampled_from([DOWN, STOPPED]))
    def timer_fires_without_an_observation(self, seconds: int, event: Event) -> None:
        self.advance(seconds)
        self.run_watchdog(event, Stage.ASKED)

    def advance(self, seconds: int) -> None:
        """Advance all clocks."""
        self.unix += seconds
        self.uptime += seconds
        self.awake += seconds

    def run_watchdog(self, event: Event, outcome: Outcome | Stage) -> None:
        """Run the watchdog once as the job does, and check the promises.

        A run that was killed leaves its restart pending: `outcome` is then a stage.
        """
        boot = Boot(f"boot {self.boot}", self.uptime, self.awake)
        now = Instant(self.unix, boot if self.has_boot_clock else None)
        before = self.state

        # The job stores the state between runs, so it must survive that.
        assert decode(encode(before)) == Success(before), (
            "decoding an encoded state returns it unchanged"
        )

        # A run first settles what the last one left: a clock step, a pending restart.
        attempt = pending(before)
        was_asked = attempt is not None and attempt.stage is Stage.ASKED
        self.ledger.settle(
            self.clock_change
            if self.is_comparable and self.has_boot_clock and abs(self.clock_change) > STEP_SECONDS
            else 0,
            now.unix,
        )
        self.clock_change, self.is_comparable = 0, self.has_boot_clock

        transition = self.decide(before, event, now=now, policy=self.policy)
        if self.covered_rows is not None:
            self.covered_rows |= rows(before, transition)
        check_counters(before, transition.state, done=int(was_asked), failed=0)
        if isinstance(event, Observed) and event != STOPPED:
            self.check_observed(before, transition, now.unix)
        else:
            self.check_unobservable(before, event, transition, now.unix)

        # Then it stores the state and restarts tailscaled.
        self.state = transition.state
        for effect in restarts(transition):
            self.perform(effect, outcome)

    def perform(self, effect: Apply, outcome: Outcome | Stage) -> None:
        """Perform a restart, and check the promises about its events."""
        decided = self.state
        if outcome is Stage.DECIDED:  # the next run discards the attempt
            self.ledger.last_restart = self.ledger.previous_restart
            return
        asked = self.event(decided, Asking(effect.attempt))
        self.ledger.has_answered = False
        self.ledger.is_start_known = False
        self.ledger.interruption.is_other_start = False
        self.start += 1
        check_counters(decided, asked, done=0, failed=0)
        check_only_attempt_changed(decided, asked)
        self.state = asked
        if isinstance(outcome, Stage):
            return
        performed = self.event(asked, Performed(effect.attempt, outcome))
        check_counters(
            asked,
            performed,
            done=int(isinstance(outcome, Done)),
            failed=int(isinstance(outcome, Failed)),
        )
        check_only_attempt_changed(asked, performed)
        self.state = performed

    def event(self, state: State, event: Asking | Performed) -> State:
        """Return the state after an event of the same run."""
        return self.decide(state, event, now=Instant(self.unix), policy=self.policy).state

    def check_observed(self, before: State, transition: Transition, now: int) -> None:
        """Check the promises about a run that observed peers."""
        after, log = transition.state, lines(transition)

        # The ledger's account of the same run.
        watched = {
            name: path
            for name, path in self.paths.items()
            if name not in self.absent and self.unwatched[name] is None
        }
        self.ledger.watch(
            now,
            has_boot_clock=self.has_boot_clock,
            is_start_known=self.is_start_known,
        )
        recoveries = self.ledger.recoveries(
            frozenset(name for name, path in watched.items() if path == "direct"),
            now,
            self.policy.cooldown_seconds,
        )
        self.ledger.observe(
            frozenset(name for name, path in watched.items() if path != "direct"), now
        )

        # Restarts.
        effects = restarts(transition)
        assert len(effects) <= 1, "a run restarts at most once"
        for effect in effects:
            self.check_restart(effect, transition, watched, now)

        # The state.
        assert relay_since(after) == self.ledger.relay_since, (
            "relays have each peer on relay, with the time when it changed to relay"
        )
        assert after.last_success is not None, "a run that observes peers sets last_success"
        assert after.last_success.unix == now, "a run that observes peers sets last_success"
        assert (pending(after) is not None) == bool(effects), (
            "a restart is pending from the run that decides it"
        )
        assert after.detections == before.detections + sum(
            line.startswith("DETECTED") for line in log
        ), "each line DETECTED counts one detection"
        assert after.recoveries == before.recoveries + len(recoveries), (
            "each peer that recovers without a restart counts one recovery"
        )

        # The log.
        subjects = [line.split(": ")[1].split(" ")[0] for line in log]
        assert subjects == sorted(set(subjects)), (
            "each peer has at most one line, and the lines are sorted by name"
        )
        assert set(subjects) <= watched.keys(), "only watched peers have a line"

    def check_unobservable(
        self, before: State, event: Event, transition: Transition, now: int
    ) -> None:
        """Check the promises about a run that could not observe peers."""
        after, ledger = transition.state, self.ledger
        if ledger.interruption.blind_since is None:
            ledger.interruption.blind_since = now
        if event == STOPPED:
            ledger.has_answered = True
        assert relay_since(after) == ledger.relay_since, (
            "without an observation, the relays stay as they are"
        )
        assert transition.verdicts is None, "without an observation, no peer has a verdict"
        assert (after.last_success is None) == (before.last_success is None), (
            "without an observation, the run is not a success"
        )
        is_over = (
            ledger.last_restart is not None
            and now - ledger.last_restart >= self.policy.cooldown_seconds
        )
        is_due = not ledger.has_answered and is_over and event == DOWN
        assert len(restarts(transition)) == int(is_due), (
            "without an observation, only a restart that left tailscaled down is repeated"
        )
        assert len(lines(transition)) == int(is_due), "without an observation, no peer has a line"
        if is_due:
            ledger.last_restart = now
        assert last_restart(after) == ledger.last_restart, (
            "without an observation, the cooldown stays as it is"
        )

    def check_restart(
        self, effect: Apply, transition: Transition, watched: Mapping[str, str], now: int
    ) -> None:
        """Check the promises about a restart, and record it."""
        ledger, policy = self.ledger, self.policy
        cause = effect.attempt.peer
        assert (
            ledger.last_restart is None or now - ledger.last_restart >= policy.cooldown_seconds
        ), "no restart within the cooldown"
        assert cause in watched, "the cause of a restart is watched and online"
        assert watched[cause] != "direct", "the cause of a restart is on relay in the same run"
        assert now - ledger.relay_since[cause] > policy.max_relay_seconds, (
            "the cause of a restart is on relay for longer than the threshold"
        )
        durations = {verdict.peer: verdict.relay_seconds for verdict in transition.verdicts or ()}
        assert durations[cause] == now - ledger.relay_since[cause], (
            "the cause of a restart is on relay for as long as its verdict says"
        )
        excluded = {name for name in NODES if {name, NODES[name]} & policy.excluded}
        assert cause not in excluded, "the cause of a restart is not excluded"
        _, first = min(
            (since, name) for name, since in ledger.relay_since.items() if name not in excluded
        )
        assert cause == first, (
            "the cause of a restart is the peer longest on relay, the first by name in a tie"
        )
        assert not self.is_cut_off, "no restart while the control server is away"
        ledger.last_restart = now


def check_counters(before: State, after: State, *, done: int, failed: int) -> None:
    """Check that no counter decreases, and that restarts are counted by outcome."""
    assert after.detections >= before.detections, "counters never decrease"
    assert after.recoveries >= before.recoveries, "counters never decrease"
    assert after.restarts == before.restarts + done, (
        "each restart that was done, or may have been done, is counted once"
    )
    assert after.restart_failures == before.restart_failures + failed, (
        "each failed restart is counted once"
    )


def check_only_attempt_changed(before: State, after: State) -> None:
    """Check that an event of the newest attempt changes only that attempt."""
    assert without_attempts(after) == without_attempts(before), (
        "an event of a restart changes only its attempt and its counters"
    )
    assert after.attempts[:-1] == before.attempts[:-1], (
        "an event of a restart changes only its attempt and its counters"
    )
    assert last_restart(after) == last_restart(before), (
        "an event of a restart changes only its attempt and its counters"
    )


def without_attempts(state: State) -> State:
    """The state without what a restart changes."""
    return replace(
        state,
        restarts=0,
        restart_failures=0,
        attempts=(),
        has_answered=True,
        tailscaled_start=None,
    )


def relay_since(state: State) -> dict[str, int]:
    """When each relay began."""
    return {name: relay.since for name, relay in state.relays.items()}
