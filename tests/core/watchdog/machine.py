"""A tailnet, a clock and a watchdog that live together, and what must hold after each of its runs.

`Ledger` keeps its own account of what was seen and done: it knows when the clock was set, since it is told, and looks
neither at the state nor at the verdicts to know what is due.
"""
# ruff: noqa: D102 - a rule's name is the sentence

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from msgspec.structs import replace
from returns.result import Success

from support.statuses import PATHS, peer
from tsfc.core.clock import STEP_SECONDS, Boot, Instant
from tsfc.core.watchdog.effects import Apply
from tsfc.core.watchdog.events import Asking, Event, Observed, Performed
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.remedy import Done, Failed, Outcome, Stage
from tsfc.core.watchdog.state import State, decode, encode, last_restart, pending
from tsfc.core.watchdog.step import Transition, step

from .worlds import DOWN, STOPPED, T0, Step, lines, restarts, rows, seen

NODES = {"cam#nA": "cam", "cam#nB": "cam", "nas": "nas", "pi": "pi", "rpi3": "rpi3"}
"What each node calls itself, by its name here. Two share a name, and are in the map at all times, so the names stay."

AWAY: dict[str, dict[str, Any]] = {
    "offline": {"Online": False},
    "expired": {"Expired": True},
    "sharee": {"ShareeNode": True},
    "mullvad": {"DNSName": "se-got-wg-001.mullvad.ts.net."},
}
"Ways not to be watched. A node may also be gone altogether, and that is None."

DURATIONS = [0, 1, 5, 59, 60, 61, 299, 300, 301, 599, 600, 601]
"Thresholds, and a second to either side."

JUMPS = [1, 5, 6, 601, 86_400]

NAMES = st.sampled_from(sorted(NODES))
RELAYS = st.sampled_from([path for path in PATHS if path not in {"direct", "offline"}])
EXCLUDED = st.frozensets(st.sampled_from([*NODES, "cam"]), max_size=2)
OUTCOMES = st.sampled_from([Done(), Failed("systemctl: no"), Stage.DECIDED, Stage.ASKED])
"A stage is where the run was killed, so that no outcome ever arrives."


def node(name: str, path: str, away: str | None) -> dict[str, Any]:
    """Returns the node as the status has it."""
    return peer(NODES[name], path, ID=name.partition("#")[2] or f"n{name}") | (
        AWAY[away] if away else {}
    )


class Ledger:
    """What was seen and done so far, in the time that the watchdog can know of."""

    def __init__(self) -> None:
        self.relay_since: dict[str, int] = {}
        self.restarted: int | None = None
        self.restarted_before: int | None = None

    def settle(self, clock_step: int, now: int) -> None:
        """Moves all instants with the clock, and none into the future."""
        self.relay_since = {
            name: min(since + clock_step, now) for name, since in self.relay_since.items()
        }
        if self.restarted is not None:
            self.restarted = min(self.restarted + clock_step, now)
        self.restarted_before = self.restarted

    def recovered(self, direct: frozenset[str], now: int, cooldown: int) -> list[str]:
        """Returns who was on relay and is direct, and not because of a restart."""
        cure = (
            self.restarted if self.restarted is not None and now - self.restarted < cooldown else -1
        )
        return [name for name, since in self.relay_since.items() if name in direct and since > cure]

    def see(self, on_relay: frozenset[str], now: int) -> None:
        """Takes down who is on relay, and since when without a gap."""
        self.relay_since = {name: self.relay_since.get(name, now) for name in on_relay}


