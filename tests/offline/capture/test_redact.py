"""A redacted capture has no names, and the watchdog decides on it the same."""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from support.captures import START, TIMELINE
from support.processes import run
from support.statuses import encoded, peer, status
from tsfc.core.clock import Boot, Instant
from tsfc.core.evaluation.observation import Observation
from tsfc.core.tailscale.paths import classify
from tsfc.core.tailscale.peers import is_watched, named, unwatched
from tsfc.core.tailscale.status import Status, decode
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import step
from tsfc.offline.capture.redact import BACKEND_STATES, _feistel, fault, redacted

FIXTURES = sorted((Path(__file__).parents[2] / "fixtures").glob("*.json"))
KEY = b"the key of the tests"
NAME_FIELDS = {
    "ID",
    "PublicKey",
    "HostName",
    "DNSName",
    "LoginName",
    "DisplayName",
    "Name",
    "MagicDNSSuffix",
    "CurAddr",
    "PeerRelay",
    "ProfilePicURL",
}
LIST_FIELDS = {
    "TailscaleIPs",
    "AllowedIPs",
    "Tags",
    "Addrs",
    "PrimaryRoutes",
    "CertDomains",
    "PeerAPIURL",
    "Health",
    "sshHostKeys",
}
PUBLIC = {"0.0.0.0/0", "::/0", "mullvad", "hello", "hello.ts.net.", "tag:", "User"}
"Default routes, Tailscale's own domain, and names that are also words of a status."


def _redact(document: bytes, key: bytes = KEY) -> bytes:
    return bytes(redacted(Observation(START, status=Raw(document)), key).status)


