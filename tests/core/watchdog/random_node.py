"""A node with random clocks in a random tailnet: the base of the state machines.

`Watch` is the base of their oracles.
"""
# ruff: noqa: D102 - the name of a rule says what it does

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from returns.result import Success

from support.statuses import peer
from tsfc.core.clock import STEP_SECONDS, Boot, Instant
from tsfc.core.watchdog.effects import Apply
from tsfc.core.watchdog.events import Asking, Event, Performed
from tsfc.core.watchdog.policy import Policy
from tsfc.core.watchdog.remedy import Outcome, Stage
from tsfc.core.watchdog.state import State, decode, encode
from tsfc.core.watchdog.step import Transition, step

from .worlds import DOWN, STOPPED, T0, Step, restarts

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

CLOCK_STEPS = [1, 5, 6, 601, 86_400, 3 * 86_400]
BLIND = [0, 1, 59, 60, 61, 119, 120, 121, 299, 300, 301, 600, 601, 3600, 86_399, 86_400]
"Seconds until a run without an observation: the limits, one less and one more."

NAMES = st.sampled_from(sorted(NODES))
EXCLUDED = st.frozensets(st.sampled_from([*NODES, "cam"]), max_size=2)


def node(name: str, path: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Peer entry of a node in the status."""
    return peer(NODES[name], path, ID=name.partition("#")[2] or f"n{name}") | fields


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


@dataclass
class Watch:
    """When each relay began, and whether relay was watched. All times move with the clock."""

    relay_since: dict[str, int] = field(default_factory=dict[str, int])
    interruption: Break = field(default_factory=Break)
    had_boot_clock: bool | None = None
    "At the last run that observed peers; None before the first."
    is_start_known: bool = False
    "Whether that run knew the start of tailscaled, and no restart followed."
    has_answered: bool = True
    "Whether tailscaled has answered since the last restart."

    def settle(self, clock_step: int, now: int) -> None:
        """Move all times by a clock step, and none past `now`."""
        self.relay_since = {
            name: moved(at, clock_step, now) for name, at in self.relay_since.items()
        }
        blind = self.interruption.blind_since
        if blind is not None:
            self.interruption.blind_since = moved(blind, clock_step, now)

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


def moved(at: int, clock_step: int, now: int) -> int:
    """A time after a clock step."""
    return max(0, min(at + clock_step, now))


AnyPolicy = TypeVar("AnyPolicy", bound=Policy)
AnyWatch = TypeVar("AnyWatch", bound=Watch)


class RandomNode(RuleBasedStateMachine, Generic[AnyPolicy, AnyWatch]):
    """A node and its tailnet. The rules are the events that can happen to it."""

    decide: Step = staticmethod(step)

    def __init__(self, policy: AnyPolicy, ledger: AnyWatch) -> None:
        super().__init__()
        self.policy = policy
        self.ledger = ledger
        self.state = State()
        self.paths: dict[str, str] = dict.fromkeys(NODES, "direct")
        self.odd: dict[str, str | None] = dict.fromkeys(NODES)
        self.absent: set[str] = set()
        self.unix, self.uptime, self.awake, self.boot = T0, 1000, 1000, 1
        self.start, self.is_start_known = T0 - 500, True
        self.has_boot_clock = True
        self.clock_change = 0
        # True if the next run can compare its boot clock with that of the last run.
        self.is_comparable = False

    @rule(name=st.sampled_from([name for name in NODES if "#" not in name]))
    def leaves_or_joins(self, name: str) -> None:
        self.absent ^= {name}

    @rule(seconds=st.sampled_from(CLOCK_STEPS), sign=st.sampled_from([-1, 1]))
    def clock_is_set(self, seconds: int, sign: int) -> None:
        self.unix += sign * seconds
        self.clock_change += sign * seconds

    @rule(seconds=st.sampled_from([0, 0, -86_400, 40]))
    def node_reboots(self, seconds: int) -> None:
        """A node without a clock battery may have another time after boot."""
        self.unix += seconds
        self.boot += 1
        self.uptime = self.awake = 0
        self.is_comparable = False
        self.ledger.interruption.is_rebooted = True

    @rule(seconds=st.sampled_from([1, 60, 61, 28_800]))
    def node_is_suspended(self, seconds: int) -> None:
        self.unix += seconds
        self.uptime += seconds
        self.ledger.interruption.slept += seconds

    @rule()
    def operator_restarts_tailscaled(self) -> None:
        self.tailscaled_starts()
        self.ledger.interruption.is_other_start = True

    @rule()
    def start_of_tailscaled_is_unknown_or_known(self) -> None:
        self.is_start_known = not self.is_start_known

    @rule()
    def boot_clock_disappears_or_returns(self) -> None:
        self.has_boot_clock = not self.has_boot_clock

    @rule(seconds=st.sampled_from(BLIND), event=st.sampled_from([DOWN, STOPPED]))
    def timer_fires_without_an_observation(self, seconds: int, event: Event) -> None:
        self.advance(seconds)
        self.run_watchdog(event, Stage.ASKED)

    def advance(self, seconds: int) -> None:
        """Advance all clocks."""
        self.unix += seconds
        self.uptime += seconds
        self.awake += seconds

    def present(self, reasons: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """The peers in the status; `reasons` has the fields of odd ones."""
        return [
            node(name, path, reasons.get(self.odd[name] or "", {}))
            for name, path in self.paths.items()
            if name not in self.absent
        ]

    def run_watchdog(self, event: Event, outcome: Outcome | Stage) -> None:
        """Run the watchdog once as the job does, and check the promises.

        A run that was killed leaves its attempt pending: `outcome` is then a stage.
        """
        boot = Boot(f"boot {self.boot}", self.uptime, self.awake)
        now = Instant(self.unix, boot if self.has_boot_clock else None)
        before = self.state

        # The job stores the state between runs, so it must survive that.
        assert decode(encode(before)) == Success(before), (
            "decoding an encoded state returns it unchanged"
        )
        is_step = self.is_comparable and self.has_boot_clock
        is_step &= abs(self.clock_change) > STEP_SECONDS
        self.ledger.settle(self.clock_change if is_step else 0, now.unix)
        self.clock_change, self.is_comparable = 0, self.has_boot_clock

        transition = self.decide(before, event, now=now, policy=self.policy)
        self.check(before, event, transition, now.unix)
        self.state = transition.state
        for effect in restarts(transition):
            self.perform(effect, outcome)

    def check(self, before: State, event: Event, transition: Transition, now: int) -> None:
        """Check the promises about a run."""
        raise NotImplementedError

    def perform(self, effect: Apply, outcome: Outcome | Stage) -> None:
        """Apply a remedy, or be killed while doing so."""
        raise NotImplementedError

    def ask(self, effect: Apply) -> None:
        """Run the command of a remedy: from now on, tailscaled has not answered yet."""
        self.state = self.after(Asking(effect.attempt))
        self.ledger.has_answered = self.ledger.is_start_known = False
        self.ledger.interruption.is_other_start = False

    def tailscaled_starts(self) -> None:
        """Start tailscaled now, and later than before."""
        self.start = max(self.start + 1, self.unix)

    def after(self, event: Asking | Performed) -> State:
        """Return the state after an event of the same run."""
        return self.decide(self.state, event, now=Instant(self.unix), policy=self.policy).state


def assert_found(machine: type[RandomNode[Any, Any]], broken: Step, promise: str) -> None:
    """Assert that the state machine fails with this `step`, and names the promise.

    It stops at the first example that fails: the rarest took 320 examples on average. The
    examples depend on the modules that are loaded, so each test run draws others.
    """
    until_found = settings(
        max_examples=10_000,
        stateful_step_count=40,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError, match=promise):
        run_state_machine_as_test(
            type("Broken", (machine,), {"decide": staticmethod(broken)}), settings=until_found
        )