class Tailnet(RuleBasedStateMachine):
    """The rules by which the world goes on."""

    decide: Step = staticmethod(step)
    reached: set[str] | None = None
    "Where the rows of the table are collected that runs took; None where nobody asks."

    def __init__(self) -> None:
        super().__init__()
        self.paths: dict[str, str] = dict.fromkeys(NODES, "direct")
        self.away: dict[str, str | None] = dict.fromkeys(NODES)
        self.gone: set[str] = set()
        self.policy = ThresholdPolicy()
        self.unix, self.uptime, self.boot = T0, 1000, 1
        self.has_boot_clock = True
        self.was_set = 0
        self.compares = False
        "Whether the boot clock tells, by the next run, how much the wall clock was set since the last one."
        self.state = State()
        self.ledger = Ledger()

    @initialize(has_boot_clock=st.booleans(), names=st.sets(NAMES), excluded=EXCLUDED)
    def begins(self, *, has_boot_clock: bool, names: set[str], excluded: frozenset[str]) -> None:
        self.has_boot_clock = has_boot_clock
        self.operator_excludes(excluded)
        self.paths |= dict.fromkeys(names, "derp")

    @rule(name=NAMES, path=RELAYS)
    def falls_back_to_relay(self, name: str, path: str) -> None:
        self.paths[name] = path

    @rule(name=NAMES)
    def finds_a_direct_path(self, name: str) -> None:
        self.paths[name] = "direct"

    @rule(name=NAMES, away=st.sampled_from([*AWAY, None]))
    def is_not_watched_or_is_again(self, name: str, away: str | None) -> None:
        if away != "mullvad" or "#" not in name:
            self.away[name] = away

    @rule(name=st.sampled_from([name for name in NODES if "#" not in name]))
    def leaves_or_joins(self, name: str) -> None:
        self.gone ^= {name}

    @rule(
        seconds=st.sampled_from(DURATIONS),
        threshold=st.sampled_from([0, 60, 600]),
        cooldown=st.sampled_from([0, 60, 600]),
    )
    def operator_changes_their_mind(self, seconds: int, threshold: int, cooldown: int) -> None:
        self.passes(seconds)
        self.policy = replace(self.policy, max_relay_seconds=threshold, cooldown_seconds=cooldown)

    @rule(excluded=EXCLUDED)
    def operator_excludes(self, excluded: frozenset[str]) -> None:
        self.policy = replace(self.policy, excluded=excluded)

    @rule(seconds=st.sampled_from(JUMPS), sign=st.sampled_from([-1, 1]))
    def clock_is_set(self, seconds: int, sign: int) -> None:
        self.unix += sign * seconds
        self.was_set += sign * seconds

    @rule()
    def node_reboots(self) -> None:
        self.boot += 1
        self.uptime = 0
        self.compares = False

    @rule()
    def boot_clock_cannot_be_read_or_can_again(self) -> None:
        self.has_boot_clock = not self.has_boot_clock

    @rule(seconds=st.sampled_from(DURATIONS), outcome=OUTCOMES)
    def timer_fires(self, seconds: int, outcome: Outcome | Stage) -> None:
        self.passes(seconds)
        present = [
            node(name, path, self.away[name])
            for name, path in self.paths.items()
            if name not in self.gone
        ]
        self.runs(seen(*present), outcome)

    @rule(name=NAMES, seconds=st.sampled_from(DURATIONS), outcome=OUTCOMES)
    def is_stuck_on_relay(self, name: str, seconds: int, outcome: Outcome | Stage) -> None:
        self.paths[name] = "derp"
        self.timer_fires(0, outcome)
        self.timer_fires(self.policy.max_relay_seconds, outcome)
        self.timer_fires(seconds, outcome)

    @rule(seconds=st.sampled_from(DURATIONS))
    def everybody_finds_a_direct_path(self, seconds: int) -> None:
        self.paths = dict.fromkeys(NODES, "direct")
        self.timer_fires(seconds, Stage.ASKED)

    @rule(seconds=st.sampled_from(DURATIONS), event=st.sampled_from([DOWN, STOPPED]))
    def timer_fires_and_nothing_can_be_seen(self, seconds: int, event: Event) -> None:
        self.passes(seconds)
        self.runs(event, Stage.ASKED)

    def passes(self, seconds: int) -> None:
        """Lets time go by."""
        self.unix += seconds
        self.uptime += seconds

    def runs(self, event: Event, outcome: Outcome | Stage) -> None:
        """Does one run as the job does it: from the files, through `step`, into the files, and checks what must hold."""
        now = Instant(
            self.unix, Boot(f"boot {self.boot}", self.uptime) if self.has_boot_clock else None
        )
        before = self.state
        assert decode(encode(before)) == Success(before), (
            "the state comes back from its files as it was"
        )
        unsettled = pending(before)
        was_asked = unsettled is not None and unsettled.stage is Stage.ASKED
        self.ledger.settle(
            self.was_set
            if self.compares and self.has_boot_clock and abs(self.was_set) > STEP_SECONDS
            else 0,
            now.unix,
        )
        self.was_set, self.compares = 0, self.has_boot_clock

        transition = self.decide(before, event, now=now, policy=self.policy)
        if self.reached is not None:
            self.reached |= rows(before, transition)
        check_counted(before, transition.state, done=int(was_asked), failed=0)
        if isinstance(event, Observed) and event != STOPPED:
            self.check_observed(before, transition, now.unix)
        else:
            check_nothing_seen(before, transition, self.ledger)
        self.state = transition.state
        for effect in restarts(transition):
            self.performs(effect, outcome)

    def performs(self, effect: Apply, outcome: Outcome | Stage) -> None:
        """Perform a restart, and check what must hold."""
        decided = self.state
        if outcome is Stage.DECIDED:  # the next run withdraws it
            self.ledger.restarted = self.ledger.restarted_before
            return
        asked = self.event(decided, Asking(effect.attempt))
        check_counted(decided, asked, done=0, failed=0)
        check_attempt_changed(decided, asked)
        self.state = asked
        if isinstance(outcome, Stage):
            return
        performed = self.event(asked, Performed(effect.attempt, outcome))
        check_counted(
            asked,
            performed,
            done=int(isinstance(outcome, Done)),
            failed=int(isinstance(outcome, Failed)),
        )
        check_attempt_changed(asked, performed)
        self.state = performed

    def event(self, state: State, event: Asking | Performed) -> State:
        """The state after an event of the same run."""
        return self.decide(state, event, now=Instant(self.unix), policy=self.policy).state

    def check_observed(self, before: State, transition: Transition, now: int) -> None:
        """Checks what must hold of a run that saw the peers."""
        after, said = transition.state, lines(transition)
        watched = {
            name: path
            for name, path in self.paths.items()
            if name not in self.gone and self.away[name] is None
        }
        recovered = self.ledger.recovered(
            frozenset(name for name, path in watched.items() if path == "direct"),
            now,
            self.policy.cooldown_seconds,
        )
        self.ledger.see(frozenset(name for name, path in watched.items() if path != "direct"), now)
        asked = restarts(transition)
        assert len(asked) <= 1, "one restart at most"
        for effect in asked:
            self.check_restart(effect, transition, watched, now)
        assert after.relay_since == self.ledger.relay_since, (
            "remembered is who is on relay, and since when without a gap"
        )
        assert after.last_success == now, "a run that saw the peers is a success"
        assert (pending(after) is not None) == bool(asked), (
            "a restart is pending from when it is asked for"
        )
        assert after.detections == before.detections + sum(
            text.startswith("DETECTED") for text in said
        ), "a detection is counted for each DETECTED"
        assert after.recoveries == before.recoveries + len(recovered), (
            "a recovery is counted for each peer that is back by itself"
        )
        subjects = [text.split(": ")[1].split(" ")[0] for text in said]
        assert subjects == sorted(set(subjects)), (
            "one line at most for each peer, in the order of the names"
        )
        assert set(subjects) <= watched.keys(), "nothing is said of who is not watched"

    def check_restart(
        self, effect: Apply, transition: Transition, watched: Mapping[str, str], now: int
    ) -> None:
        """Checks that this restart, now, is right; and takes it down."""
        ledger, policy = self.ledger, self.policy
        cause = effect.attempt.peer
        assert ledger.restarted is None or now - ledger.restarted >= policy.cooldown_seconds, (
            "no restart within the cooldown"
        )
        assert cause in watched, "the cause of a restart is watched and online"
        assert watched[cause] != "direct", "the cause of a restart is on relay at that very instant"
        assert now - ledger.relay_since[cause] > policy.max_relay_seconds, (
            "the cause of a restart is on relay for longer than the threshold"
        )
        told = {verdict.peer: verdict.relay_seconds for verdict in transition.verdicts or ()}
        assert told[cause] == now - ledger.relay_since[cause], (
            "the cause of a restart is on relay for as long as is said"
        )
        covered = {name for name in NODES if {name, NODES[name]} & policy.excluded}
        assert cause not in covered, "the cause of a restart is not excluded"
        longest = min(
            (since, name) for name, since in ledger.relay_since.items() if name not in covered
        )
        assert cause == longest[1], (
            "the cause of a restart is the longest on relay, and of equals the first by name"
        )
        ledger.restarted = now


