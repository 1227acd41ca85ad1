"""A random tailnet with a watchdog, and the promises that each run must keep.

`Ledger` is the oracle. It records observations and restarts by itself and knows each
clock step exactly. It reads neither the state nor the verdicts.
"""
# ruff: noqa: D102 - the name of a rule says what it does

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from msgspec.structs import replace

from support.statuses import PATHS, decoded
from tsfc.core.watchdog.effects import Apply
from tsfc.core.watchdog.events import Event, Observed, Performed
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.remedy import Done, Failed, Outcome, Stage
from tsfc.core.watchdog.state import State, last_restart, pending
from tsfc.core.watchdog.step import Transition

from .random_node import EXCLUDED, NAMES, NODES, UNWATCHED, RandomNode, Watch, moved
from .worlds import DOWN, STOPPED, lines, restarts, rows

DURATIONS = [0, 1, 5, 59, 60, 61, 299, 300, 301, 599, 600, 601]
"Seconds: the limits of the policies, one less and one more."

RELAYS = st.sampled_from([path for path in PATHS if path not in {"direct", "offline"}])
OUTCOMES = st.sampled_from([Done(), Failed("systemctl: no"), Stage.DECIDED, Stage.ASKED])
"The outcome of a restart, or the last stage that a killed run stored."


@dataclass
class Ledger(Watch):
    """Expected state: when each relay began, and the last restart."""

    last_restart: int | None = None
    previous_restart: int | None = None

    def settle(self, clock_step: int, now: int) -> None:
        super().settle(clock_step, now)
        if self.last_restart is not None:
            self.last_restart = moved(self.last_restart, clock_step, now)
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

    def observe(self, on_relay: frozenset[str], now: int) -> None:
        """Record the peers on relay; a peer that already was keeps its time."""
        self.relay_since = {name: self.relay_since.get(name, now) for name in on_relay}


class Tailnet(RandomNode[ThresholdPolicy, Ledger]):
    """Random tailnet: the rules are the events that can happen to it."""

    covered_rows: set[str] | None = None
    "Collects the table's rows that apply to the runs; None if not needed."

    def __init__(self) -> None:
        super().__init__(ThresholdPolicy(), Ledger())
        self.is_cut_off = False

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
            self.odd[name] = reason

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

    @rule()
    def control_server_goes_or_returns(self) -> None:
        self.is_cut_off = not self.is_cut_off

    @rule(seconds=st.sampled_from(DURATIONS), outcome=OUTCOMES)
    def timer_fires(self, seconds: int, outcome: Outcome | Stage) -> None:
        self.advance(seconds)
        own = {"Self": {"Online": not self.is_cut_off}}
        start = self.start if self.is_start_known else None
        self.run_watchdog(Observed(decoded(*self.present(UNWATCHED), **own), start), outcome)

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

    def check(self, before: State, event: Event, transition: Transition, now: int) -> None:
        if self.covered_rows is not None:
            self.covered_rows |= rows(before, transition)
        attempt = pending(before)  # a killed run left it, and this one counts it
        was_asked = attempt is not None and attempt.stage is Stage.ASKED
        check_counters(before, transition.state, done=int(was_asked), failed=0)
        if isinstance(event, Observed) and event != STOPPED:
            self.check_observed(before, transition, now)
        else:
            self.check_unobservable(before, event, transition, now)

    def perform(self, effect: Apply, outcome: Outcome | Stage) -> None:
        """Perform a restart, and check the promises about its events."""
        decided = self.state
        if outcome is Stage.DECIDED:  # the next run discards the attempt
            self.ledger.last_restart = self.ledger.previous_restart
            return
        self.ask(effect)
        self.tailscaled_starts()
        asked = self.state
        check_counters(decided, asked, done=0, failed=0)
        check_only_attempt_changed(decided, asked)
        if isinstance(outcome, Stage):
            return
        performed = self.after(Performed(effect.attempt, outcome))
        check_counters(
            asked,
            performed,
            done=int(isinstance(outcome, Done)),
            failed=int(isinstance(outcome, Failed)),
        )
        check_only_attempt_changed(asked, performed)
        self.state = performed

    def check_observed(self, before: State, transition: Transition, now: int) -> None:
        """Check the promises about a run that observed peers."""
        after, log = transition.state, lines(transition)

        # The ledger's account of the same run.
        watched = {
            name: path
            for name, path in self.paths.items()
            if name not in self.absent and self.odd[name] is None
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
