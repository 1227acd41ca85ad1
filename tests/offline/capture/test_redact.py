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
from tsfc.core.tailscale.peers import is_watched, named
from tsfc.core.tailscale.status import Status, decode
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.core.watchdog.state import State
from tsfc.core.watchdog.step import step
from tsfc.offline.capture.redact import fault, redacted

FIXTURES = sorted((Path(__file__).parents[2] / "fixtures").glob("*.json"))
KEY = b"the key of the tests"
NAMED = {
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
LISTED = {
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
PUBLIC = {"0.0.0.0/0", "::/0", "mullvad", "tag:", "User"}
"Default routes, Tailscale's own domain, and names that are also words of a status."


def _redacted(document: bytes, key: bytes = KEY) -> bytes:
    return bytes(redacted(Observation(START, status=Raw(document)), key).status)


def _originals(value: Any, name: str = "") -> Iterator[str]:
    """Return all names, and the labels of each DNS name."""
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        for key, one in fields.items():
            if name in {"Peer", "User"}:
                yield key
            yield from _originals(one, key)
    elif isinstance(value, list) and name in LISTED:
        yield from (one for one in cast("list[object]", value) if isinstance(one, str))
    elif isinstance(value, str) and name in NAMED:
        yield value
        if name == "DNSName":
            yield from value.split(".")


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_no_name_of_the_original_is_left(path: Path) -> None:
    """The shortest names are not looked for: any text contains them."""
    document = path.read_bytes()
    out = _redacted(document).decode()
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
    before, after = (
        decode(path.read_bytes()).unwrap(),
        decode(_redacted(path.read_bytes())).unwrap(),
    )

    def told(seen: Status) -> tuple[object, ...]:
        made = step(State(), Observed(seen), now=Instant(START), policy=ThresholdPolicy())
        reasons = Counter(verdict.reason for verdict in made.verdicts or ())
        return (
            reasons,
            Counter((classify(one.status), is_watched(one.status, ())) for one in named(seen)),
            len({one.name for one in named(seen)}),
            seen.backend_state,
        )

    assert told(before) == told(after)
    assert (before.health is None, len(before.health or ())) == (
        after.health is None,
        len(after.health or ()),
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
    out = json.loads(_redacted(json.dumps(document).encode()))
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


def test_pseudonyms_are_stable() -> None:
    """Captures of different releases have the same pseudonyms."""
    document = status(peer("rpi3", Tags=["tag:server"]))
    out = json.loads(_redacted(json.dumps(document).encode()))
    (only,) = out["Peer"].values()
    assert (
        only["HostName"],
        only["ID"],
        only["TailscaleIPs"],
        only["CurAddr"],
        only["Tags"],
        out["Self"]["TailscaleIPs"],
    ) == PINNED
    assert _redacted(encoded(peer("rpi3")), b"another key") != _redacted(encoded(peer("rpi3")))


PINNED = (
    "nd436da46e916766f",
    "n3f10a53cc9d0c625CNTRL",
    ["100.65.200.237"],
    "194.254.8.2:41641",
    ["tag:n2ff243bc5d5dab93"],
    ["100.78.75.53"],
)


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
    out = json.loads(_redacted(json.dumps(status(peer("a", TailscaleIPs=addresses))).encode()))
    ((only,),) = [list(out["Peer"].values())]
    got = [ipaddress.ip_address(text) for text in only["TailscaleIPs"]]
    assert len(set(got)) == len(addresses)
    first = ipaddress.ip_address(addresses[1])
    assert (
        all(
            (one.version, one.is_private, one.is_link_local)
            == (first.version, first.is_private, first.is_link_local)
            for one in got
        )
        or network[0] in "82"
    )


@pytest.mark.parametrize(
    "text", ["192.0.2.7:41641", "[2001:db8::1]:41641", "192.0.2.9:7777:vni:5", "what is this"]
)
def test_an_endpoint_keeps_its_form_and_is_never_empty(text: str) -> None:
    out = json.loads(_redacted(json.dumps(status(peer("a", CurAddr=text))).encode()))
    ((only,),) = [list(out["Peer"].values())]
    assert only["CurAddr"] != text
    assert (
        re.sub(r"[0-9a-f:.]*[0-9a-f]\]|^[0-9.]+", "", only["CurAddr"])
        == re.sub(r"[0-9a-f:.]*[0-9a-f]\]|^[0-9.]+", "", text)
        or text == "what is this"
    )
    assert only["CurAddr"]


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


def test_the_boot_id_is_redacted() -> None:
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


PLANTED = "Geheimnis"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-1, 1)
    | st.just(PLANTED)
    | st.just(f"{PLANTED}.ts.net."),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([PLANTED, "Peer", "ID", "HostName", "TailscaleIPs"]), inner, max_size=3
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
        if name not in {"BackendState", "Version", "OS", "Relay"}:
            assert PLANTED.encode() not in msgspec.json.encode(out)


def test_a_redacted_capture_is_made_and_replayed(box: Path) -> None:
    """Its key is stored next to it and can be used for other captures."""
    (box / "s.json").write_bytes(encoded(peer("rpi3", "derp")))
    for output, options in (
        ("a", ("--redact",)),
        ("a", ("--redact",)),
        ("b", ("--redact-key", "k")),
        ("c", ("--redact-key", "k")),
    ):
        ran = run(
            "capture",
            "--output",
            f"{box}/{output}",
            "--status-file",
            f"{box}/s.json",
            "--now",
            str(START),
            *options,
        )
        assert (ran.status, ran.stderr) == (0, "")
    first, second = (box / "a").read_bytes().splitlines()
    assert first == second != (box / "b").read_bytes().strip()
    assert (box / "b").read_bytes() == (box / "c").read_bytes()
    assert (box / "a.key").stat().st_mode & 0o777 == 0o600
    assert "rpi3" not in (box / "a").read_text()
    assert re.search(r" DETECTED: n[0-9a-f]{16} ", run("replay", f"{box}/a").stdout)


def test_the_recording_replays_alike() -> None:
    """The lines differ only in names."""
    lines = TIMELINE.read_bytes().splitlines(keepends=True)
    hidden = b"".join(
        msgspec.json.encode(redacted(msgspec.json.decode(line, type=Observation), KEY)) + b"\n"
        for line in lines
    )

    def words(capture: bytes) -> list[list[str]]:
        said = run(
            "replay", "-", "--max-relay-seconds", "60", "--format", "json", stdin=capture
        ).stdout
        return sorted(
            [line["line"].split(":")[0], str(line["at"])] for line in json.loads(said)["lines"]
        )

    plain = words(b"".join(lines))
    assert Counter(map(tuple, words(hidden))) == Counter(map(tuple, plain))