def check_counted(before: State, after: State, *, done: int, failed: int) -> None:
    """Checks that no counter goes down, and that those of restarts go up by these outcomes."""
    assert after.detections >= before.detections, "counters never go down"
    assert after.recoveries >= before.recoveries, "counters never go down"
    assert after.restarts == before.restarts + done, (
        "each restart that was done, or may have been, is counted once"
    )
    assert after.restart_failures == before.restart_failures + failed, (
        "each restart that failed is counted once"
    )


def check_attempt_changed(before: State, after: State) -> None:
    """Check that an event of the newest attempt changes that attempt alone."""
    assert replace(after, restarts=0, restart_failures=0, attempts=()) == replace(
        before, restarts=0, restart_failures=0, attempts=()
    ), "an outcome changes nothing but what is known of the restart"
    assert after.attempts[:-1] == before.attempts[:-1], (
        "an outcome changes nothing but what is known of the restart"
    )
    assert last_restart(after) == last_restart(before), (
        "an outcome changes nothing but what is known of the restart"
    )


def check_nothing_seen(before: State, transition: Transition, ledger: Ledger) -> None:
    """Checks that a run that saw nothing changes no peer, says nothing of one, and restarts nothing."""
    after = transition.state
    assert after.relay_since == ledger.relay_since, "no observation changes no peer"
    assert last_restart(after) == ledger.restarted, "no observation begins or ends no cooldown"
    assert lines(transition) == (), "no observation says nothing of a peer"
    assert restarts(transition) == (), "no observation restarts nothing"
    assert transition.verdicts is None, "no observation judges no peer"
    assert (after.last_success is None) == (before.last_success is None), (
        "no observation is no success"
    )
