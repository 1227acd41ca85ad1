"""The decision under `GuardedPolicy`.

A remedy is applied where the evidence says that it helps:

    probability * discount ** failures * seconds on relay > max_relay_seconds

`probability` comes from the peer's own record of that remedy: `(helped + 1) / (helped +
unhelpful + 1)`, each weight halved in each half-life. Without a record it is 1, so the
first remedy comes when the threshold policy would restart. `failures` counts the times
in a row that the remedy did not help, since the peer was last direct.

Of the remedies that may be applied, the one is chosen that is worth it the soonest. So
after a restart that did not help, another port comes before the next restart. If the
newest attempt is a command that failed, the others that are worth it come first, so a
command that never works takes turns with one that does.

Once another port has helped, a restart would take tailscaled back to the configured
port, which may still be blocked. So other ports are the only remedy then, until one
makes it worse, or somebody else starts tailscaled.

If fewer peers are direct on the other port than before, and one of the others is on
relay, the next attempt is a restart, which takes tailscaled back to the configured
port. The same peer causes it, whether or not it is worth it. It is part of the remedy
`OTHER_PORT`: it spends budget and begins a cooldown, and no peer has a trial of it.

For each watched peer that is on relay (`sight.by_evidence`), the first that applies:

    | condition                                   | verdict      | line            |
    |---------------------------------------------|--------------|-----------------|
    | it was just detected                        | DETECTED     | at once         |
    | d <= max                                    | WAITING      | each run        |
    | excluded                                    | EXCLUDED     | each run        |
    | not seen direct within `known_direct_days`  | NEVER_DIRECT | once a week     |
    | no remedy is worth it yet                   | PATIENT      | once an hour    |
    | the cooldown holds                          | COOLDOWN     | each run        |
    | held (`watch.Hold`)                         | HELD         | each run        |
    | not confirmed for 150 s                     | CONFIRMING   | each run        |
    | it is the way back, or longest on relay     | RESTART      | each run        |
    | else                                        | COOLDOWN     | each run        |

Confirmed means that for 150 s every run saw the peer on relay and no reason to hold
back. A run without a status, or with a tailscaled that is not running, confirms
nothing, so the time starts again after it. `Self.Online` lags by 105 to 134 s when the
control server goes silent (measured; `watchdogTimeout` in `controlclient` is 120 s), so
the first status after an outage, or the one that shows the first sign of an outage, is
not enough. An outage that begins in these 150 s, and did not cause the relay, does not
show.

The cooldown is drawn from 1 to 1.5 times `cooldown_seconds`, by the node and the time,
so that the watchdogs at both ends of a path do not keep acting at the same moments.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import assert_never
from zlib import crc32

from msgspec import Struct
from msgspec.structs import replace

from tsfc.core.clock import Instant
from tsfc.core.tailscale.peers import Peer
from tsfc.core.tailscale.status import Status
from tsfc.core.text import one_line, printable
from tsfc.core.watchdog import dataplane, lines
from tsfc.core.watchdog import memory as memories
from tsfc.core.watchdog.cause import Cause, has_relay_outage, node_cause, peer_cause
from tsfc.core.watchdog.decision import Decision, Due
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.experiment import cause_key
from tsfc.core.watchdog.memory import DAY_SECONDS, NOTHING, Memory, PeerMemory, Record, Traffic
from tsfc.core.watchdog.policy import EXPERIMENT_SECONDS, GuardedPolicy, cooldown_seconds
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy, Stage
from tsfc.core.watchdog.sight import Sight
from tsfc.core.watchdog.state import State, spent
from tsfc.core.watchdog.track import (
    DIRECT,
    Look,
    Outlook,
    Reason,
    Tracked,
    Verdict,
    keys_by_name,
    sight_of,
)
from tsfc.core.watchdog.watch import Hold

START_SECONDS = 300
"Time after the start of tailscaled in which no remedy is applied."
CONFIRM_SECONDS = 150
"Time for which a relay without a reason to hold back is watched before a remedy."
REPEAT_SECONDS = 3600
"Time after which a line about a patient peer is repeated."
WEEK_SECONDS = 7 * DAY_SECONDS
"The same for a peer that was not direct lately."
SUBJECT_LIMIT = 100
"Maximum number of peers whose outcome is recorded: those on relay the longest."

NAME_LIMIT = 255
"Maximum number of characters of a name that comes from the state file."


class _Situation(Struct, frozen=True):
    """What a decision about each peer needs."""

    memory: Memory
    keys: dict[str, str]
    "See `keys_by_name`."
    remedies: tuple[Remedy, ...]
    "See `_remedies`."
    failed: Remedy | None
    "See `_failed`."
    cooldown: int
    "Seconds for which the cooldown still holds; 0 if it does not."
    hold: Hold | None
    worse: Attempt | None
    "See `_worse_port`."
    cause: Cause
    "Why a peer is on relay, as far as this node can tell."
    now: int
    policy: GuardedPolicy

    def peer(self, name: str) -> PeerMemory:
        """What is remembered of a peer."""
        return self.memory.peers.get(self.keys[name], NOTHING)


def decide(
    tracked: Tracked,
    look: Look,
    cooldown: int,
    hold: Hold | None,
    event: Observed,
    *,
    now: Instant,
    policy: GuardedPolicy,
) -> Decision:
    """Decide about each peer that `track` left WAITING, in the state that it left.

    `cooldown` is the number of seconds for which the cooldown still holds; `hold` is
    the reason to hold back that every policy has.
    """
    hold = hold or _hold(tracked.state, event, now.unix, policy)
    keys = keys_by_name(look)
    direct = _direct_peers(tracked.verdicts, look, keys)
    memory = _learned(tracked, direct, hold, now.unix, policy)
    traffic = dataplane.with_look(memory.traffic, direct, event.probes, now.unix)
    memory = replace(memory, traffic=traffic)
    cause = _cause(tracked.verdicts, event.status)
    worse = _worse_port(tracked, memory, keys, now.unix, policy)
    remedies, failed = _remedies(tracked.state, policy), _failed(tracked.state)
    situation = _Situation(
        memory, keys, remedies, failed, cooldown, hold, worse, cause, now.unix, policy
    )
    verdicts = [_judged(verdict, situation) for verdict in tracked.verdicts]

    # The way back comes first. Else the peer on relay the longest causes a remedy. The
    # others wait for its cooldown.
    chosen = max(
        (verdict for verdict in verdicts if verdict.reason is Reason.RESTART),
        key=lambda verdict: (is_way_back(verdict), verdict.relay_seconds),
        default=None,
    )
    if chosen is None or chosen.outlook is None:
        attempt, due = None, _due(verdicts, situation)
    else:
        attempt = _attempt(chosen, chosen.outlook, verdicts, event.status, situation)
        due = Due(now.unix, attempt.remedy, chosen.peer)
        situation = replace(situation, cooldown=cooldown_seconds(policy, attempt))
        verdicts = [
            replace(verdict, reason=Reason.COOLDOWN)
            if verdict.reason is Reason.RESTART and verdict is not chosen
            else verdict
            for verdict in verdicts
        ]
    said, told = _lines(verdicts, tracked, situation)
    memory = memories.with_told(memory, told, now.unix)
    return Decision(tuple(verdicts), said, attempt, due, hold, memory)


def probability(record: Record | None, now: int, policy: GuardedPolicy) -> float:
    """Estimated probability that a remedy helps a peer, from its record."""
    if record is None:
        return 1.0
    helped, unhelpful = memories.weights(record, now, _half_life(policy))
    return (helped + 1) / (helped + unhelpful + 1)


def outlook(peer: PeerMemory, remedy: Remedy, now: int, policy: GuardedPolicy) -> Outlook:
    """When a remedy is worth it for a peer, by its record."""
    record = peer.records.get(remedy)
    chance = probability(record, now, policy)
    failures = 0 if record is None else record.streak
    benefit = chance * policy.discount**failures
    seconds = round(min(policy.max_relay_seconds / benefit, _NEVER)) if benefit else _NEVER
    return Outlook(remedy, chance, seconds)


def is_way_back(verdict: Verdict) -> bool:
    """Whether the next remedy only takes tailscaled back to the configured port."""
    return verdict.outlook is not None and verdict.outlook.is_way_back


def is_known_direct(peer: PeerMemory, now: int, policy: GuardedPolicy) -> bool:
    """Whether the peer was seen direct lately, so that it can be direct again."""
    return (
        peer.direct_at is not None
        and now - peer.direct_at <= policy.known_direct_days * DAY_SECONDS
    )


_NEVER = 2**53
"Seconds after which a remedy is worth it that never is."


def _half_life(policy: GuardedPolicy) -> int:
    return max(1, int(policy.half_life_days * DAY_SECONDS))


def _hold(state: State, event: Observed, now: int, policy: GuardedPolicy) -> Hold | None:
    """The reasons to hold back that only this policy has."""
    if event.is_paused:
        return Hold.PAUSED
    if has_relay_outage(event.status):
        return Hold.NO_RELAY
    start = event.tailscaled_start
    if start is not None and 0 <= now - start < START_SECONDS:
        return Hold.STARTING
    return Hold.NO_BUDGET if spent(state, now) >= policy.budget else None


def _learned(
    tracked: Tracked, direct: Iterable[str], hold: Hold | None, now: int, policy: GuardedPolicy
) -> Memory:
    """The memory after this look, without what was told. `direct` has keys of peers."""
    memory, judgement, half_life = tracked.state.memory, tracked.judgement, _half_life(policy)
    if judgement.trials:
        memory = memories.with_trials(memory, judgement.trials, now, half_life)
    if judgement.results:
        memory = memories.with_results(memory, judgement.results)
    keep = policy.known_direct_days * DAY_SECONDS
    memory = memories.with_direct(
        memory, direct, now, keep_seconds=keep, half_life_seconds=half_life
    )
    is_steady = hold is None or hold is Hold.NO_BUDGET
    if is_steady == (memory.steady_since is not None):
        return memory
    return replace(memory, steady_since=now if is_steady else None)


def _cause(verdicts: list[Verdict], status: Status) -> Cause:
    sights = [sight_of(verdict) for verdict in verdicts]
    direct, relayed = sights.count(Sight.DIRECT), sights.count(Sight.RELAY)
    return peer_cause(node_cause(status, direct=direct, relayed=relayed), direct=direct)


def _unconfirmed_seconds(verdict: Verdict, situation: _Situation) -> int:
    """Seconds until the relay of a peer is confirmed; 0 if it is."""
    steady_since, now = situation.memory.steady_since, situation.now
    steady_seconds = 0 if steady_since is None else now - steady_since
    return max(0, CONFIRM_SECONDS - min(steady_seconds, verdict.relay_seconds))


def _port_changes(state: State) -> tuple[Attempt, ...]:
    """The attempts that changed the port since the last start on the configured one.

    Newest first. Empty if tailscaled uses the configured port: another port is for one
    start, whoever causes the next one.
    """
    unchanged = {Stage.FAILED, Stage.DECLINED}
    ran = (attempt for attempt in reversed(state.attempts) if attempt.stage not in unchanged)
    return tuple(
        takewhile(
            lambda attempt: attempt.remedy is Remedy.OTHER_PORT and not attempt.is_undone, ran
        )
    )


def _failed(state: State) -> Remedy | None:
    """The remedy of the newest attempt, if its command failed."""
    last = state.attempts[-1] if state.attempts else None
    return last.remedy if last is not None and last.stage is Stage.FAILED else None


def _remedies(state: State, policy: GuardedPolicy) -> tuple[Remedy, ...]:
    """What may be done now.

    If another port has helped a peer, a restart for the next one would go back to the
    configured port, which may still be blocked. So it is not done, unless the newest
    port made it worse, or the command for another port just failed.
    """
    if Remedy.OTHER_PORT not in policy.remedies or _failed(state) is Remedy.OTHER_PORT:
        return policy.remedies
    good = takewhile(
        lambda attempt: attempt.result is not AttemptResult.WORSE, _port_changes(state)
    )
    has_helped = any(attempt.result is AttemptResult.HELPED for attempt in good)
    return (Remedy.OTHER_PORT,) if has_helped else policy.remedies


def _worse_port(
    tracked: Tracked, memory: Memory, keys: dict[str, str], now: int, policy: GuardedPolicy
) -> Attempt | None:
    """The attempt that moved tailscaled to a port on which fewer peers are direct.

    None if tailscaled is not on such a port. None as well if no peer is on relay that
    was direct before: the others may have gone offline, or found another path.
    """
    last = next(iter(_port_changes(tracked.state)), None)
    if last is None or last.result is not AttemptResult.WORSE:
        return None
    has_lost_a_peer = any(
        sight_of(verdict) is Sight.RELAY
        and not verdict.is_excluded
        and now - verdict.relay_seconds > last.at
        and is_known_direct(memory.peers.get(keys[verdict.peer], NOTHING), now, policy)
        for verdict in tracked.verdicts
    )
    return last if has_lost_a_peer else None


def _next(peer: PeerMemory, relay_seconds: int, situation: _Situation) -> Outlook | None:
    """The usual remedy for a peer after some time on relay; None if there is none.

    It is the one that is worth it the soonest. If that one's command just failed, and
    another one is worth it by then, it is that.
    """

    def rank(next_: Outlook) -> tuple[bool, bool, int]:
        is_worth = next_.worth_at < relay_seconds
        return not is_worth, is_worth and next_.remedy is situation.failed, next_.worth_at

    now, policy = situation.now, situation.policy
    outlooks = [outlook(peer, remedy, now, policy) for remedy in situation.remedies]
    return min(outlooks, key=rank, default=None)


def _outlook(verdict: Verdict, relay_seconds: int, situation: _Situation) -> Outlook | None:
    """The next remedy for a peer that is on relay for this time; None if there is none.

    It is the way back if the peer caused the change of the port and is on relay since
    then. If tailscaled was started by an admin in between, the relay is younger.
    """
    peer, worse, policy = situation.peer(verdict.peer), situation.worse, situation.policy
    if worse is None or not policy.remedies:
        return _next(peer, relay_seconds, situation)
    is_cause = cause_key(worse) in {verdict.peer, situation.keys[verdict.peer]}
    if not is_cause or situation.now - verdict.relay_seconds > worse.at:
        return _next(peer, relay_seconds, situation)
    chance = probability(peer.records.get(Remedy.RESTART), situation.now, policy)
    return Outlook(Remedy.RESTART, chance, policy.max_relay_seconds, is_way_back=True)


def _direct_peers(verdicts: list[Verdict], look: Look, keys: dict[str, str]) -> dict[str, Peer]:
    """The direct peers, by their keys."""
    direct = {verdict.peer for verdict in verdicts if verdict.reason in DIRECT}
    return {keys[peer.name]: peer for peer in look.peers if peer.name in direct}


def _judged(verdict: Verdict, situation: _Situation) -> Verdict:
    """The verdict after the rules of this policy."""
    if verdict.reason in DIRECT:
        traffic = situation.memory.traffic.get(situation.keys[verdict.peer])
        is_dead = traffic is not None and traffic.dead_since is not None
        return replace(verdict, is_dead=True) if is_dead else verdict
    max_seconds = situation.policy.max_relay_seconds
    if verdict.reason is Reason.WAITING and verdict.relay_seconds > max_seconds:
        return _overdue(verdict, situation)
    return verdict


def _overdue(verdict: Verdict, situation: _Situation) -> Verdict:
    """The verdict on a peer that is on relay for longer than the threshold."""
    peer = situation.peer(verdict.peer)
    if verdict.is_excluded:
        return replace(verdict, reason=Reason.EXCLUDED)
    if not is_known_direct(peer, situation.now, situation.policy):
        return replace(verdict, reason=Reason.NEVER_DIRECT, cause=situation.cause)
    next_ = _outlook(verdict, verdict.relay_seconds, situation)
    if next_ is None or verdict.relay_seconds <= next_.worth_at:
        reason = Reason.PATIENT
    elif situation.cooldown > 0:
        reason = Reason.COOLDOWN
    elif situation.hold is not None:
        reason = Reason.HELD
    elif _unconfirmed_seconds(verdict, situation) > 0:
        reason = Reason.CONFIRMING
    else:
        reason = Reason.RESTART
    return replace(verdict, reason=reason, outlook=next_, cause=situation.cause)


def _attempt(
    chosen: Verdict, next_: Outlook, verdicts: list[Verdict], status: Status, situation: _Situation
) -> Attempt:
    now, keys = situation.now, situation.keys
    on_relay = sorted(
        (verdict for verdict in verdicts if sight_of(verdict) is Sight.RELAY),
        key=lambda verdict: (-verdict.relay_seconds, verdict.peer),
    )
    key = keys[chosen.peer]
    subjects = () if next_.is_way_back else on_relay[:SUBJECT_LIMIT]
    return Attempt(
        next_.remedy,
        chosen.peer,
        now,
        now + EXPERIMENT_SECONDS,
        peer_id="" if key == chosen.peer else key,
        cooldown_seconds=_drawn_cooldown(status.self_.id, now, situation.policy),
        direct_peers=sum(verdict.reason in DIRECT for verdict in verdicts),
        subjects=tuple(keys[verdict.peer] for verdict in subjects),
    )


def _drawn_cooldown(node: str, now: int, policy: GuardedPolicy) -> int:
    """A cooldown from 1 to 1.5 times that of the policy. A replay draws the same."""
    fraction = crc32(f"{node} {now}".encode()) / 2**32
    return int(policy.cooldown_seconds * (1 + fraction / 2))


def _due(verdicts: list[Verdict], situation: _Situation) -> Due | None:
    """The next attempt, if every peer stays on its path."""
    if situation.hold is not None:
        return None
    attempts = [_next_attempt(verdict, situation) for verdict in verdicts]
    candidates = [attempt for attempt in attempts if attempt is not None]
    if not candidates:
        return None
    seconds, _, _, name, remedy = min(candidates)
    return Due(situation.now + seconds, remedy, name)


def _next_attempt(
    verdict: Verdict, situation: _Situation
) -> tuple[int, bool, int, str, Remedy] | None:
    """The next attempt that a peer would cause, if it were alone.

    That is the seconds until then, two values that decide a tie, the name, the remedy.
    """
    if sight_of(verdict) is not Sight.RELAY or verdict.is_excluded:
        return None
    peer, policy = situation.peer(verdict.peer), situation.policy
    next_ = _outlook(verdict, verdict.relay_seconds, situation)
    if next_ is None:
        return None
    left = max(next_.worth_at, policy.max_relay_seconds) + 1 - verdict.relay_seconds
    seconds = max(left, situation.cooldown, _unconfirmed_seconds(verdict, situation))
    if not is_known_direct(peer, situation.now + seconds, policy):
        return None
    next_ = _outlook(verdict, verdict.relay_seconds + seconds, situation) or next_
    return seconds, not next_.is_way_back, -verdict.relay_seconds, verdict.peer, next_.remedy


def _lines(
    verdicts: list[Verdict], tracked: Tracked, situation: _Situation
) -> tuple[tuple[str, ...], list[str]]:
    """The lines, in the order of the names; the peers that were told a rare line.

    A peer has one line, but an outcome and the next remedy have one each.
    """
    results = {cause_key(result): result for result in tracked.judgement.results}
    said: list[tuple[str, str]] = []
    told: list[str] = []
    for verdict in verdicts:
        if verdict.reason is Reason.DIRECT and not verdict.is_dead and not results:
            continue
        key, peer = situation.keys[verdict.peer], situation.peer(verdict.peer)
        result = results.pop(key, None) or results.pop(verdict.peer, None)
        text: str | None = None
        if result is not None:
            outcome = outcome_line(result, verdict.peer, peer, situation.now)
            said.append((verdict.peer, outcome))
            if verdict.reason is Reason.RESTART:
                text = _line(verdict, situation)
        elif verdict.is_dead:
            text = _dead_line(verdict, situation.memory.traffic[key], situation.now)
            told += [] if text is None else [key]
        elif verdict.reason in RARE:
            is_told = _is_told_lately(verdict, peer, situation)
            text = None if is_told else _rare_line(verdict, peer)
            told += [] if text is None else [key]
        else:
            text = _line(verdict, situation)
        said += [] if text is None else [(verdict.peer, text)]
    for result in results.values():
        name = printable(result.peer, NAME_LIMIT)  # a state file is input, too
        said.append((name, outcome_line(result, name, NOTHING, situation.now)))
    return tuple(text for _, text in sorted(said, key=lambda line: line[0])), told


def paused_by(policy: GuardedPolicy) -> str:
    """The clause of a line that names the pause file."""
    return f"{Hold.PAUSED} by {one_line(policy.pause_file, 200)}"


RARE = frozenset({Reason.PATIENT, Reason.NEVER_DIRECT})
"Verdicts that hold for days, so that not each run repeats their line."


def _line(verdict: Verdict, situation: _Situation) -> str | None:
    """The line about a peer that each run repeats; None if there is nothing to say."""
    on_relay = f"{verdict.peer} on relay for {verdict.relay_seconds}s"
    if verdict.reason is Reason.CONFIRMING and verdict.outlook is not None:
        left, word = _unconfirmed_seconds(verdict, situation), WORDS[verdict.outlook.remedy]
        return f"CONFIRMING: {on_relay}, {word} in {left}s if it stays"
    if verdict.reason is Reason.HELD and situation.hold is Hold.PAUSED:
        return f"HELD: {on_relay}, not restarting: {paused_by(situation.policy)}"
    if verdict.reason is Reason.RESTART and verdict.outlook is not None:
        match verdict.outlook.remedy:
            case Remedy.RESTART if verdict.outlook.is_way_back:
                return (
                    f"RESTART: {on_relay}, restarting tailscaled on the configured port: fewer "
                    "peers are direct on the other one"
                )
            case Remedy.RESTART:
                pass
            case Remedy.OTHER_PORT:
                return f"OTHER-PORT: {on_relay}, restarting tailscaled on another port"
            case _ as never:
                assert_never(never)
    return lines.line(
        verdict,
        cooldown_seconds=situation.cooldown,
        hold=situation.hold,
        threshold_seconds=situation.policy.max_relay_seconds,
    )


def _dead_line(verdict: Verdict, traffic: Traffic, now: int) -> str | None:
    """The line about a dead data plane; None if it was said lately."""
    if not dataplane.is_line_due(traffic, now):
        return None
    seconds = now - (now if traffic.dead_since is None else traffic.dead_since)
    since = f" for {seconds}s" if seconds else ""
    return (
        f"DEAD: {verdict.peer} direct, but no data comes back{since}: disco pings are answered, "
        "TSMP pings are lost; no restart mends that"
    )


def _is_told_lately(verdict: Verdict, peer: PeerMemory, situation: _Situation) -> bool:
    """Whether the rare line about a peer was written not long ago."""
    if peer.told_at is None:
        return False
    ago = situation.now - peer.told_at
    if verdict.reason is Reason.PATIENT:
        return ago < REPEAT_SECONDS
    was_patient = is_known_direct(peer, peer.told_at, situation.policy)
    return ago < WEEK_SECONDS and not was_patient


def _rare_line(verdict: Verdict, peer: PeerMemory) -> str:
    """The line about a peer for which nothing is done."""
    on_relay = f"{verdict.peer} on relay for {verdict.relay_seconds}s"
    if verdict.reason is Reason.NEVER_DIRECT:
        why = "never seen direct" if peer.direct_at is None else "not seen direct for days"
        return f"NEVER-DIRECT: {on_relay}, {why}: no restart for it"
    if verdict.outlook is None:
        return f"PATIENT: {on_relay}; no remedy is allowed"
    remedy, worth_at = verdict.outlook.remedy, verdict.outlook.worth_at
    record = peer.records.get(remedy)
    helped, times = (0, 0) if record is None else (record.times_helped, record.times)
    return (
        f"PATIENT: {on_relay}; {WORDS[remedy]}s helped {helped} of {times} times: "
        f"next worth it at {worth_at}s"
    )


WORDS = {Remedy.RESTART: "restart", Remedy.OTHER_PORT: "port change"}
"How lines name the remedies."


def outcome_line(attempt: Attempt, name: str, peer: PeerMemory, now: int) -> str:
    """The line about the result of an attempt. `name` is the name of its cause now."""
    seconds, word = now - attempt.at, WORDS[attempt.remedy]
    record = peer.records.get(attempt.remedy)
    score = "" if record is None else f" ({record.times_helped} of {record.times})"
    on_relay = f"OUTCOME: {name} still on relay {seconds}s after the {word}"
    match attempt.result:
        case AttemptResult.HELPED:
            return f"OUTCOME: {name} direct {seconds}s after the {word}: helped{score}"
        case AttemptResult.NO_EFFECT:
            return f"{on_relay}: no effect{score}"
        case AttemptResult.WORSE:
            return f"{on_relay}, and fewer peers are direct: worse{score}"
        case AttemptResult.UNCONFIRMED | AttemptResult.PENDING:
            return f"OUTCOME: {name} not observed {seconds}s after the {word}: unconfirmed"
        case _ as never:
            assert_never(never)
