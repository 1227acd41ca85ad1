"""A random tailnet with a watchdog under `GuardedPolicy`, and what it must never do.

`Ledger` is the oracle. It keeps a diary of what could be seen and of what was done, and
derives everything from that. It reads neither the state nor the verdicts.
"""
# ruff: noqa: D102 - the name of a rule says what it does

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from msgspec.structs import replace

from support.statuses import PATHS, decoded
from tsfc.core.watchdog.effects import Apply
from tsfc.core.watchdog.events import Event, Observed, Performed
from tsfc.core.watchdog.guarded import is_way_back
from tsfc.core.watchdog.policy import GuardedPolicy
from tsfc.core.watchdog.remedy import Declined, Done, Failed, Outcome, Remedy, Stage
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import Transition
from tsfc.core.watchdog.track import Reason

from .random_node import EXCLUDED, NAMES, NODES, UNWATCHED, RandomNode, Watch, moved
from .worlds import DOWN, STOPPED, lines, restarts

HOUR, DAY = 3600, 86_400
DURATIONS = [0, 1, 59, 60, 61, 149, 150, 151, 299, 300, 301, 600, 601, HOUR, DAY - 1, DAY]
"Seconds: the limits of the policy, one less and one more."
JUDGED = [12, 299, 300, 300, 301, 600, 601]
"Seconds after a remedy: it may help for 300 s, and 300 s later it is too late to tell."
LONG = [2 * HOUR, DAY, DAY + HOUR, 7 * DAY, 7 * DAY + HOUR, 30 * DAY]

SLEEPER = {"OS": "android"}
"Fields of a node that says nothing about paths."
ODD: dict[str, dict[str, Any]] = {**UNWATCHED, "phone": SLEEPER}
"Fields of a node that is no evidence, by the reason."

HOLDS: dict[str, dict[str, Any]] = {
    "control": {"Self": {"Online": False}},
    "key": {"Self": {"Online": True, "KeyExpiry": "2000-01-01T00:00:00Z"}},
    "relay": {"Health": ["could not connect to the 'fra' Relay Server"]},
    "pause": {},
}
"Fields of the status of a node that is held back, by the reason."
WELL: dict[str, Any] = {"Self": {"Online": True}, "Health": ["something about DNS"]}

PATH = st.sampled_from([*PATHS, "derp", "direct", "direct"])
HARMLESS = Failed("systemctl: not found")
"The command failed, and tailscaled has not been restarted."
OUTCOMES = st.sampled_from(
    [
        Done(),
        Done(),
        Failed("systemctl: no"),
        HARMLESS,
        Declined("stopped"),
        Stage.DECIDED,
        Stage.ASKED,
    ]
)
"The outcome of a remedy, or the last stage that a killed run stored."
POLICIES = st.builds(
    GuardedPolicy,
    max_relay_seconds=st.sampled_from([60, 600]),
    cooldown_seconds=st.sampled_from([0, 60, 600]),
    remedies=st.sampled_from(
        [(Remedy.RESTART,), (Remedy.RESTART, Remedy.OTHER_PORT), (Remedy.OTHER_PORT,), ()]
    ),
    budget=st.sampled_from([0, 1, 2, 6, 6, 6]),
    known_direct_days=st.sampled_from([1, 7]),
    discount=st.sampled_from([0.05, 0.5, 1.0]),
    half_life_days=st.sampled_from([0.1, 14.0]),
)


@dataclass
class Deed:
    """A remedy that was decided, as the diary has it."""

    at: int
    cooldown: int
    "Shortest time until the next one: that of an experiment, or of the policy then."
    remedy: Remedy
    cause: str
    subjects: set[str]
    "Peers on relay, whose outcome is open."
    is_open: bool = True
    has_helped: bool = False
    is_free: bool = False
    "It was declined or harmless, so the budget does not count it."
    has_failed: bool = False
    is_done: bool = True
    "Its command did not fail, and was not declined."
    direct: int = 0
    "Number of peers that were direct."
    is_worse: bool = False
    "The cause stayed on relay, and fewer peers were direct."
    is_undone: bool = False
    "An operator was seen to have started tailscaled later."


@dataclass
class Trial:
    """Whether a remedy helped one peer, and when that was seen."""

    at: int
    has_helped: bool


