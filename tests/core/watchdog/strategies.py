"""Strategies for states, events, instants and policies: plausible and wild ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from support.statuses import SUFFIX
from tsfc.core.clock import MAX_NUMBER, Boot, Instant
from tsfc.core.faults import Down, Unusable
from tsfc.core.tailscale.status import PeerStatus, Status
from tsfc.core.watchdog.events import Asking, Observed, Performed, Unobservable
from tsfc.core.watchdog.memory import Memory, PeerMemory, Record
from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Attempt, AttemptResult, Declined, Done, Failed, Remedy, Stage
from tsfc.core.watchdog.state import Relay, State

from .worlds import T0

HOSTILE = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "a/b",
    "a\nb",
    "a\0b",
    "\x1b[31m",
    '"',
    "%",
    "%2F",
    "#",
    "a#1",
    "\u202e",
    "\ud800",
    "é" * 90,
    "x" * 10_000,
    "rpi3",
]
TEXT = st.sampled_from(HOSTILE) | st.text(st.characters(), max_size=20)
"Any string, also with lone surrogates."
INTEGERS = (
    st.sampled_from([0, -1, 1, 2**31, 2**53, 2**63, -(2**63), 10**40])
    | st.integers()
    | st.integers(T0 - 700, T0 + 700)
)
ADDRESSES = st.sampled_from(["", "", "192.0.2.7:41641"])

WILD_PEERS = st.builds(
    PeerStatus,
    id=TEXT,
    host_name=TEXT,
    dns_name=TEXT | st.sampled_from([f"rpi3.{SUFFIX}.", "rpi3.tail2.ts.net.", "x.mullvad.ts.net"]),
    cur_addr=ADDRESSES,
    active=st.booleans(),
    relay=st.sampled_from(["fra", "fra", ""]),
    online=st.sampled_from([True, True, False]),
    expired=st.sampled_from([False, False, True]),
    sharee_node=st.sampled_from([False, False, True]),
)
WILD_STATUSES = st.builds(
    Status,
    backend_state=st.sampled_from(["Running", "Running", "Stopped"]) | TEXT,
    magic_dns_suffix=st.sampled_from([SUFFIX, ""]),
    health=st.none() | st.lists(TEXT, max_size=2).map(tuple),
    peer=st.none() | st.dictionaries(TEXT, WILD_PEERS, max_size=6),
)
WILD_INSTANTS = st.builds(
    Instant,
    INTEGERS,
    st.none() | st.builds(Boot, st.sampled_from(["b1", "b2"]), INTEGERS, st.none() | INTEGERS),
)


def attempts(
    instants: st.SearchStrategy[int], peers: st.SearchStrategy[str]
) -> st.SearchStrategy[tuple[Attempt, ...]]:
    """Up to three attempts, in any order."""
    attempt = st.builds(
        Attempt,
        st.sampled_from(Remedy),
        peers,
        instants,
        instants,
        st.sampled_from(Stage),
        st.sampled_from(AttemptResult),
        is_harmless=st.booleans(),
    )
    return st.lists(attempt, max_size=3).map(tuple)


WILD_STATES = st.builds(
    State,
    relays=st.dictionaries(TEXT, st.builds(Relay, INTEGERS, TEXT), max_size=6),
    attempts=attempts(INTEGERS, TEXT),
    restarts=INTEGERS,
    restart_failures=INTEGERS,
    detections=INTEGERS,
    recoveries=INTEGERS,
    last_success=st.none() | WILD_INSTANTS,
    blind_since=st.none() | INTEGERS,
    has_answered=st.booleans(),
    tailscaled_start=st.none() | INTEGERS,
    all_offline_since=st.none() | INTEGERS,
    last_run=st.none() | WILD_INSTANTS,
)
WILD_NATURALS = INTEGERS.map(abs)
WILD_WEIGHTS = st.floats(0, allow_infinity=False)
WILD_RECORDS = st.builds(
    Record,
    INTEGERS,
    WILD_WEIGHTS,
    WILD_WEIGHTS,
    WILD_NATURALS,
    WILD_NATURALS,
    WILD_NATURALS,
)
WILD_MEMORIES = st.builds(
    Memory,
    st.dictionaries(
        TEXT,
        st.builds(
            PeerMemory,
            st.none() | INTEGERS,
            st.dictionaries(st.sampled_from(Remedy), WILD_RECORDS),
            st.none() | INTEGERS,
        ),
        max_size=6,
    ),
    st.none() | INTEGERS,
    st.dictionaries(TEXT, WILD_NATURALS, max_size=2),
)
WILD_GUARDED_POLICIES = st.builds(
    GuardedPolicy,
    max_relay_seconds=WILD_NATURALS,
    cooldown_seconds=WILD_NATURALS,
    excluded=st.frozensets(TEXT, max_size=3),
    remedies=st.lists(st.sampled_from(Remedy), max_size=3).map(tuple),
    budget=INTEGERS,
    known_direct_days=WILD_NATURALS,
    discount=st.floats(0, 1),
    half_life_days=st.floats(0, 1e9),
)
WILD_ATTEMPTS = st.builds(Attempt, st.sampled_from(Remedy), TEXT, INTEGERS, INTEGERS)
WILD_POLICIES = st.builds(ThresholdPolicy, INTEGERS, INTEGERS, st.frozensets(TEXT, max_size=3))
WILD_EVENTS = (
    st.builds(Observed, WILD_STATUSES, st.none() | INTEGERS)
    | st.builds(Unobservable, st.builds(Down, TEXT) | st.builds(Unusable, TEXT))
    | st.builds(Asking, WILD_ATTEMPTS)
    | st.builds(
        Performed,
        WILD_ATTEMPTS,
        st.builds(Done) | st.builds(Failed, TEXT) | st.builds(Declined, TEXT),
    )
)

NAMES = ["a", "b", "c", "d", "e"]
TIMES = st.integers(T0 - 1500, T0 + 20) | st.sampled_from([T0 - 601, T0 - 600, T0 - 599])
INSTANTS = st.builds(
    Instant,
    st.just(T0),
    st.none() | st.builds(Boot, st.sampled_from(["b1", "b2"]), st.integers(1000, 1020)),
)
EARLIER = st.builds(
    Instant,
    TIMES,
    st.none()
    | st.builds(
        Boot, st.sampled_from(["b1", "b2"]), st.integers(0, 1000), st.none() | st.integers(0, 1000)
    ),
)
RELAYS = st.builds(Relay, TIMES, st.sampled_from(["", *(f"n{name}" for name in NAMES)]))
STATES = st.builds(
    State,
    relays=st.dictionaries(st.sampled_from(NAMES), RELAYS),
    attempts=attempts(TIMES, st.sampled_from(NAMES)),
    restarts=st.integers(0, 9),
    restart_failures=st.integers(0, 9),
    detections=st.integers(0, 9),
    recoveries=st.integers(0, 9),
    last_success=st.none() | EARLIER,
    blind_since=st.none() | TIMES,
    has_answered=st.booleans(),
    tailscaled_start=st.none() | TIMES,
    all_offline_since=st.none() | TIMES,
    last_run=st.none() | EARLIER,
)


def _peer(name: str, address: str, *, online: bool) -> PeerStatus:
    return PeerStatus(
        id=f"n{name}", host_name=name, dns_name=f"{name}.{SUFFIX}.", cur_addr=address, online=online
    )


PEERS = st.builds(
    _peer, st.sampled_from(NAMES), ADDRESSES, online=st.sampled_from([True, True, True, False])
)
STATUSES = st.lists(PEERS, unique_by=lambda peer: peer.host_name).map(
    lambda peers: Status(
        backend_state="Running",
        magic_dns_suffix=SUFFIX,
        peer={f"nodekey:{peer.host_name}": peer for peer in peers},
    ),
)
POLICIES = st.builds(
    ThresholdPolicy,
    st.sampled_from([0, 60, 600]),
    st.sampled_from([0, 60, 600]),
    st.frozensets(st.sampled_from(NAMES), max_size=2),
)

NUMBERS = st.integers(0, MAX_NUMBER)
STORABLE_INSTANTS = st.builds(
    Instant,
    NUMBERS,
    st.none() | st.builds(Boot, st.text(), NUMBERS, st.none() | NUMBERS),
)
STORABLE_STATES = st.builds(
    State,
    relays=st.dictionaries(
        st.text(max_size=40) | st.sampled_from([name for name in HOSTILE if name != "\ud800"]),
        st.builds(Relay, NUMBERS, st.text(max_size=40)),
    ),
    attempts=attempts(NUMBERS, st.text(max_size=40)),
    restarts=NUMBERS,
    restart_failures=NUMBERS,
    detections=NUMBERS,
    recoveries=NUMBERS,
    last_success=st.none() | STORABLE_INSTANTS,
    blind_since=st.none() | NUMBERS,
    has_answered=st.booleans(),
    tailscaled_start=st.none() | NUMBERS,
    all_offline_since=st.none() | NUMBERS,
    last_run=st.none() | STORABLE_INSTANTS,
)
"States that `state.json` can hold."

# The guarded policy: what it makes and sees at `T0`. Nothing is after that. What allows
# a remedy comes several times, so that there is one in every fourth example.

DAY = 86_400
PAST = st.integers(T0 - 1500, T0) | st.sampled_from([T0 - 601, T0 - 600, T0 - 300, T0 - 120])
TWINS = {"cam#nf": "nf", "cam#ng": "ng"}
"Two peers with one host name; a name is `cam` where the other one is gone."
IDS = {name: f"n{name}" for name in NAMES[:3]} | TWINS
KEYS = st.sampled_from(sorted(IDS.values()))


def _attempt(name: str, at: int, remedy: Remedy, **fields: Any) -> Attempt:
    return Attempt(remedy, name, at, at + 300, peer_id=IDS[name], **fields)


def _in_order(attempts: list[Attempt]) -> tuple[Attempt, ...]:
    return tuple(sorted(attempts, key=lambda attempt: attempt.at))


GUARDED_ATTEMPTS = st.lists(
    st.builds(
        _attempt,
        st.sampled_from(sorted(IDS)),
        st.one_of(
            PAST,
            st.integers(T0 - DAY - 2, T0 - DAY + 2),
            st.integers(T0 - 2 * DAY, T0 - 900),
            st.integers(T0 - 2 * DAY, T0 - 900),
        ),
        st.sampled_from(Remedy),
        stage=st.just(Stage.DONE) | st.sampled_from(Stage),
        result=st.sampled_from(AttemptResult),
        cooldown_seconds=st.none() | st.integers(0, 900),
        direct_peers=st.integers(0, 3),
        is_harmless=st.booleans(),
        subjects=st.lists(KEYS, unique=True, max_size=3).map(tuple),
    ),
    max_size=4,
).map(_in_order)
RECORDS = st.builds(
    Record,
    PAST | st.integers(T0 - 60 * DAY, T0),
    st.floats(0, 20),
    st.floats(0, 20),
    st.integers(0, 20),
    st.integers(0, 20),
    st.sampled_from([0, 0, 1, 3]),
)
PEER_MEMORIES = st.builds(
    PeerMemory,
    st.sampled_from(
        [*(T0 - T0 % 3600 - age for age in (0, 0, 0, 0, DAY, 7 * DAY - 3600, 8 * DAY)), None]
    ),
    st.dictionaries(st.sampled_from(Remedy), RECORDS, max_size=2),
    st.none() | PAST | st.sampled_from([T0 - 3600, T0 - 8 * DAY]),
)
SINCE = PAST | st.integers(T0 - DAY, T0 - 601)
GUARDED_RELAYS = st.fixed_dictionaries(
    {name: st.builds(Relay, SINCE, st.just(IDS[name])) for name in ["a", "cam#nf"]},
    optional={name: st.builds(Relay, SINCE, st.just(IDS[name])) for name in ["b", "c", "cam#ng"]},
)
GUARDED_MEMORIES = st.builds(
    Memory,
    st.fixed_dictionaries(dict.fromkeys(sorted(IDS.values()), PEER_MEMORIES)),
    st.sampled_from([*range(T0 - 600, T0 - 119, 40), T0 - 119, T0 - 60, None]),
    st.dictionaries(st.sampled_from(["restart/helped", "restart/worse"]), st.integers(0, 9)),
)
GUARDED_STATES = st.builds(
    State,
    relays=GUARDED_RELAYS,
    attempts=GUARDED_ATTEMPTS,
    restarts=st.integers(0, 9),
    restart_failures=st.integers(0, 9),
    detections=st.integers(0, 9),
    recoveries=st.integers(0, 9),
    last_success=st.builds(Instant, PAST),
    blind_since=st.sampled_from([None] * 8 + [T0 - 301, T0 - 300, T0 - 60]),
    policy=st.sampled_from(["guarded"] * 9 + ["documented"]),
    memory=GUARDED_MEMORIES,
)
SIGHTS: dict[str, dict[str, Any]] = {
    "direct": {"active": True, "cur_addr": "192.0.2.7:41641"},
    "relay": {"active": True},
    "idle": {},
    "offline": {"online": False},
}


def _guarded_peer(name: str, sight: str) -> PeerStatus:
    base = name.partition("#")[0]
    fields: dict[str, Any] = {"online": True, "relay": "fra"} | SIGHTS[sight]
    dns_name = f"{base}.{SUFFIX}."
    return PeerStatus(id=IDS[name], host_name=base, dns_name=dns_name, **fields)


GUARDED_STATUSES = st.builds(
    Status,
    backend_state=st.just("Running"),
    magic_dns_suffix=st.just(SUFFIX),
    health=st.sampled_from([(), (), (), (), None, ("something else",), ("no relay server",)]),
    self_=st.builds(
        PeerStatus, id=st.just("nself"), online=st.sampled_from([*[True] * 8, None, False])
    ),
    peer=st.fixed_dictionaries(
        dict.fromkeys(sorted(IDS), st.sampled_from([*["relay"] * 5, *SIGHTS, None]))
    ).map(
        lambda sights: {
            name: _guarded_peer(name, sight) for name, sight in sights.items() if sight is not None
        }
    ),
)
GUARDED_POLICIES = st.builds(
    GuardedPolicy,
    max_relay_seconds=st.sampled_from([0, 60, 600]),
    cooldown_seconds=st.sampled_from([0, 60, 600]),
    excluded=st.frozensets(st.sampled_from(["a", "cam", "cam#nf", "ng"]), max_size=2),
    remedies=st.lists(st.sampled_from(Remedy), unique=True, min_size=1).map(tuple),
    budget=st.sampled_from([6, 6, 6, 6, 2, 1, 0]),
    known_direct_days=st.sampled_from([1, 7]),
    discount=st.sampled_from([0.0, 0.05, 0.5, 0.5, 1.0]),
    half_life_days=st.sampled_from([0.1, 14.0]),
)
