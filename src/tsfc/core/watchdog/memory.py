"""What `GuardedPolicy` remembers: who was direct, and which remedies helped whom."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from tsfc.core.clock import Seconds
from tsfc.core.watchdog.experiment import Trial
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Remedy

DAY_SECONDS = 86400
DIRECT_RESOLUTION_SECONDS = 3600
"Precision of the time when a peer was last direct: so the memory seldom changes."
FORGOTTEN_WEIGHT = 0.05
"A record that counts for less than this many remedies is dropped."

Weight = Annotated[float, Meta(ge=0)]
"Number of remedies, each counted for less the older it is."


class Record(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How often a remedy helped one peer."""

    at: Seconds
    "When the two weights held; they decay from then on."
    helped: Weight = 0.0
    unhelpful: Weight = 0.0
    times_helped: Seconds = 0
    times: Seconds = 0
    streak: Seconds = 0
    "Times in a row that it did not help, since the peer was last direct."


class PeerMemory(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is remembered of one peer."""

    direct_at: Seconds | None = None
    "When it was last seen direct, to the hour; None if never."
    records: Mapping[Remedy, Record] = {}
    told_at: Seconds | None = None
    "When the last line about its relay was written that is not repeated at each run."


class Traffic(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The WireGuard traffic with a direct peer, at the last run."""

    rx: Seconds
    "Bytes received."
    tx: Seconds
    "Bytes sent."
    dead_since: Seconds | None = None
    "Since when its data plane is known to be dead; None if it is not."
    told_at: Seconds | None = None
    "When the last line about that was written."


class Memory(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is remembered from run to run, besides the state of every policy."""

    peers: Mapping[str, PeerMemory] = {}
    "By StableNodeID, or by name where that is unknown."
    steady_since: Seconds | None = None
    "Since when each run saw that nothing held it back; None if the last one did not."
    outcomes: Mapping[str, Seconds] = {}
    "Number of attempts by `outcome_key`."
    traffic: Mapping[str, Traffic] = {}
    "By the same key as `peers`, for each direct peer with any traffic."


NOTHING = PeerMemory()


def moved(memory: Memory, move: Callable[[int], int]) -> Memory:
    """The memory after a step of the wall clock."""

    def maybe(at: int | None) -> int | None:
        return None if at is None else move(at)

    def moved_peer(peer: PeerMemory) -> PeerMemory:
        records = {
            remedy: replace(record, at=move(record.at)) for remedy, record in peer.records.items()
        }
        return PeerMemory(maybe(peer.direct_at), records, maybe(peer.told_at))

    return replace(
        memory,
        peers={key: moved_peer(peer) for key, peer in memory.peers.items()},
        steady_since=maybe(memory.steady_since),
        traffic={
            key: replace(
                traffic, dead_since=maybe(traffic.dead_since), told_at=maybe(traffic.told_at)
            )
            for key, traffic in memory.traffic.items()
        },
    )


def decayed(weight: float, seconds: int, half_life_seconds: int) -> float:
    """A weight after some time. It halves in each half-life."""
    return weight * math.exp2(-max(0, seconds) / half_life_seconds)


def weights(record: Record, now: int, half_life_seconds: int) -> tuple[float, float]:
    """How much the record weighs now: remedies that helped, and that did not."""
    age = now - record.at
    return (
        decayed(record.helped, age, half_life_seconds),
        decayed(record.unhelpful, age, half_life_seconds),
    )


def with_trials(
    memory: Memory, trials: Iterable[Trial], now: int, half_life_seconds: int
) -> Memory:
    """The memory after remedies had their outcomes."""
    peers = dict(memory.peers)
    for trial in trials:
        peer = peers.get(trial.peer, NOTHING)
        record = peer.records.get(trial.remedy, Record(now))
        helped, unhelpful = weights(record, now, half_life_seconds)
        record = Record(
            now,
            helped + trial.has_helped,
            unhelpful + (not trial.has_helped),
            record.times_helped + trial.has_helped,
            record.times + 1,
            0 if trial.has_helped else record.streak + 1,
        )
        peers[trial.peer] = replace(peer, records={**peer.records, trial.remedy: record})
    return replace(memory, peers=peers)


def outcome_key(remedy: Remedy, result: AttemptResult) -> str:
    """The key of `Memory.outcomes`."""
    return f"{remedy}/{result}"


def with_results(memory: Memory, attempts: Iterable[Attempt]) -> Memory:
    """The memory with the results of attempts counted."""
    outcomes = dict(memory.outcomes)
    for attempt in attempts:
        key = outcome_key(attempt.remedy, attempt.result)
        outcomes[key] = outcomes.get(key, 0) + 1
    return replace(memory, outcomes=dict(sorted(outcomes.items())))


def with_direct(
    memory: Memory, direct: Iterable[str], now: int, *, keep_seconds: int, half_life_seconds: int
) -> Memory:
    """The memory after a look that showed these peers direct.

    It is unchanged if it knows that already. When it changes, what is old is dropped.
    """
    hour = now - now % DIRECT_RESOLUTION_SECONDS
    changed: dict[str, PeerMemory] = {}
    for key in direct:
        peer = memory.peers.get(key, NOTHING)
        is_news = peer.direct_at is None or peer.direct_at < hour or peer.told_at is not None
        # Most peers have no record, so that a look at each would be slow.
        if is_news or (peer.records and any(one.streak for one in peer.records.values())):
            records = {remedy: replace(record, streak=0) for remedy, record in peer.records.items()}
            changed[key] = PeerMemory(hour, records)
    if not changed:
        return memory

    def is_kept(peer: PeerMemory) -> bool:
        if peer.direct_at is not None and now - peer.direct_at <= keep_seconds:
            return True
        if peer.told_at is not None and now - peer.told_at <= keep_seconds:
            return True
        return any(
            sum(weights(record, now, half_life_seconds)) >= FORGOTTEN_WEIGHT
            for record in peer.records.values()
        )

    peers = {**memory.peers, **changed}
    return replace(memory, peers={key: peer for key, peer in peers.items() if is_kept(peer)})


def with_told(memory: Memory, keys: Iterable[str], now: int) -> Memory:
    """The memory after lines about these peers."""
    told = tuple(keys)
    if not told:
        return memory
    dead = {key: replace(memory.traffic[key], told_at=now) for key in told if key in memory.traffic}
    peers = {
        key: replace(memory.peers.get(key, NOTHING), told_at=now) for key in told if key not in dead
    }
    return replace(memory, peers={**memory.peers, **peers}, traffic={**memory.traffic, **dead})