@dataclass
class Ledger(Watch):
    """The diary: what could be seen, and what was done. All times move with the clock."""

    direct_at: dict[str, int] = field(default_factory=dict[str, int])
    deeds: list[Deed] = field(default_factory=list[Deed])
    trials: dict[tuple[str, Remedy], list[Trial]] = field(
        default_factory=dict[tuple[str, Remedy], list[Trial]]
    )
    failures: dict[tuple[str, Remedy], int] = field(default_factory=dict[tuple[str, Remedy], int])
    "How often in a row a remedy did not help a peer, since that was last direct."
    well_since: int | None = None
    "The first run since the last one that saw the node cut off, or saw nothing."

    def settle(self, clock_step: int, now: int) -> None:
        super().settle(clock_step, now)
        self.direct_at = {name: moved(at, clock_step, now) for name, at in self.direct_at.items()}
        for deed in self.deeds:
            deed.at = moved(deed.at, clock_step, now)
        for trial in (trial for row in self.trials.values() for trial in row):
            trial.at = moved(trial.at, clock_step, now)
        if self.well_since is not None:
            self.well_since = moved(self.well_since, clock_step, now)

    def see(self, sights: dict[str, str], now: int, *, is_well: bool) -> None:
        """Record what a run saw of the peers and of the node."""
        relayed = {name for name, sight in sights.items() if sight == "relay"}
        direct = {name for name, sight in sights.items() if sight == "direct"}
        self.relay_since = {name: self.relay_since.get(name, now) for name in relayed}
        for deed in self.deeds:
            self._judge(deed, relayed, direct, now)
        self.direct_at |= dict.fromkeys(direct, now)
        self.failures = {key: n for key, n in self.failures.items() if key[0] not in direct}
        if not is_well:
            self.well_since = None
        elif self.well_since is None:
            self.well_since = now

    def _judge(self, deed: Deed, relayed: set[str], direct: set[str], now: int) -> None:
        is_over, number = now >= deed.at + 300, len(direct)
        if now > deed.at + 600:  # too late to tell, unless a peer stayed on relay
            direct = set()
            relayed = {name for name in relayed if self.relay_since[name] <= deed.at}
        for name in deed.subjects & (direct | relayed if is_over else direct):
            key, has_helped = (name, deed.remedy), name in direct
            self.trials.setdefault(key, []).append(Trial(now, has_helped))
            self.failures[key] = 0 if has_helped else self.failures.get(key, 0) + 1
        deed.subjects = set() if is_over else deed.subjects - direct
        if deed.is_open:
            deed.has_helped = deed.cause in direct
            deed.is_open = not (deed.has_helped or is_over)
            deed.is_worse = is_over and deed.cause in relayed and number < deed.direct

    def see_start(self, start: int | None) -> None:
        """Record whether the command that failed last has left tailscaled running."""
        if self.deeds and self.deeds[-1].has_failed and start is not None:
            self.deeds[-1].is_free = start < self.deeds[-1].at

    def backoff(self) -> int:
        """Seconds after the last remedy in which there is none, because commands failed."""
        if not self.deeds:
            return 0
        free = [deed.has_failed and deed.is_free for deed in self.deeds]
        failures = [*free[::-1], False].index(False)
        return min(DAY, self.deeds[-1].cooldown << max(0, failures - 1))

    def worse_port(self) -> Deed | None:
        """Return the remedy that moved tailscaled to a port with fewer direct peers."""
        last = next((deed for deed in reversed(self.deeds) if deed.is_done), None)
        is_other = last is not None and last.remedy is Remedy.OTHER_PORT
        return last if last is not None and is_other and last.is_worse else None

    def has_good_port(self) -> bool:
        """Whether another port has helped a peer, and may still be of use."""
        is_good = False
        for deed in self.deeds:
            if deed.is_done:
                is_good = (is_good or deed.has_helped) and not deed.is_worse
                is_good &= deed.remedy is Remedy.OTHER_PORT and not deed.is_undone
        return is_good

    def spent(self, now: int) -> int:
        """Number of remedies of the last day that did not help, or not yet."""
        return sum(
            now - deed.at < DAY and not deed.has_helped and not deed.is_free for deed in self.deeds
        )

    def least_seconds(self, name: str, remedy: Remedy, now: int, policy: GuardedPolicy) -> float:
        """Seconds on relay for which a remedy is worth it."""
        half_life = policy.half_life_days * DAY
        helped = unhelpful = 0.0
        for trial in self.trials.get((name, remedy), []):
            weight = 0.5 ** ((now - trial.at) / half_life)
            helped, unhelpful = (
                (helped + weight, unhelpful) if trial.has_helped else (helped, unhelpful + weight)
            )
        expected = (helped + 1) / (helped + unhelpful + 1)
        failures = self.failures.get((name, remedy), 0)
        return float(policy.max_relay_seconds / expected / policy.discount**failures)


