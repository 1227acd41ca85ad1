from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import fields, replace
from returns.result import Failure

from support.corpus import BAD_STATUSES, DAMAGED_STATUSES, FIXTURES
from support.statuses import decoded, encoded, peer, status
from tsfc.core.tailscale.paths import classify
from tsfc.core.tailscale.status import (
    ZERO_TIME,
    PeerStatus,
    Status,
    TailnetStatus,
    UserProfile,
    decode,
    handshake,
    is_running,
    key_expiry,
    last_seen,
)

IGNORED: dict[type[Struct], dict[str, str]] = {
    Status: {
        "TUN": "how tailscaled reaches the kernel is irrelevant to peers",
        "HaveNodeKey": "BackendState says it",
        "AuthURL": "a secret during a login",
        "TailscaleIPs": "those of Self",
        "ExitNodeStatus": "the peer's ExitNode says which it is",
        "CertDomains": "certificates are not used",
        "ExtraRecords": "names are not resolved",
        "ClientVersion": "updates are left to the package manager",
    },
    PeerStatus: {
        "NodeID": "ID is the stable one",
        "PublicKey": "the key of the map; changes at each login",
        "AllowedIPs": "routes are not used",
        "Created": "not used yet",
        "LastWrite": "Active is derived from it",
        "PeerAPIURL": "not used to reach peers",
        "TaildropTarget": "files are not sent",
        "NoFileSharingReason": "files are not sent",
        "Capabilities": "deprecated by CapMap",
        "CapMap": "permissions, not facts",
        "InNetworkMap": "true for every peer in the map",
        "InEngine": "false for every idle peer",
    },
    TailnetStatus: {
        "Name": "for people; often an email address",
        "MagicDNSEnabled": "names are labels, not resolved",
    },
    UserProfile: {
        "ID": "the key of the map",
        "DisplayName": "LoginName is the one that is unique",
        "ProfilePicURL": "pictures are not shown",
    },
}
"Fields of tailscaled's JSON that are not read, and why."


def captured() -> list[dict[str, Any]]:
    documents = [
        json.loads((FIXTURES / name).read_bytes()) for name in ("mixed-paths.json", "stopped.json")
    ]
    return documents + [
        json.loads(line)["status"]
        for line in (FIXTURES / "timeline.ndjson").read_bytes().splitlines()
    ]


def keys_of(kind: type[Struct]) -> set[str]:
    """Return the keys of all objects of one type in the captured statuses."""
    objects: dict[type[Struct], list[dict[str, Any]]] = {
        Status: captured(),
        PeerStatus: [
            node
            for document in captured()
            for node in (document["Self"], *document["Peer"].values())
        ],
        TailnetStatus: [document["CurrentTailnet"] for document in captured()],
        UserProfile: [user for document in captured() for user in document["User"].values()],
    }
    return {key for found in objects[kind] for key in found}


def mirrored(kind: type[Struct]) -> set[str]:
    return {field.encode_name for field in fields(kind)} - {"tsfc.problems"}


@pytest.mark.parametrize("kind", IGNORED)
def test_every_captured_key_is_read_or_ignored_for_a_reason(kind: type[Struct]) -> None:
    """New fields in a capture of a newer tailscaled fail this test."""
    assert keys_of(kind) - mirrored(kind) == set(IGNORED[kind])


@pytest.mark.parametrize(
    ("kind", "rare"), [(Status, ()), (PeerStatus, ()), (TailnetStatus, ()), (UserProfile, ())]
)
def test_every_field_is_in_a_capture(kind: type[Struct], rare: tuple[str, ...]) -> None:
    """`rare` are fields that Go omits when empty and that no capture has."""
    assert mirrored(kind) - keys_of(kind) == set(rare)


