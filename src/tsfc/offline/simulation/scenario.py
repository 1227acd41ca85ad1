"""Scenarios: what there is in an imagined tailnet, and what happens to it.

A scenario is a TOML file. The built-in ones are in `scenarios/`, and are the best introduction to the form; its JSON Schema is
made from the types here (`tsfc simulate --schema`).
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from returns.result import Failure, Result, Success

from tsfc.core.text import one_line
from tsfc.offline.simulation import spans
from tsfc.offline.simulation.spans import Length, Range, Span, default, span_range

HOUR = 3600.0
Name = Annotated[
    str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?$", description="a DNS label")
]


class Nat(StrEnum):
    """What a node is behind. But for `public`, all let in only what answers to something sent."""

    PUBLIC = "public"
    "Nothing: it can be reached."
    EASY = "easy"
    "The port that is seen outside is one for all destinations."
    HARD = "hard"
    "It is another for each destination."
    NOUDP = "noudp"
    "UDP does not pass."
    CGNAT = "cgnat"
    "As easy, and the address changes now and then."


class Node(Struct, frozen=True, forbid_unknown_fields=True):
    """This node."""

    nat: Nat = Nat.EASY
    keepalive: Span = default(10)
    "From one round of keepalive to the next; 0: there is none."
    settled: bool = True
    "It was up and kept its paths alive before it begins; else it was just started."
    start: Span = default(0.1)
    "From the stop of tailscaled to `Running`, where the control server answers."


class Watchdog(Struct, frozen=True, forbid_unknown_fields=True):
    """The timer of the watchdog."""

    interval: Span = default(60)
    jitter: Span = default(0.1)
    "By as much at most a run is late (`AccuracySec`)."


class Phone(Struct, frozen=True, forbid_unknown_fields=True):
    """A peer that comes and goes."""

    online: Range
    offline: Range


class Traffic(Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent to a peer, beside keepalive."""

    every: Range
    "From the end of one exchange to the beginning of the next."
    lasts: Range


class Peer(Struct, frozen=True, forbid_unknown_fields=True):
    """A peer, or `count` of them, which are `name-1` and so on."""

    name: Name
    count: Annotated[int, Meta(ge=1, le=10_000)] = 1
    nat: Nat = Nat.EASY
    os: str = "linux"
    relay: str = "fra"
    "Its home DERP region."
    serves_relay: bool = False
    "It is a peer relay: whoever cannot be direct, and has UDP, goes through it."
    mapping: Span = default(120)
    "How long the NATs in between remember a flow of packets."
    readdress: Range = span_range(6 * HOUR, 24 * HOUR)
    "Of `cgnat`: from one change of the address to the next."
    phone: Phone | None = None
    traffic: Traffic | None = None
    watchdog: bool = False
    "It runs keepalive and a watchdog with the documented policy itself."