class GuardedTailnet(RandomNode[GuardedPolicy, Ledger]):
    """Random tailnet: the rules are the events that can happen to it."""

    seen: set[str] | None = None
    "Collects verdicts, reasons to hold back, and outcomes; None if not needed."

    def __init__(self) -> None:
        super().__init__(GuardedPolicy(), Ledger())
        self.holds: set[str] = set()

    @initialize(policy=POLICIES, excluded=EXCLUDED, relayed=st.sets(NAMES, max_size=2))
    def starts(self, policy: GuardedPolicy, excluded: frozenset[str], relayed: set[str]) -> None:
        """Most peers are seen direct, and the node is well."""
        self.policy = replace(policy, excluded=excluded)
        self.paths |= dict.fromkeys(relayed, "derp")
        self.timer_fires(600, Done())

    @rule(policy=POLICIES, excluded=EXCLUDED)
    def operator_changes_the_options(self, policy: GuardedPolicy, excluded: frozenset[str]) -> None:
        """But not those that say for how long something is remembered."""
        self.policy = replace(
            policy,
            excluded=excluded,
            known_direct_days=self.policy.known_direct_days,
            half_life_days=self.policy.half_life_days,
        )

    @rule(name=NAMES, path=PATH)
    def path_changes(self, name: str, path: str) -> None:
        self.paths[name] = path

    @rule(name=NAMES, reason=st.sampled_from([*ODD, None, None]))
    def becomes_odd_or_usual(self, name: str, reason: str | None) -> None:
        if reason != "mullvad" or "#" not in name:
            self.odd[name] = reason

    @rule(reason=st.sampled_from(sorted(HOLDS)), seconds=st.sampled_from(DURATIONS))
    def node_is_cut_off_for_a_run(self, reason: str, seconds: int) -> None:
        self.holds = {reason}
        self.timer_fires(seconds, Done())
        self.holds = set()

    @rule(reason=st.sampled_from(sorted(HOLDS)))
    def node_is_cut_off_or_well(self, reason: str) -> None:
        self.holds ^= {reason}

    @rule()
    def node_is_well(self) -> None:
        self.holds = set()

    @rule(seconds=st.sampled_from(DURATIONS), outcome=OUTCOMES)
    def timer_fires(self, seconds: int, outcome: Outcome | Stage) -> None:
        self.advance(seconds)
        fields: dict[str, Any] = dict(WELL)
        for reason in sorted(self.holds):
            fields |= HOLDS[reason]
        start = self.start if self.is_start_known else None
        is_paused = "pause" in self.holds
        self.run_watchdog(
            Observed(decoded(*self.present(ODD), **fields), start, is_paused), outcome
        )

    @rule(name=NAMES, count=st.integers(2, 8), outcome=OUTCOMES, after=st.sampled_from(DURATIONS))
    def is_stuck_on_relay(
        self, name: str, count: int, outcome: Outcome | Stage, after: int
    ) -> None:
        """What no remedy cures: run after run shows the same."""
        self.paths[name] = "derp"
        for _ in range(count):
            self.timer_fires(300, outcome)
        self.timer_fires(after, outcome)

    @rule(name=NAMES, outcome=OUTCOMES, seconds=st.sampled_from(LONG))
    def is_stuck_on_relay_for_long(self, name: str, outcome: Outcome | Stage, seconds: int) -> None:
        self.paths[name] = "derp"
        self.timer_fires(60, outcome)
        self.timer_fires(seconds, outcome)
        self.timer_fires(300, outcome)

    @rule(name=NAMES, other=NAMES, path=PATH, seconds=st.sampled_from(JUDGED))
    def a_remedy_has_its_outcome(self, name: str, other: str, path: str, seconds: int) -> None:
        """A peer falls back to relay, and that is all until a remedy is due."""
        self.all_find_a_direct_path(HOUR)
        self.paths[name] = "derp"
        self.timer_fires(60, Done())
        self.timer_fires(601, Done())
        self.paths[other] = "derp"
        self.paths[name] = path
        self.timer_fires(seconds, Done())

    @rule(name=NAMES, seconds=st.sampled_from([61, 149, 150, 151]))
    def falls_back_to_relay_for_a_moment(self, name: str, seconds: int) -> None:
        """Longer than a short threshold, and about as long as a relay is watched."""
        self.all_find_a_direct_path(HOUR)
        self.paths[name] = "derp"
        self.timer_fires(60, Done())
        self.timer_fires(seconds, Done())

    @rule(name=NAMES, other=NAMES, outcome=OUTCOMES)
    def another_port_makes_it_worse(self, name: str, other: str, outcome: Outcome | Stage) -> None:
        """Then the way back comes, if nothing holds it back."""
        self.a_remedy_has_its_outcome(name, other, "derp", 300)
        for _ in range(4):
            self.timer_fires(900, outcome)

    @rule(name=NAMES, seconds=st.sampled_from(DURATIONS))
    def finds_a_direct_path_for_a_run(self, name: str, seconds: int) -> None:
        path, self.paths[name] = self.paths[name], "direct"
        self.timer_fires(seconds, Done())
        self.paths[name] = path

    @rule(seconds=st.sampled_from(DURATIONS))
    def all_find_a_direct_path(self, seconds: int) -> None:
        self.paths = dict.fromkeys(NODES, "direct")
        self.timer_fires(seconds, Done())

    def sights(self) -> dict[str, str]:
        """What a run can see of each watched peer, by the rules of the policy."""
        evidence = {"direct": "direct", "derp": "relay"}
        return {
            name: evidence.get(path, "unknown")
            for name, path in self.paths.items()
            if path != "offline" and name not in self.absent and self.odd[name] is None
        }

    def check(self, before: State, event: Event, transition: Transition, now: int) -> None:  # noqa: ARG002
        if self.seen is not None:
            self.seen |= what_it_shows(transition)
        if isinstance(event, Observed) and event != STOPPED:
            self.check_observed(transition, now)
        else:
            self.check_unobservable(event, transition, now)

    def perform(self, effect: Apply, outcome: Outcome | Stage) -> None:
        ledger = self.ledger
        deed = ledger.deeds[-1]
        if outcome is Stage.DECIDED:  # the next run discards the attempt
            ledger.deeds.pop()
            return
        self.ask(effect)
        if outcome != HARMLESS:
            self.tailscaled_starts()
        if isinstance(outcome, Stage):
            return
        self.state = self.after(Performed(effect.attempt, outcome))
        if not isinstance(outcome, Done):
            deed.is_open, deed.is_done, deed.subjects = False, False, set()
            deed.has_failed = isinstance(outcome, Failed)
        if isinstance(outcome, Declined):
            deed.is_free = ledger.has_answered = True

    def check_observed(self, transition: Transition, now: int) -> None:
        """Check the promises about a run that observed peers."""
        ledger, sights = self.ledger, self.sights()
        if ledger.interruption.is_other_start and ledger.is_start_known and self.is_start_known:
            for deed in ledger.deeds:
                deed.is_undone = True
        ledger.watch(now, has_boot_clock=self.has_boot_clock, is_start_known=self.is_start_known)
        is_starting = self.is_start_known and 0 <= now - self.start < 300
        ledger.see_start(self.start if self.is_start_known else None)
        ledger.see(sights, now, is_well=not self.holds and not is_starting)

        effects = restarts(transition)
        assert len(effects) <= 1, "a run applies one remedy at most"
        for effect in effects:
            self.check_remedy(effect, sights, now)
        since = {name: relay.since for name, relay in transition.state.relays.items()}
        assert since == ledger.relay_since, (
            "relays have each peer on relay, with the time when it changed to relay"
        )
        words = [line.split(" ")[:2] for line in lines(transition)]
        subjects = [subject for _, subject in words]
        others = [subject for word, subject in words if word != "OUTCOME:"]
        assert len(others) == len(set(others)), "each peer has at most one line"
        for effect in effects:
            assert effect.attempt.peer in others, "each remedy has a line"
        assert subjects == sorted(subjects), "the lines are in the order of the names"

    def check_unobservable(self, event: Event, transition: Transition, now: int) -> None:
        """Check the promises about a run that could not observe peers."""
        ledger = self.ledger
        ledger.well_since = None
        if ledger.interruption.blind_since is None:
            ledger.interruption.blind_since = now
        ledger.has_answered |= event == STOPPED
        effects = restarts(transition)
        is_left_down = event == DOWN and not ledger.has_answered and bool(ledger.deeds)
        assert not effects or is_left_down, (
            "without an observation, only a restart that left tailscaled down is repeated"
        )
        assert len(effects) <= 1, "a run applies one remedy at most"
        for _ in effects:
            last = ledger.deeds[-1]
            check_apart(ledger.deeds, now)
            ledger.deeds.append(Deed(now, last.cooldown, Remedy.RESTART, last.cause, set()))

    def check_remedy(self, effect: Apply, sights: dict[str, str], now: int) -> None:
        """Check the promises about a remedy, and record it."""
        ledger, policy = self.ledger, self.policy
        cause, remedy = effect.attempt.peer, effect.attempt.remedy
        worse = ledger.worse_port()
        is_way_back = worse is not None and self.leads_back(worse, now)
        if worse is not None and is_way_back:
            assert (cause, remedy) == (worse.cause, Remedy.RESTART), (
                "a port that made it worse is left at once"
            )
        else:
            assert remedy in policy.remedies, "only a remedy that is allowed is applied"
            failed = next((deed.remedy for deed in ledger.deeds[-1:] if deed.has_failed), None)
            can_stay = ledger.has_good_port() and Remedy.OTHER_PORT in policy.remedies
            can_stay &= failed is not Remedy.OTHER_PORT
            assert remedy is not Remedy.RESTART or not can_stay, (
                "a port that helped is not given up for a restart"
            )
            others = (each for each in policy.remedies if each is not remedy and not can_stay)
            least = min(
                (ledger.least_seconds(cause, other, now, policy) for other in others),
                default=float("inf"),
            )
            # As below, but in favour of the watchdog.
            assert remedy is not failed or now - ledger.relay_since[cause] <= 1.1 * least + 1, (
                "after a command that failed, another remedy that is worth it comes first"
            )
        assert sights.get(cause) == "relay", "the cause of a remedy is seen on relay"
        excluded = {name for name in NODES if {name, NODES[name]} & policy.excluded}
        assert cause not in excluded, "the cause of a remedy is not excluded"
        direct_at = ledger.direct_at.get(cause)
        assert direct_at is not None, "the cause of a remedy was seen direct"
        assert now - direct_at <= policy.known_direct_days * DAY, (
            "the cause of a remedy was seen direct lately"
        )
        assert not self.holds, "no remedy while the node is cut off"
        assert not (self.is_start_known and 0 <= now - self.start < 300), (
            "no remedy in the first 5 minutes of tailscaled"
        )
        assert ledger.well_since is not None, "no remedy before the node was well for 150 s"
        assert now - ledger.well_since >= 150, "no remedy before the node was well for 150 s"
        assert now - ledger.relay_since[cause] >= 150, "the cause of a remedy was watched for 150 s"
        check_apart(ledger.deeds, now)
        assert not ledger.deeds or now - ledger.deeds[-1].at >= ledger.backoff(), (
            "commands that fail in a row are tried ever more rarely"
        )
        assert ledger.spent(now) < policy.budget, "no more remedies in a day than the budget"
        seconds = now - ledger.relay_since[cause]
        assert seconds > policy.max_relay_seconds, (
            "the cause of a remedy is on relay for longer than the threshold"
        )
        # The watchdog rounds to seconds, and may forget a record that has faded.
        assert (
            is_way_back or seconds > 0.9 * ledger.least_seconds(cause, remedy, now, policy) - 1
        ), "each remedy that does not help makes the next one wait for longer"
        cooldown = max(300, policy.cooldown_seconds)
        subjects = set[str]() if is_way_back else set(ledger.relay_since)
        direct = list(sights.values()).count("direct")
        ledger.deeds.append(Deed(now, cooldown, remedy, cause, subjects, direct=direct))

    def leads_back(self, worse: Deed, now: int) -> bool:
        """Whether the peer that caused the port change must cause the restart back.

        Another peer lost its direct path since then, and both may cause a remedy.
        """
        policy = self.policy
        excluded = {name for name in NODES if {name, NODES[name]} & policy.excluded}
        usual = {
            name: since
            for name, since in self.ledger.relay_since.items()
            if name not in excluded
            and name in self.ledger.direct_at
            and now - self.ledger.direct_at[name] // HOUR * HOUR <= policy.known_direct_days * DAY
        }
        since = usual.get(worse.cause, now)
        return (
            policy.remedies != ()
            and any(at > worse.at for at in usual.values())
            and since <= worse.at
            and now - since > policy.max_relay_seconds
        )


def check_apart(deeds: Iterable[Deed], now: int) -> None:
    """Check that the experiment and the cooldown of each earlier remedy are over."""
    assert all(now - deed.at >= deed.cooldown for deed in deeds), (
        "one experiment at a time: no remedy in the cooldown of another"
    )


def what_it_shows(transition: Transition) -> set[str]:
    """Verdicts, the reason to hold back, and what became of attempts."""
    causes = [verdict for verdict in transition.verdicts or () if verdict.reason is Reason.RESTART]
    return {
        *(["way back"] if any(map(is_way_back, causes)) else []),
        *(verdict.reason for verdict in transition.verdicts or ()),
        *([transition.hold.name] if transition.hold is not None else []),
        *transition.state.memory.outcomes,
    }
