"""The fields of tailscaled's status that are used.

Source: `ipn/ipnstate/ipnstate.go` of Tailscale v1.102.3. `tailscale status --json` and
the LocalAPI's `status` return the same JSON. Types have Tailscale's names, fields too,
in snake case. Every field has a default and unknown fields are ignored, because the
document "has changed between releases and might change more" (`tailscale status
--help`). Go encodes an empty slice or map as `null` or as empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import replace
from returns.result import Failure, Result, Success

from tsfc.core.faults import Unusable
from tsfc.core.tailscale.json_input import problem
from tsfc.core.text import one_line

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"Bytes; the non-negative part of Go's int64."
Timestamp = Annotated[datetime, Meta(tz=True)]

ZERO_TIME = datetime(1, 1, 1, tzinfo=UTC)
"Go's zero time, `0001-01-01T00:00:00Z` in JSON; it stands for never."
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


BACKEND_STATES = (
    "NoState",
    "InUseOtherUser",
    "NeedsLogin",
    "NeedsMachineAuth",
    "Stopped",
    "Starting",
    "Running",
)
"All known backend states (`stateStrings` in `ipn/backend.go`)."


class PeerStatus(Struct, frozen=True, kw_only=True):
    """A peer as the node sees it (`ipnstate.PeerStatus`); also the node itself."""

    id: str = field(default="", name="ID")
    "StableNodeID; unchanged by a rename or a new login."
    host_name: str = field(default="", name="HostName")
    "Hostname of the machine; arbitrary text, not unique."
    dns_name: str = field(default="", name="DNSName")
    "FQDN with a trailing dot; empty for Funnel ingress nodes."
    os: str = field(default="", name="OS")
    user_id: int = field(default=0, name="UserID")
    tailscale_ips: tuple[str, ...] | None = field(default=None, name="TailscaleIPs")
    tags: tuple[str, ...] | None = field(default=None, name="Tags")
    addrs: tuple[str, ...] | None = field(default=None, name="Addrs")
    "`ip:port` of each endpoint, those that STUN found, too; only of the node itself."
    cur_addr: str = field(default="", name="CurAddr")
    "`ip:port` of a direct path that a pong confirmed in the last 6.5 s; empty if idle."
    relay: str = field(default="", name="Relay")
    """Code of the home DERP region, set for nearly every peer.

    It does not mean that packets use the relay.
    """
    peer_relay: str = field(default="", name="PeerRelay")
    "`ip:port:vni:N` of a path through a peer relay (v1.86 and newer)."
    rx_bytes: Count = field(default=0, name="RxBytes")
    """WireGuard bytes received.

    Restarts at 0 after a long idle time, a restart of either side, or a new node key.
    """
    tx_bytes: Count = field(default=0, name="TxBytes")
    last_handshake: Timestamp = field(default=ZERO_TIME, name="LastHandshake")
    last_seen: Timestamp = field(default=ZERO_TIME, name="LastSeen")
    """Time when the control server last saw the peer.

    The zero time if the peer is online, or if the node is not permitted to know.
    """
    key_expiry: Timestamp | None = field(default=None, name="KeyExpiry")
    "Time when the node key expires; None if expiry is disabled, as for tagged nodes."
    online: bool | None = field(default=None, name="Online")
    """Whether the control server considers the peer online.

    Changes with a delay of minutes. False if the node is not permitted to know. For the
    node itself, false means that it has no connection to the control server, or that
    this is not known yet (v1.102.3: 105 to 134 s after the server went silent).
    """
    exit_node: bool = field(default=False, name="ExitNode")
    "Whether the peer is the exit node in use."
    exit_node_option: bool = field(default=False, name="ExitNodeOption")
    "Whether the node may use the peer as its exit node."
    active: bool = field(default=False, name="Active")
    """Whether the node sent the peer a packet in the last 45 s.

    A `tailscale ping` counts (`sessionActiveTimeout`).
    """
    sharee_node: bool = field(default=False, name="ShareeNode")
    """Whether the peer is known only because a node is shared with its owner.

    `tailscale status` hides it.
    """
    expired: bool = field(default=False, name="Expired")
    in_magic_sock: bool | None = field(default=None, name="InMagicSock")
    "Whether tailscaled looks for a path to the peer; None if the release does not say."


class TailnetStatus(Struct, frozen=True, kw_only=True):
    """The node's tailnet (`ipnstate.TailnetStatus`)."""

    magic_dns_suffix: str = field(default="", name="MagicDNSSuffix")


class UserProfile(Struct, frozen=True, kw_only=True):
    """The owner of a node (`tailcfg.UserProfile`)."""

    login_name: str = field(default="", name="LoginName")