def _originals(value: Any, name: str = "") -> Iterator[str]:
    """Return all names, and the labels of each DNS name."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        for key, one in fields.items():
            if name in {"Peer", "User"}:
                yield key
            yield from _originals(one, key)
    elif isinstance(value, list) and name in LIST_FIELDS:
        yield from (one for one in cast("list[object]", value) if isinstance(one, str))
    elif isinstance(value, str) and name in NAME_FIELDS:
        yield value
        if name == "DNSName":
            yield from value.split(".")


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_no_name_of_the_original_is_left(path: Path) -> None:
    """The shortest names are not looked for: any text contains them."""
    document = path.read_bytes()
    out = _redact(document).decode()
    originals = {text for text in _originals(json.loads(document)) if len(text) > 3} - PUBLIC
    assert [text for text in originals if json.dumps(text)[1:-1] in out or text in out] == []


def test_the_fixtures_contain_names_of_each_kind() -> None:
    """Otherwise the test above would prove nothing."""
    originals = [set(_originals(json.loads(path.read_bytes()))) for path in FIXTURES]
    assert sum(map(len, originals)) > 200
    assert any(text.startswith("nodekey:") for texts in originals for text in texts)
    assert any(text.startswith("tag:") for texts in originals for text in texts)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_the_watchdog_decides_the_same(path: Path) -> None:
    document = path.read_bytes()
    before, after = decode(document).unwrap(), decode(_redact(document)).unwrap()
    assert _decisions(before) == _decisions(after)
    assert (before.health is None, len(before.health or ())) == (
        after.health is None,
        len(after.health or ()),
    )


def _decisions(observed: Status) -> tuple[object, ...]:
    transition = step(State(), Observed(observed), now=Instant(START), policy=ThresholdPolicy())
    peers = named(observed)
    return (
        Counter(verdict.reason for verdict in transition.verdicts or ()),
        Counter((classify(one.status), is_watched(one.status, ())) for one in peers),
        len({one.name for one in peers}),
        observed.backend_state,
    )


def test_equal_stays_equal_and_different_stays_different() -> None:
    """A name, suffix, key or user has the same pseudonym in all places."""
    document = status(
        peer("rpi3", PublicKey="nodekey:0", UserID=7),
        peer("nas"),
        User={"7": {"ID": 7, "LoginName": "a@example.com"}},
    )
    document["Peer"] = {
        "nodekey:0": document["Peer"][f"nodekey:{0:064x}"],
        "nodekey:1": document["Peer"][f"nodekey:{1:064x}"],
    }
    out = json.loads(_redact(json.dumps(document).encode()))
    (first_key, first), (second_key, second) = out["Peer"].items()
    assert first["DNSName"].partition(".")[0] == first["HostName"] != second["HostName"]
    assert (
        first["DNSName"].partition(".")[2]
        == second["DNSName"].partition(".")[2]
        == out["MagicDNSSuffix"] + "."
    )
    assert re.fullmatch(r"n[0-9a-f]{16}\.n[0-9a-f]{16}\.ts\.net\.", first["DNSName"])
    assert first["PublicKey"] == first_key != second_key
    assert out["User"][str(first["UserID"])]["ID"] == first["UserID"]
    assert re.fullmatch(
        r"n[0-9a-f]{16}@n[0-9a-f]{16}\.n[0-9a-f]{16}",
        out["User"][str(first["UserID"])]["LoginName"],
    )


NODE_KEY = f"nodekey:{7:064x}"
VECTORS: list[tuple[str, Any, Any]] = [
    ("HostName", "rpi3", "nd436da46e916766f"),
    ("DNSName", "rpi3.tail1234.ts.net.", "nd436da46e916766f.ncd376f6038ed83d9.ts.net."),
    (
        "DNSName",
        "nas.corp.example.com",
        "n9c2b582657b2518e.nf73dea727a2dc1e1.nfb48ecdd925e0e55.n587275e7ce618d5d",
    ),
    ("ID", "nTvX8k2CNTRL", "n9d6fca6bf8289fdeCNTRL"),
    (
        "PublicKey",
        NODE_KEY,
        "nodekey:2c2e88561a6fc4a293e1b0aeb480054881330b26e7d6202179fc2ed7d9589af5",
    ),
    ("UserID", 7, 148874610606747),
    ("Tags", ["tag:server"], ["tag:n2ff243bc5d5dab93"]),
    ("OS", "corp-os", "nfc37df1b6c560dbc"),
    ("Relay", "corphq", "n14353296cc81da05"),
    (
        "TailscaleIPs",
        ["100.100.1.2", "fd7a:115c:a1e0::1"],
        ["100.125.106.72", "fd7a:115c:a1e0:b1a7:3235:8450:7215:aa08"],
    ),
    (
        "Addrs",
        ["192.168.1.2:41641", "10.1.2.3:1", "172.16.0.1:2", "169.254.7.7:3"],
        ["192.168.225.206:41641", "10.156.80.159:1", "172.26.49.51:2", "169.254.163.152:3"],
    ),
    (
        "Addrs",
        ["192.0.2.7:41641", "9.255.255.255:5", "[2001:db8::1]:41641", "[fe80::1]:1"],
        [
            "197.5.225.236:41641",
            "15.172.160.9:5",
            "[21e1:de47:3747:7e8c:5da2:adca:2991:a89b]:41641",
            "[fea5:4af7:6822:7b:9f2b:d689:ea72:bb70]:1",
        ],
    ),
    (
        "AllowedIPs",
        ["192.168.1.0/24", "100.100.1.2/32", "0.0.0.0/0"],
        ["192.168.127.0/24", "100.125.106.72/32", "0.0.0.0/0"],
    ),
    ("PeerRelay", "192.0.2.9:7777:vni:5", "195.153.129.10:7777:vni:5"),
]
"A field, its value, and its pseudonym under `KEY`."


@pytest.mark.parametrize(("name", "value", "pseudonym"), VECTORS)
def test_a_pseudonym_is_the_same_in_every_release(name: str, value: Any, pseudonym: Any) -> None:
    """A changed construction would change the pseudonyms of one key."""
    assert _peer_field(name, value) == pseudonym


def test_another_key_gives_other_pseudonyms() -> None:
    document = encoded(peer("rpi3"))
    assert _redact(document, b"another key") != _redact(document)


def test_the_network_is_a_permutation() -> None:
    """Shown for all numbers of a small range; the construction is the same for all."""
    numbers = [_feistel(number, 8, KEY, "range") for number in range(256)]
    assert sorted(numbers) == list(range(256))
    assert numbers != [_feistel(number, 8, KEY, "other range") for number in range(256)]


def _peer_field(name: str, value: Any) -> Any:
    """Return the pseudonym of a field of a peer."""
    out = json.loads(_redact(json.dumps(status(peer("a", **{name: value}))).encode()))
    (only,) = out["Peer"].values()
    return only[name]


def _status_field(name: str, value: object) -> Any:
    """Return the pseudonym of a field of the status."""
    return json.loads(_redact(json.dumps(status(**{name: value})).encode()))[name]


@pytest.mark.parametrize(
    "version",
    [
        "1.78.3",
        "1.102.3-t53a0d659a-g5e1bd4a22",
        "1.102.3-t53a0d659a",
        "1.102.3-17-t53a0d659a-g5e1bd4a22",
        "1.90.0-dev20251103-t53a0d659a",
        "1.90.0-dev20251103-t53a0d659a-dirty",
        "1.90.0-dev20251103",
        "1.102.3-ERR-BuildInfo",
    ],
)
def test_a_version_of_tailscale_is_kept(version: str) -> None:
    assert _status_field("Version", version) == version


@pytest.mark.parametrize(
    ("version", "form"),
    [
        ("1.90.0-corpbuild-alice", r"1\.90\.0-n[0-9a-f]{16}"),
        ("1.80.3-1 (OpenWrt)", r"1\.80\.3-n[0-9a-f]{16}"),
        ("1.102.3\n-evil", r"n[0-9a-f]{16}"),
        ("1.102.3-t53a0d659a-gbobs-mac", r"1\.102\.3-n[0-9a-f]{16}"),
        ("10.11.12.13", r"n[0-9a-f]{16}"),
        ("10.11.12-x", r"n[0-9a-f]{16}"),
        ("alice.smith", r"n[0-9a-f]{16}"),
        ("1.78.3\n", r"n[0-9a-f]{16}"),
    ],
)
def test_of_any_other_version_only_the_release_is_kept(version: str, form: str) -> None:
    assert re.fullmatch(form, _status_field("Version", version))


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("OS", ["linux", "windows", "macOS", "iOS", "tvOS", "android", "freebsd", "js", ""]),
        ("Relay", ["fra", "nyc", "hel", "nai", ""]),
    ],
)
def test_the_systems_and_regions_of_tailscale_are_kept(name: str, known: list[str]) -> None:
    assert [_peer_field(name, value) for value in known] == known


@pytest.mark.parametrize("state", sorted(BACKEND_STATES))
def test_a_backend_state_of_tailscale_is_kept(state: str) -> None:
    assert _status_field("BackendState", state) == state


@pytest.mark.parametrize("name", ["OS", "Relay", "BackendState"])
@pytest.mark.parametrize("value", ["bobs-laptop.corp", "10.11.12.13", "corp", "Linux", "fra\n"])
def test_any_other_system_region_or_state_gets_a_pseudonym(name: str, value: str) -> None:
    field = _status_field if name == "BackendState" else _peer_field
    assert re.fullmatch(r"n[0-9a-f]{16}", field(name, value))


@pytest.mark.parametrize("time", ["2026-11-23T12:58:12.123456789Z", "0001-01-01T00:00:00+09:00"])
def test_a_time_is_kept(time: str) -> None:
    assert _peer_field("LastSeen", time) == time


@pytest.mark.parametrize("time", ["192.168.77.9", "+49-170-1234567", "yesterday"])
def test_a_time_in_another_form_is_removed(time: str) -> None:
    assert _peer_field("LastSeen", time) is None


@pytest.mark.parametrize(
    "network",
    [
        "192.168.0.0/16",
        "100.64.0.0/10",
        "10.0.0.0/8",
        "8.8.0.0/16",
        "fd7a:115c:a1e0::/48",
        "2001:db8::/32",
        "fe80::/10",
    ],
)
def test_addresses_stay_valid_and_of_their_kind_and_no_two_become_one(network: str) -> None:
    addresses = [str(ipaddress.ip_network(network)[number * 7]) for number in range(3000)]
    texts = _peer_field("TailscaleIPs", addresses)
    pseudonyms = [ipaddress.ip_address(text) for text in texts]
    assert len(set(pseudonyms)) == len(addresses)
    first = ipaddress.ip_address(addresses[1])
    assert (
        all(
            (one.version, one.is_private, one.is_link_local)
            == (first.version, first.is_private, first.is_link_local)
            for one in pseudonyms
        )
        or network[0] in "82"
    )


def test_a_public_address_stays_outside_of_the_private_ranges() -> None:
    """One of 16 leaves it at the first permutation: 10.0.0.0/8 is near 8.8.0.0/16."""
    addresses = [f"8.8.{number // 256}.{number % 256}" for number in range(1000)]
    pseudonyms = [ipaddress.ip_address(text) for text in _peer_field("TailscaleIPs", addresses)]
    assert len(set(pseudonyms)) == len(addresses)
    assert not any(one in ipaddress.ip_network("10.0.0.0/8") for one in pseudonyms)


@pytest.mark.parametrize(
    "text", ["192.0.2.7:41641", "[2001:db8::1]:41641", "192.0.2.9:7777:vni:5", "what is this"]
)
def test_an_endpoint_keeps_its_form_and_is_never_empty(text: str) -> None:
    pseudonym = _peer_field("CurAddr", text)
    assert pseudonym not in {"", text}
    address = re.compile(r"[0-9a-f:.]*[0-9a-f]\]|^[0-9.]+")
    assert address.sub("", pseudonym) == address.sub("", text) or text == "what is this"


def test_a_fault_keeps_its_words_and_loses_its_names() -> None:
    text = (
        "asking tailscaled for status over /home/alice/ts.sock: Permission denied; see `id bob` "
        "on nas.example.com or 192.0.2.7:80"
    )
    out = fault(text, KEY)
    assert out.startswith("asking tailscaled for status over [")
    assert "Permission denied" in out
    assert not any(name in out for name in ("alice", "bob", "nas", "example", "192"))
    known = (
        "asking tailscaled for status over /var/run/tailscale/tailscaled.sock: Connection refused"
    )
    assert fault(known, KEY) == known


SOCKET = "asking tailscaled for status over /run/tailscale/tailscaled.sock"
CLI = "running `tailscale status --json`"


@pytest.mark.parametrize(
    "text",
    [
        f"{SOCKET}: Connection refused; is tailscaled running? see `systemctl status tailscaled`",
        f"{SOCKET}: no complete response within 5 s; see `journalctl -u tailscaled`",
        f"{SOCKET}: the response is larger than 256 MiB; check that --socket is tailscaled's",
        f"{SOCKET}: 403 Forbidden",
        f"{CLI}: timed out after 0.5 s; does tailscaled hang? or raise --timeout",
        f"{CLI}: exit status 1",
        f"{CLI}: ended by SIGKILL",
        "reading tailscaled's status, 4711 bytes: JSON is malformed: invalid input (byte 812)",
    ],
)
def test_a_fault_without_names_is_kept(text: str) -> None:
    assert fault(text, KEY) == text


@pytest.mark.parametrize(
    "text",
    [
        "PIN 1234",
        "dial tcp: port 41641",
        "8443: refused",
        "status 41641",
        "exit status 12345",
        "512 Forbidden",
        "0",
        "1234 seconds",
        "٣",
        "(443)",
    ],
)
def test_a_number_without_a_harmless_meaning_is_replaced(text: str) -> None:
    """It may be a port, a PIN or a part of an address."""
    out = re.sub(r"\[[0-9a-f]{12}\]", "", fault(text, KEY))
    assert not any(character.isdigit() for character in out)


def test_the_boot_id_is_redact() -> None:
    boot = redacted(
        Observation(START, Boot("11111111-2222-3333-4444-555555555555", 5), fault="x"), KEY
    ).boot
    assert boot is not None
    assert (boot.id != "11111111-2222-3333-4444-555555555555", len(boot.id), boot.seconds) == (
        True,
        36,
        5,
    )


@pytest.mark.parametrize(
    "document", [b"[]", b"null", b"5", b'"secret"', b'{"Peer": ' + b"[" * 5000 + b"]" * 5000 + b"}"]
)
def test_an_invalid_status_becomes_a_fault(document: bytes) -> None:
    out = redacted(Observation(START, status=Raw(document)), KEY)
    assert out.fault == f"reading a status, {len(document)} bytes: it is none"


PRIVATE_NAME = "Geheimnis"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-1, 1)
    | st.just(PRIVATE_NAME)
    | st.just(f"{PRIVATE_NAME}.ts.net."),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([PRIVATE_NAME, "Peer", "ID", "HostName", "TailscaleIPs"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
FIELDS = sorted(
    {
        *json.loads(FIXTURES[0].read_bytes()),
        *peer("a"),
        "Tags",
        "AllowedIPs",
        "ExitNodeStatus",
        "CapMap",
        "Location",
    }
)


@given(st.sampled_from(FIELDS), JSON)
def test_unexpected_values_neither_pass_nor_raise(name: str, value: Any) -> None:
    for document in (status(**{name: value}), status(peer("a", **{name: value}))):
        out = redacted(Observation(START, status=Raw(json.dumps(document).encode())), KEY)
        assert PRIVATE_NAME.encode() not in msgspec.json.encode(out)


def test_a_redacted_capture_can_be_replayed(box: Path) -> None:
    """Its key is stored next to it and can be used for other captures."""
    (box / "s.json").write_bytes(encoded(peer("rpi3", "derp")))
    for output, options in (
        ("a", ("--redact",)),
        ("a", ("--redact",)),
        ("b", ("--redact-key", "k")),
        ("c", ("--redact-key", "k")),
    ):
        completed = run(
            "capture",
            "--output",
            f"{box}/{output}",
            "--status-file",
            f"{box}/s.json",
            "--now",
            str(START),
            *options,
        )
        assert (completed.status, completed.stderr) == (0, "")
    first, second = (box / "a").read_bytes().splitlines()
    assert first == second != (box / "b").read_bytes().strip()
    assert (box / "b").read_bytes() == (box / "c").read_bytes()
    assert (box / "a.key").stat().st_mode & 0o777 == 0o600
    assert "rpi3" not in (box / "a").read_text()
    assert re.search(r" DETECTED: n[0-9a-f]{16} ", run("replay", f"{box}/a").stdout)


def test_the_recording_replays_alike() -> None:
    """The lines differ only in names."""
    lines = TIMELINE.read_bytes().splitlines(keepends=True)
    pseudonymous = b"".join(
        msgspec.json.encode(redacted(msgspec.json.decode(line, type=Observation), KEY)) + b"\n"
        for line in lines
    )
    assert _events(pseudonymous) == _events(b"".join(lines))


def _events(capture: bytes) -> Counter[tuple[str, float]]:
    """Return the first word and the time of each line of a replay."""
    arguments = ("replay", "-", "--max-relay-seconds", "60", "--format", "json")
    output = run(*arguments, stdin=capture).stdout
    return Counter((line["line"].split(":")[0], line["at"]) for line in json.loads(output)["lines"])


@pytest.mark.parametrize("name", ["hello.ts.net.", "hello.ts.net", "svc:web", "svc:web."])
def test_a_peer_that_is_not_watched_for_its_name_is_not_watched_afterwards(name: str) -> None:
    document = json.dumps(status(peer("rpi3", "derp", DNSName=name))).encode()
    own_ips = ("100.64.0.1",)
    before, after = decode(document).unwrap(), decode(_redact(document)).unwrap()
    assert [unwatched(one.status, own_ips) for one in named(after)] == [
        unwatched(one.status, own_ips) for one in named(before)
    ]
