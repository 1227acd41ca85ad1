"""Scenarios: the peers of a simulated tailnet, and the events there.

A scenario is a TOML file. The built-in ones are in `scenarios/`; they are the best
introduction to the format. The JSON Schema comes from the types of this module
(`tsfc simulate --schema`).
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from returns.result import Failure, Result, Success

from tsfc.core.tailscale.json_input import to_utf8
from tsfc.core.text import PATH_LIMIT, one_line, printable
from tsfc.offline.simulation import spans
from tsfc.offline.simulation.spans import (
    Length,
    Period,
    PeriodRange,
    Range,
    Span,
    default,
    default_period,
    period_range,
    span_range,
)
from tsfc.shell import regular

HOUR = 3600.0
SIZE_LIMIT = 2**20
"Maximum size of a scenario, in bytes."
Name = Annotated[
    str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?$", description="a DNS label")
]

Rate = Annotated[int, Meta(ge=0, le=10**9, description="bytes per second")]


class Nat(StrEnum):
    """The NAT of a node. All but `public` drop packets that are no response."""

    PUBLIC = "public"
    "No NAT: reachable from outside."
    EASY = "easy"
    "One mapping for all destinations."
    HARD = "hard"
    "A different mapping for each destination."
    NOUDP = "noudp"
    "UDP is blocked."
    CGNAT = "cgnat"
    "Like `easy`, and the public address changes now and then."


class Node(Struct, frozen=True, forbid_unknown_fields=True):
    """This node."""

    nat: Nat = Nat.EASY
    keepalive: Span = default(10)
    "From one round of keepalive to the next; 0: no keepalive."
    settled: bool = True
    "Paths were found before the beginning. If false, tailscaled was just started."
    start: Span = default(0.1)
    "From the stop of tailscaled to `Running`, if the control server responds."


class Watchdog(Struct, frozen=True, forbid_unknown_fields=True):
    """The timer of the watchdog."""

    interval: Period = default_period(60)
    jitter: Span = default(0.1)
    "Maximum delay of a run (`AccuracySec`)."


class Phone(Struct, frozen=True, forbid_unknown_fields=True):
    """Times of a peer that goes online and offline."""

    online: PeriodRange
    offline: PeriodRange


class Sleep(Struct, frozen=True, forbid_unknown_fields=True):
    """Times of a peer that sleeps while the control server calls it online.

    Asleep it sends nothing, so there is no direct path to it.
    """

    awake: PeriodRange
    asleep: PeriodRange


class Traffic(Struct, frozen=True, forbid_unknown_fields=True):
    """Traffic to a peer, in addition to keepalive."""

    every: PeriodRange
    "From the end of one exchange to the start of the next."
    lasts: Range
    received: Rate = 1500
    "Bytes per second, while it lasts and the peer responds."
    sent: Rate = 1500


class Peer(Struct, frozen=True, forbid_unknown_fields=True):
    """A peer, or `count` peers with the names `name-1` and so on."""

    name: Name
    count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    nat: Nat = Nat.EASY
    os: str = "linux"
    relay: str = "fra"
    "Its home DERP region."
    serves_relay: bool = False
    "It is a peer relay for all peers that have UDP and cannot be direct."
    mapping: Span = default(120)
    "Time until the NATs forget a flow of packets."
    readdress: PeriodRange = period_range(6 * HOUR, 24 * HOUR)
    "From one change of the address to the next (`cgnat` only)."
    phone: Phone | None = None
    sleep: Sleep | None = None
    traffic: Traffic | None = None
    watchdog: bool = False
    "It runs keepalive, and a watchdog with the documented policy."


class _Event(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    at: Length
    lasts: Length | None = None
    "None: until the end of the simulation."
    repeat: PeriodRange | None = None
    "From its end to its next start."


Mode = Literal["refuses", "silent"]
"Whether servers in an outage refuse connections at once, or never respond."


class Stuck(_Event, frozen=True, tag_field="kind", tag="stuck"):
    """No direct path is found, for an unknown reason."""

    peers: tuple[Name, ...] | None = None
    "None: all."
    restart: Literal["cures", "cures-for", "nothing"] = "cures"
    "Effect of a restart of tailscaled at the side of the fault."
    cured: Range = span_range(HOUR / 2, 2 * HOUR)
    "Time until it is stuck again (`cures-for` only)."
    side: Literal["near", "far"] = "near"


class UdpBlocked(_Event, frozen=True, tag_field="kind", tag="udp-blocked"):
    """A router drops UDP."""

    peers: tuple[Name, ...] | None = None
    "Peers whose router drops UDP. None: the router of this node."


class BlockedPort(_Event, frozen=True, tag_field="kind", tag="blocked-port"):
    """The router of this node drops packets from the UDP port of its tailscaled.

    Only another port helps.
    """


class StuckNat(_Event, frozen=True, tag_field="kind", tag="stuck-nat"):
    """The public address of this node changes, and its router still uses the old one.

    It does so for the flows that it knows, so only another port helps.
    """

    peers: tuple[Name, ...] | None = None


class WanChange(_Event, frozen=True, tag_field="kind", tag="wan-change"):
    """The public address of this node changes: paths are lost and found again."""


class DeadData(_Event, frozen=True, tag_field="kind", tag="dead-data"):
    """A router drops only WireGuard: the path is direct, but no data arrives."""

    peers: tuple[Name, ...] | None = None


class DerpOutage(_Event, frozen=True, tag_field="kind", tag="derp-outage"):
    """No relay is reachable: no new path is found, and relayed peers do not respond.

    If relays are silent, tailscaled gives up direct paths every few seconds, once it
    has noticed.
    """

    mode: Mode = "silent"


class ControlOutage(_Event, frozen=True, tag_field="kind", tag="control-outage"):
    """The control server is unreachable.

    Peers keep the online status that they had, and a started tailscaled has no peers.
    """

    mode: Mode = "refuses"


class DaemonDead(_Event, frozen=True, tag_field="kind", tag="daemon-dead"):
    """tailscaled is down, and a restart does not help."""


class RestartFails(_Event, frozen=True, tag_field="kind", tag="restart-fails"):
    """The command of each remedy fails, and changes nothing."""


class Offline(_Event, frozen=True, tag_field="kind", tag="offline"):
    """Peers are offline. A reboot is an event of some minutes."""

    peers: tuple[Name, ...] | None = None


class Suspend(_Event, frozen=True, tag_field="kind", tag="suspend"):
    """This node sleeps: no timer runs."""


class ClockStep(_Event, frozen=True, tag_field="kind", tag="clock-step"):
    """The wall clock of this node changes."""

    by: Annotated[float, Meta(ge=-1e9, le=1e9)]
    "Seconds; negative: backwards."


class Readdress(_Event, frozen=True, tag_field="kind", tag="readdress"):
    """The public address of peers changes: the path is lost and found again."""

    peers: tuple[Name, ...] | None = None


PathEvent = Stuck | UdpBlocked | BlockedPort | StuckNat | WanChange | DeadData | Readdress | Offline
"Events of peers and of the paths to them."
NodeEvent = DerpOutage | ControlOutage | DaemonDead | RestartFails | Suspend | ClockStep
"Events of this node and of Tailscale's servers."
Event = PathEvent | NodeEvent


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """A simulated tailnet."""

    summary: str
    "What the scenario shows, in one sentence."
    lasts: Span
    peers: Annotated[tuple[Peer, ...], Meta(min_length=1)]
    node: Node = Node()
    watchdog: Watchdog = Watchdog()
    events: tuple[Event, ...] = ()
    start: Annotated[int, Meta(ge=0, le=4102444800)] = 1767225600
    "Unix time of the beginning (2026-01-01)."


def read(raw: bytes, name: str) -> Result[Scenario, str]:
    """Read a scenario from TOML.

    Fail with one line: the file, the key and what was expected.
    """
    try:
        scenario = msgspec.convert(tomllib.loads(to_utf8(raw).decode()), Scenario, dec_hook=_decode)
    except (
        tomllib.TOMLDecodeError,
        UnicodeDecodeError,
        msgspec.ValidationError,
        RecursionError,
    ) as error:
        return Failure(
            f"reading the scenario {name}: {one_line(str(error)).replace('$.', '')};"
            " see `tsfc simulate --schema`"
        )
    names = {name for peer in scenario.peers for name in peer_names(peer)}
    if len(names) < sum(peer.count for peer in scenario.peers):
        return Failure(f"reading the scenario {name}: two peers have one name; rename one")
    groups = names | {peer.name for peer in scenario.peers}
    for number, event in enumerate(scenario.events):
        unknown = sorted(set(getattr(event, "peers", None) or ()) - groups)
        if unknown:
            return Failure(
                f"reading the scenario {name}: events[{number}].peers: there is no peer"
                f" {unknown[0]}; use a name of [[peers]]"
            )
        if event.repeat is not None and event.lasts is None:
            return Failure(
                f"reading the scenario {name}: events[{number}]: an event that repeats has to end;"
                " add lasts"
            )
        if isinstance(event, Suspend) and event.lasts is None:
            return Failure(
                f"reading the scenario {name}: events[{number}]: a suspend has to end; add lasts"
            )
    return Success(scenario)


def find(name: str) -> Result[Scenario, str]:
    """Return a built-in scenario by its name, or read one from a regular file."""
    if name in builtin():
        return Success(builtin()[name])
    raw = regular.read(name, SIZE_LIMIT)
    if isinstance(raw, Failure):
        similar = get_close_matches(name, builtin(), 1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        return Failure(
            f"reading the scenario {printable(name, PATH_LIMIT)}: {raw.failure()}; give a TOML "
            f"file, or a built-in scenario (see `tsfc simulate --list`{hint})"
        )
    return read(raw.unwrap(), printable(name, PATH_LIMIT))


def schema() -> dict[str, Any]:
    """Return the JSON Schema of scenarios."""
    return msgspec.json.schema(Scenario, schema_hook=_schema_of)


@functools.cache
def builtin() -> Mapping[str, Scenario]:
    """Return the built-in scenarios by name. An error in one of them is a bug."""
    directory = os.path.join(os.path.dirname(__file__), "scenarios")
    found: dict[str, Scenario] = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".toml"):
            with open(os.path.join(directory, name), "rb") as file:
                found[name.removesuffix(".toml")] = read(file.read(), name).unwrap()
    return found


def peer_names(peer: Peer) -> tuple[str, ...]:
    """Return the names of the peers of one `[[peers]]` table."""
    return (
        (peer.name,)
        if peer.count == 1
        else tuple(f"{peer.name}-{number}" for number in range(1, peer.count + 1))
    )


def duration_seconds(scenario: Scenario) -> float:
    """Return the length of a scenario, in seconds."""
    return scenario.lasts


def _decode(kind: type, value: object) -> Span | Length:
    """Decode a type that msgspec does not know."""
    if issubclass(kind, Span):
        return spans.parse(value, kind)
    if isinstance(value, dict):
        return Length(msgspec.convert(value, Range, dec_hook=_decode))
    fixed = spans.parse(value)
    return Length(Range(fixed, fixed))


def _schema_of(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of a type that msgspec does not know."""
    if issubclass(kind, Span):
        return spans.json_schema(kind)
    return {"anyOf": [*spans.json_schema()["anyOf"], {"$ref": "#/$defs/Range"}]}