class Status(Struct, frozen=True, kw_only=True):
    """The status of the node and its peers (`ipnstate.Status`)."""

    version: str = field(default="", name="Version")
    backend_state: str = field(default="", name="BackendState")
    "One of `BACKEND_STATES`."
    self_: PeerStatus = field(default_factory=PeerStatus, name="Self")
    health: tuple[str, ...] | None = field(default=None, name="Health")
    magic_dns_suffix: str = field(default="", name="MagicDNSSuffix")
    current_tailnet: TailnetStatus | None = field(default=None, name="CurrentTailnet")
    peer: Mapping[str, PeerStatus] | None = field(default=None, name="Peer")
    """Peers by node key.

    While the backend is stopped, tailscaled keeps reporting them with stale flags.
    """
    user: Mapping[str, UserProfile] | None = field(default=None, name="User")
    "Users by ID."
    problems: tuple[str, ...] = field(default=(), name="tsfc.problems")
    """One line for each part that could not be read, and is missing here.

    It is no part of the document: tailscaled has no field of that name.
    """


PROBLEMS_LIMIT = 5
"Number of unreadable parts that get a line each; one more line counts the others."

_YEAR_0 = re.compile(r"0000-\d\d-\d\dT")
_DECODER = msgspec.json.Decoder(Status)


def decode(raw: bytes) -> Result[Status, Unusable]:
    """Decode a status.

    `null` stands for the default of any field, and a time in year 0 for the zero time.
    A peer, a user or the node itself that cannot be read is left out, with a line in
    `problems`. Fails for a truncated, unrelated or too deeply nested document, and for
    anything that is not JSON.
    """
    try:
        status = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(_unreadable(raw, problem(bytes(raw), error)))  # it may be a `Raw`
    if not status.backend_state:
        return Failure(_unreadable(raw, "it has no BackendState"))
    return Success(status)


def is_running(status: Status) -> bool:
    """Whether the backend is Running; in any other state, peers' flags are stale."""
    return status.backend_state == "Running"


def handshake(peer: PeerStatus) -> float | None:
    """Unix time of the peer's last WireGuard handshake; None if there was none."""
    return _unix(peer.last_handshake)


def last_seen(peer: PeerStatus) -> float | None:
    """Unix time of the peer's last contact with the control server; None if unset."""
    return _unix(peer.last_seen)


def key_expiry(peer: PeerStatus) -> float | None:
    """Unix time when the node key expires; None if it never does."""
    return None if peer.key_expiry is None else _unix(peer.key_expiry)


def _decode(raw: bytes) -> Status:
    try:
        return _DECODER.decode(raw)
    except msgspec.ValidationError:
        document = _without_nulls(msgspec.json.decode(raw))
        if not isinstance(document, dict):
            raise
        return _convert(cast("dict[str, Any]", document))


def _without_nulls(value: object) -> object:
    """The value without `null` and without times in year 0."""
    match value:
        case dict():
            return {
                key: _without_nulls(item)
                for key, item in cast("dict[str, object]", value).items()
                if not _is_null(item)
            }
        case list():
            items = cast("list[object]", value)
            return [_without_nulls(item) for item in items if not _is_null(item)]
        case _:
            return value


def _is_null(value: object) -> bool:
    return value is None or (isinstance(value, str) and _YEAR_0.match(value) is not None)


def _convert(document: dict[str, Any]) -> Status:
    """Convert a status part by part. Raises ValidationError if it has no use at all."""
    problems: list[str] = []

    def readable(kind: type, parts: dict[str, Any], subject: str) -> dict[str, Any]:
        good: dict[str, Any] = {}
        for key, part in parts.items():
            try:
                good[key] = msgspec.convert(part, kind)
            except msgspec.ValidationError as error:
                label = _label(part) or key
                problems.append(
                    f"reading tailscaled's status: {subject} {one_line(label, 60)} is left out: "
                    f"{one_line(str(error), 120)}"
                )
        return good

    parts: dict[str, Any] = {}
    for name, kind, subject in (("Peer", PeerStatus, "peer"), ("User", UserProfile, "user")):
        of_kind = msgspec.convert(document.pop(name, {}), dict[str, Any])
        parts[name] = readable(kind, of_kind, subject)
    own = readable(PeerStatus, {"Self": document.pop("Self", {})}, "the node itself,")
    status = msgspec.convert(document, Status)
    more = len(problems) - PROBLEMS_LIMIT
    if more > 0:
        problems[PROBLEMS_LIMIT:] = [f"reading tailscaled's status: {more} more parts left out"]
    return replace(
        status,
        peer=parts["Peer"],
        user=parts["User"],
        self_=own.get("Self", PeerStatus()),
        problems=tuple(problems),
    )


def _label(part: object) -> str:
    """A name of a peer that cannot be read; empty if it has none."""
    if not isinstance(part, dict):
        return ""
    peer = cast("dict[str, object]", part)
    return next(
        (
            name
            for key in ("DNSName", "HostName")
            if isinstance(name := peer.get(key), str) and name
        ),
        "",
    )


def _unix(time: datetime) -> float | None:
    return None if time <= EPOCH else (time - EPOCH).total_seconds()


def _unreadable(raw: bytes, why: str) -> Unusable:
    return Unusable(
        f"reading tailscaled's status, {len(raw)} bytes: {why}; "
        "is it the output of `tailscale status --json`?"
    )