def test_a_captured_status_is_decoded_field_by_field() -> None:
    """From tailscaled v1.102.3; measured values are compared with the file."""
    raw = (FIXTURES / "mixed-paths.json").read_bytes()
    status, document = decode(raw).unwrap(), json.loads(raw)
    assert (status.version, status.backend_state, status.magic_dns_suffix) == (
        "1.102.3-ERR-BuildInfo",
        "Running",
        "lab.ts.net",
    )
    assert (status.health, status.current_tailnet, status.self_.host_name) == (
        (),
        TailnetStatus(magic_dns_suffix="lab.ts.net"),
        "alpha",
    )
    assert status.user == {"123": UserProfile(login_name="user-123@fake-control.example.net")}
    by_name = {peer.host_name: peer for peer in (status.peer or {}).values()}
    assert sorted(by_name) == [
        "bravo",
        "carol",
        "delta",
        "echo",
        "foxtrot",
        "golf",
        "hotel",
        "india",
    ]
    (measured,) = [peer for peer in document["Peer"].values() if peer["HostName"] == "carol"]
    assert measured["RxBytes"] > 0 < measured["TxBytes"]
    assert by_name["carol"] == PeerStatus(
        id="TESTCTRL00000003",
        host_name="carol",
        dns_name="carol.lab.ts.net.",
        os="linux",
        user_id=123,
        tailscale_ips=("100.64.0.3", "fd7a:115c:a1e0:ab12:4843:cd96:6240:3"),
        tags=("tag:exit", "tag:server"),
        cur_addr="192.0.2.4:41641",
        relay="fra",
        rx_bytes=measured["RxBytes"],
        tx_bytes=measured["TxBytes"],
        last_handshake=by_name["carol"].last_handshake,
        online=True,
        active=True,
        exit_node=True,
        in_magic_sock=True,
        exit_node_option=True,
    )
    assert abs(
        by_name["carol"].last_handshake - datetime.fromisoformat(measured["LastHandshake"])
    ) <= timedelta(microseconds=1)
    assert {name: classify(peer).value for name, peer in by_name.items()} == {
        "bravo": "direct",
        "carol": "direct",
        "delta": "derp",
        "echo": "peer_relay",
        "foxtrot": "idle",
        "golf": "offline",
        "hotel": "idle",
        "india": "idle",
    }
    assert [peer.host_name for peer in by_name.values() if peer.expired or peer.sharee_node] == [
        "hotel",
        "india",
    ]


def test_a_captured_stopped_status_is_not_running() -> None:
    """A stopped tailscaled still reports its peers; their flags are stale."""
    status = decode((FIXTURES / "stopped.json").read_bytes()).unwrap()
    assert (status.backend_state, status.health, len(status.peer or {})) == (
        "Stopped",
        ("Tailscale is stopped.",),
        8,
    )
    assert not is_running(status)


@pytest.mark.parametrize(
    ("state", "running"),
    [
        ("NoState", False),
        ("InUseOtherUser", False),
        ("NeedsLogin", False),
        ("NeedsMachineAuth", False),
        ("Stopped", False),
        ("Starting", False),
        ("Running", True),
        ("running", False),
        ("Novel", False),
    ],
)
def test_only_the_state_running_is_running(state: str, *, running: bool) -> None:
    """In every other state, known or not, the peers' flags are stale."""
    assert is_running(decoded(BackendState=state)) is running


def test_every_field_but_the_state_has_a_default() -> None:
    """A document with only a state is a status: fields come and go between releases."""
    nothing = decode(
        b'{"BackendState": "Running", "Self": {}, "Peer": {"nodekey:1": {}},'
        b' "CurrentTailnet": {}, "User": {"1": {}}}'
    ).unwrap()
    assert nothing == Status(
        version="",
        backend_state="Running",
        self_=PeerStatus(),
        health=None,
        magic_dns_suffix="",
        current_tailnet=TailnetStatus(magic_dns_suffix=""),
        peer={"nodekey:1": PeerStatus()},
        user={"1": UserProfile(login_name="")},
    )
    assert decode(b'{"BackendState": "Stopped"}').unwrap() == Status(backend_state="Stopped")
    assert PeerStatus() == PeerStatus(
        id="",
        host_name="",
        dns_name="",
        os="",
        user_id=0,
        tailscale_ips=None,
        tags=None,
        cur_addr="",
        relay="",
        peer_relay="",
        rx_bytes=0,
        tx_bytes=0,
        last_handshake=ZERO_TIME,
        online=None,
        exit_node=False,
        active=False,
        sharee_node=False,
        expired=False,
        in_magic_sock=None,
    )


