"""The part of tailscaled's status that is used.

Source: `ipn/ipnstate/ipnstate.go` of Tailscale v1.102.3; `tailscale status --json` and the LocalAPI's `status` are both
its JSON. Types carry its names, fields its names in snake case. Every field has a default and unknown ones are
ignored, for the document "has changed between releases and might change more" (`tailscale status --help`). Go prints
an empty slice or map as `null` as often as not.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field
from returns.result import Failure, Result, Success

from tsfc.core.faults import Unusable
from tsfc.core.text import one_line

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"A number of bytes (Go's int64)."
Timestamp = Annotated[datetime, Meta(tz=True)]

ZERO_TIME = datetime(1, 1, 1, tzinfo=UTC)
"Go's zero time, which JSON shows as `0001-01-01T00:00:00Z`: never."
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
"All there are (`stateStrings` in `ipn/backend.go`)."


class PeerStatus(Struct, frozen=True, kw_only=True):
    """One node as this one sees it (`ipnstate.PeerStatus`)."""

    id: str = field(default="", name="ID")
    "StableNodeID: stays when the node is renamed or logs in again."
    host_name: str = field(default="", name="HostName")
    "What the machine calls itself; anything, and not unique."
    dns_name: str = field(default="", name="DNSName")
    "FQDN with a dot at its end; empty for Funnel ingress nodes."
    os: str = field(default="", name="OS")
    user_id: int = field(default=0, name="UserID")
    tailscale_ips: tuple[str, ...] | None = field(default=None, name="TailscaleIPs")
    tags: tuple[str, ...] | None = field(default=None, name="Tags")
    cur_addr: str = field(default="", name="CurAddr")
    "`ip:port` of a direct path that a pong confirmed in the last 6.5 s; empty for every idle peer, too."
    relay: str = field(default="", name="Relay")
    "Code of the peer's home DERP region. Nearly always set: it never means that the relay is in use."
    peer_relay: str = field(default="", name="PeerRelay")
    "`ip:port:vni:N` of a path through a peer relay (v1.86 and newer)."
    rx_bytes: Count = field(default=0, name="RxBytes")
    "WireGuard bytes received; starts again at 0 whenever the peer was idle for long, either side restarted, or the key changed."
    tx_bytes: Count = field(default=0, name="TxBytes")
    last_handshake: Timestamp = field(default=ZERO_TIME, name="LastHandshake")
    last_seen: Timestamp = field(default=ZERO_TIME, name="LastSeen")
    "When the control server last saw it; of one that is online, and where it may not be known, the zero time."
    key_expiry: Timestamp | None = field(default=None, name="KeyExpiry")
    "When its node key expires; None where that is switched off, as of tagged nodes."
    online: bool = field(default=False, name="Online")
    "The control server's opinion, which lags by minutes; false also where it may not be known."
    exit_node: bool = field(default=False, name="ExitNode")
    "Is the exit node in use."
    active: bool = field(default=False, name="Active")
    "A packet or a `tailscale ping` was sent to it in the last 45 s (`sessionActiveTimeout`)."
    sharee_node: bool = field(default=False, name="ShareeNode")
    "Is in the map only because something of ours is shared to it; `tailscale status` hides it."
    expired: bool = field(default=False, name="Expired")


class TailnetStatus(Struct, frozen=True, kw_only=True):
    """The tailnet that the node is in (`ipnstate.TailnetStatus`)."""

    magic_dns_suffix: str = field(default="", name="MagicDNSSuffix")


class UserProfile(Struct, frozen=True, kw_only=True):
    """A user by its ID (`tailcfg.UserProfile`)."""

    login_name: str = field(default="", name="LoginName")


class Status(Struct, frozen=True, kw_only=True):
    """What tailscaled says of itself and of its peers (`ipnstate.Status`)."""

    version: str = field(default="", name="Version")
    backend_state: str = field(default="", name="BackendState")
    "One of `BACKEND_STATES`."
    self_: PeerStatus = field(default_factory=PeerStatus, name="Self")
    health: tuple[str, ...] | None = field(default=None, name="Health")
    magic_dns_suffix: str = field(default="", name="MagicDNSSuffix")
    current_tailnet: TailnetStatus | None = field(default=None, name="CurrentTailnet")
    peer: Mapping[str, PeerStatus] | None = field(default=None, name="Peer")
    "By node key. Kept, with flags that no longer hold, while the backend is stopped."
    user: Mapping[str, UserProfile] | None = field(default=None, name="User")


_DECODER = msgspec.json.Decoder(Status)


def decode(raw: bytes) -> Result[Status, Unusable]:
    """Reads a status. Fails, in one line, for whatever is not one: cut off, not JSON, another type, another document, too deeply nested."""
    try:
        status = _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Failure(_unreadable(raw, str(error)))
    if not status.backend_state:
        return Failure(_unreadable(raw, "it has no BackendState"))
    return Success(status)


def is_running(status: Status) -> bool:
    """Reports whether what the status says of its peers is true now. In every other state their flags are stale or absent."""
    return status.backend_state == "Running"


def handshake(peer: PeerStatus) -> float | None:
    """Returns the Unix time of the peer's last WireGuard handshake; None where there was none since tailscaled knows it."""
    return _unix(peer.last_handshake)


def last_seen(peer: PeerStatus) -> float | None:
    """Returns the Unix time at which the control server last saw a peer that is offline; None where it does not say."""
    return _unix(peer.last_seen)


def key_expiry(peer: PeerStatus) -> float | None:
    """Returns the Unix time at which the node's key expires; None where it never does."""
    return None if peer.key_expiry is None else _unix(peer.key_expiry)


def _unix(time: datetime) -> float | None:
    return None if time <= EPOCH else (time - EPOCH).total_seconds()


def _unreadable(raw: bytes, problem: str) -> Unusable:
    return Unusable(
        f"reading tailscaled's status, {len(raw)} bytes: {one_line(problem)}; is it the output of `tailscale status --json`?"
    )