class _Event(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    at: Span
    lasts: Length | None = None
    "None: for ever."
    repeat: Range | None = None
    "From its end to its next beginning."


class Stuck(_Event, frozen=True, tag_field="kind", tag="stuck"):
    """A direct path does not come about, and nobody knows why."""

    peers: tuple[Name, ...] | None = None
    "None: all."
    restart: Literal["cures", "cures-for", "nothing"] = "cures"
    "What a restart of tailscaled does about it, at the side where it is."
    cured: Range = span_range(HOUR / 2, 2 * HOUR)
    "For how long, of `cures-for`."
    side: Literal["near", "far"] = "near"


class UdpBlocked(_Event, frozen=True, tag_field="kind", tag="udp-blocked"):
    """A router drops UDP."""

    peers: tuple[Name, ...] | None = None
    "At theirs; None: at this node's."


class DerpOutage(_Event, frozen=True, tag_field="kind", tag="derp-outage"):
    """No relay can be reached: no new path comes about, and who is on relay does not answer."""


class ControlOutage(_Event, frozen=True, tag_field="kind", tag="control-outage"):
    """The control server cannot be reached: nobody learns who is online, and a tailscaled that is started has no peers."""


class DaemonDead(_Event, frozen=True, tag_field="kind", tag="daemon-dead"):
    """tailscaled is not there, and a restart of it does not help."""


class Offline(_Event, frozen=True, tag_field="kind", tag="offline"):
    """Peers are off. With a `lasts` of minutes it is a reboot."""

    peers: tuple[Name, ...] | None = None


class Suspend(_Event, frozen=True, tag_field="kind", tag="suspend"):
    """This node sleeps: no timer runs."""


class ClockStep(_Event, frozen=True, tag_field="kind", tag="clock-step"):
    """The wall clock of this node is set."""

    by: Annotated[float, Meta(ge=-1e9, le=1e9)]
    "Seconds."


class Readdress(_Event, frozen=True, tag_field="kind", tag="readdress"):
    """The address that peers have outside changes: the path is lost, and found again."""

    peers: tuple[Name, ...] | None = None


Event = (
    Stuck
    | UdpBlocked
    | DerpOutage
    | ControlOutage
    | DaemonDead
    | Offline
    | Suspend
    | ClockStep
    | Readdress
)


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """An imagined tailnet."""

    summary: str
    "The sentence that says what it shows."
    lasts: Span
    peers: Annotated[tuple[Peer, ...], Meta(min_length=1)]
    node: Node = Node()
    watchdog: Watchdog = Watchdog()
    events: tuple[Event, ...] = ()
    start: Annotated[int, Meta(ge=0, le=4102444800)] = 1767225600
    "Unix time at which it begins (2026-01-01)."


def read(raw: bytes, name: str) -> Result[Scenario, str]:
    """Reads a scenario from TOML. Fails in one line that has the file, the key and what it has to be."""
    try:
        scenario = msgspec.convert(tomllib.loads(raw.decode()), Scenario, dec_hook=_decode)
    except (
        tomllib.TOMLDecodeError,
        UnicodeDecodeError,
        msgspec.ValidationError,
        RecursionError,
    ) as error:
        return Failure(
            f"reading the scenario {name}: {one_line(str(error)).replace('$.', '')}; see `tsfc simulate --schema`"
        )
    names = {name for peer in scenario.peers for name in peer_names(peer)}
    if len(names) < sum(peer.count for peer in scenario.peers):
        return Failure(f"reading the scenario {name}: two peers have one name; give each its own")
    groups = names | {peer.name for peer in scenario.peers}
    for number, event in enumerate(scenario.events):
        unknown = sorted(set(getattr(event, "peers", None) or ()) - groups)
        if unknown:
            return Failure(
                f"reading the scenario {name}: events[{number}].peers: there is no peer {unknown[0]}; name one of [[peers]]"
            )
        if event.repeat is not None and event.lasts is None:
            return Failure(
                f"reading the scenario {name}: events[{number}]: what repeats has to end; give lasts"
            )
        if isinstance(event, Suspend) and event.lasts is None:
            return Failure(
                f"reading the scenario {name}: events[{number}]: a suspend has to end; give lasts"
            )
    return Success(scenario)


def find(name: str) -> Result[Scenario, str]:
    """Returns a scenario: a built-in one by its name, else what the file of that name holds."""
    if name in builtin():
        return Success(builtin()[name])
    try:
        with open(name, "rb") as file:
            raw = file.read()
    except OSError as error:
        return Failure(
            f"reading the scenario {name}: {error.strerror}; give a TOML file, or one of {', '.join(builtin())}"
        )
    return read(raw, name)


def schema() -> dict[str, Any]:
    """Returns the JSON Schema of scenarios."""
    return msgspec.json.schema(Scenario, schema_hook=_schema_of)


@functools.cache
def builtin() -> Mapping[str, Scenario]:
    """Returns the built-in scenarios by their names. An error in one is a bug."""
    directory = os.path.join(os.path.dirname(__file__), "scenarios")
    found: dict[str, Scenario] = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".toml"):
            with open(os.path.join(directory, name), "rb") as file:
                found[name.removesuffix(".toml")] = read(file.read(), name).unwrap()
    return found


def peer_names(peer: Peer) -> tuple[str, ...]:
    """Returns the names of the peers that a `[[peers]]` stands for."""
    return (
        (peer.name,)
        if peer.count == 1
        else tuple(f"{peer.name}-{number}" for number in range(1, peer.count + 1))
    )


def duration_seconds(scenario: Scenario) -> float:
    """Returns how long a scenario is."""
    return scenario.lasts


def _decode(kind: type, value: object) -> Span | Length:
    """Decode what msgspec does not know."""
    if kind is Span:
        return spans.parse(value)
    if isinstance(value, dict):
        return Length(msgspec.convert(value, Range, dec_hook=_decode))
    fixed = spans.parse(value)
    return Length(Range(fixed, fixed))


def _schema_of(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of what msgspec does not know."""
    if kind is Span:
        return spans.json_schema()
    return {"anyOf": [*spans.json_schema()["anyOf"], {"$ref": "#/$defs/Range"}]}