FULL: dict[str, Any] = {
    "ID": "nABC",
    "HostName": "rpi3",
    "DNSName": "rpi3.tail1.ts.net.",
    "OS": "linux",
    "UserID": 7,
    "TailscaleIPs": ["100.64.0.2"],
    "Tags": ["tag:a"],
    "Addrs": ["192.0.2.1:41641"],
    "CurAddr": "192.0.2.7:41641",
    "Relay": "fra",
    "PeerRelay": "192.0.2.9:7777:vni:1",
    "RxBytes": 1,
    "TxBytes": 2,
    "LastHandshake": "2026-11-23T12:53:51Z",
    "LastSeen": "2026-11-23T12:53:52Z",
    "KeyExpiry": "2026-11-23T12:53:53Z",
    "Online": True,
    "ExitNode": True,
    "ExitNodeOption": True,
    "Active": True,
    "ShareeNode": True,
    "Expired": True,
    "InMagicSock": True,
}


def decoded_node(document: dict[str, Any]) -> PeerStatus:
    return decoded(Self=document).self_


@pytest.mark.parametrize("key", FULL)
def test_each_field_is_read_from_its_own_key_only(key: str) -> None:
    """Without the key, the field has its default and the other fields are unchanged."""
    [field] = [field for field in fields(PeerStatus) if field.encode_name == key]
    without = decoded_node({name: value for name, value in FULL.items() if name != key})
    assert getattr(decoded_node(FULL), field.name) != field.default
    assert without == replace(decoded_node(FULL), **{field.name: field.default})


def test_the_example_peer_has_every_field() -> None:
    assert set(FULL) == mirrored(PeerStatus)


@pytest.mark.parametrize(
    ("key", "attribute"),
    [
        ("Health", "health"),
        ("Peer", "peer"),
        ("User", "user"),
        ("CurrentTailnet", "current_tailnet"),
    ],
    ids=str,
)
def test_null_in_a_status_is_none(key: str, attribute: str) -> None:
    """Go prints an empty slice, map or pointer as null."""
    assert getattr(decoded(**{key: None}), attribute) is None


@pytest.mark.parametrize("key", ["Addrs", "TailscaleIPs", "Tags"])
def test_null_in_a_peer_is_the_default(key: str) -> None:
    """Go prints an empty slice as null."""
    assert decoded_node(FULL | {key: None}) == decoded_node(
        {name: value for name, value in FULL.items() if name != key}
    )


def test_unknown_fields_are_ignored() -> None:
    """A newer tailscaled may add fields of any type, anywhere."""
    known = status(peer("rpi3"))
    more: dict[str, Any] = {
        "Novelty": {"a": [1, None, "x"]},
        "online": 7,
        "sshHostKeys": ["ssh-ed25519 AAAA"],
    }
    extended = (
        known
        | more
        | {
            "Peer": {key: value | more for key, value in known["Peer"].items()},
            "Self": known["Self"] | more,
        }
    )
    assert decode(json.dumps(extended).encode()) == decode(json.dumps(known).encode())


@pytest.mark.parametrize("name", BAD_STATUSES)
def test_an_invalid_status_is_a_one_line_error(name: str) -> None:
    """The line is printable and states what was read, what is wrong and what to do."""
    result = decode(BAD_STATUSES[name])
    assert isinstance(result, Failure)
    detail = result.failure().detail
    assert detail.isprintable()
    assert detail.startswith(f"reading tailscaled's status, {len(BAD_STATUSES[name])} bytes: ")
    assert detail.endswith("; is it the output of `tailscale status --json`?")
    assert len(detail) < 500


@pytest.mark.parametrize("name", DAMAGED_STATUSES)
def test_an_unreadable_part_costs_only_itself_and_one_line(name: str) -> None:
    """`null` and a time in year 0 are no damage: they stand for the default."""
    result = decode(DAMAGED_STATUSES[name]).unwrap()
    is_default = "null" in name or name == "time-in-year-0"
    assert len(result.problems) == (0 if is_default else 1)
    assert all(problem.isprintable() for problem in result.problems)
    if "peer rpi3" in "".join(result.problems):
        assert [peer.host_name for peer in (result.peer or {}).values()] == ["rpi4"]


def test_the_line_about_an_unreadable_peer_names_it() -> None:
    (problem,) = decode(encoded(peer("rpi3", Online=1), peer("rpi4"))).unwrap().problems
    assert problem == (
        "reading tailscaled's status: peer rpi3.tail1.ts.net. is left out: "
        "Expected `bool | null`, got `int` - at `$.Online`"
    )


def test_null_is_the_default_of_every_field_of_a_peer() -> None:
    assert decoded_node(dict.fromkeys(FULL)) == PeerStatus()


def test_an_unreadable_self_is_an_empty_one() -> None:
    damaged = decode(encoded(peer("rpi3"), Self={"Online": "?"})).unwrap()
    assert damaged.self_ == PeerStatus()
    assert len(damaged.problems) == 1


def test_at_most_six_lines_tell_of_unreadable_parts() -> None:
    peers = [peer(f"p{number}", Online=1) for number in range(7)]
    problems = decode(encoded(*peers)).unwrap().problems
    assert len(problems) == 6
    assert problems[-1] == "reading tailscaled's status: 2 more parts left out"


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        pytest.param(b"", ": it is empty; ", id="empty"),
        pytest.param(b"Hi", ': it is not JSON, but: "Hi"; ', id="text"),
        pytest.param(b"{}", "it has no BackendState", id="no-state"),
        pytest.param(b"[]", "Expected `object`, got `array`", id="array"),
        pytest.param(encoded(Health=1), "Expected `array | null`, got `int`", id="retyped"),
    ],
)
def test_the_error_quotes_the_decoder(raw: bytes, problem: str) -> None:
    """With the place in the document."""
    assert problem in decode(raw).failure().detail


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("0001-01-01T00:00:00-14:00", None),
        ("1969-12-31T23:59:59.999Z", None),
        ("1970-01-01T00:00:00Z", None),
        ("1970-01-01T01:00:00+01:00", None),
        ("1970-01-01T00:00:01Z", 1.0),
        ("2026-11-23T12:53:51Z", 1795438431.0),
        ("2026-11-23T13:53:51+01:00", 1795438431.0),
        ("2026-11-23T05:53:51-07:00", 1795438431.0),
        ("2026-11-23T18:38:51+05:45", 1795438431.0),
        ("2026-11-23T12:53:51.5Z", 1795438431.5),
        ("2026-11-23T12:53:51.522548716Z", 1795438431.522549),
        ("2026-11-23T05:53:51.522548716-07:00", 1795438431.522549),
        ("2026-11-23T12:53:51.999999999Z", 1795438432.0),
        ("9999-12-31T23:59:59-12:00", 253402343999.0),
    ],
)
def test_a_handshake_is_unix_time_or_none(time: str, seconds: float | None) -> None:
    """To the microsecond, in any zone; Go's zero time, in any zone, is None."""
    assert handshake(decoded_node({"LastHandshake": time})) == seconds


def test_a_peer_without_a_handshake_has_none() -> None:
    """A missing key has the zero time."""
    assert handshake(PeerStatus()) is None


def test_the_zone_does_not_change_the_time_of_a_handshake() -> None:
    zones = [timezone(timedelta(hours=hours)) for hours in range(-12, 15)]
    instant = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    assert {handshake(PeerStatus(last_handshake=instant.astimezone(zone))) for zone in zones} == {
        instant.timestamp()
    }


def test_a_status_is_immutable() -> None:
    status = decoded()
    with pytest.raises(AttributeError):
        status.version = "2"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - that is the point
    assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_zero_times_are_none(at: str) -> None:
    """Go's zero time stands for never."""
    node = decoded_node({"LastHandshake": at, "LastSeen": at, "KeyExpiry": at})
    assert (handshake(node), last_seen(node), key_expiry(node)) == (None, None, None)
    assert key_expiry(decoded_node({})) is None


def test_times_are_unix_times() -> None:
    node = decoded_node(FULL)
    assert [handshake(node), last_seen(node), key_expiry(node)] == [
        1795438431,
        1795438432,
        1795438433,
    ]
