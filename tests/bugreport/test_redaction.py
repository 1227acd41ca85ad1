"""Texts around a status lose their names, and keep the words of tsfc."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from support.docs import PAGES
from support.statuses import encoded, peer
from tsfc.bugreport.redaction import (
    Names,
    line,
    metric,
    name,
    names_of,
    release,
    snapshot,
    unit,
)
from tsfc.core.clock import Boot, Instant
from tsfc.core.evaluation.observation import Observation
from tsfc.core.tailscale.peers import named
from tsfc.core.tailscale.status import decode
from tsfc.core.watchdog.memory import Memory, PeerMemory, Traffic
from tsfc.core.watchdog.policy import GuardedPolicy, ThresholdPolicy
from tsfc.core.watchdog.remedy import Attempt, Remedy
from tsfc.core.watchdog.snapshot import Snapshot, encode
from tsfc.core.watchdog.state import Relay, State
from tsfc.offline.capture.redact import redacted

KEY = b"the key of the tests"
NOBODY = Names(KEY)
NAS = name("nas", NOBODY)


def names_in(*peers: dict[str, Any], **fields: Any) -> tuple[Names, list[str], list[str]]:
    """The pseudonyms of a status, and the names of its peers before and after."""
    raw = encoded(*peers, **fields)
    status = decode(raw).unwrap()
    other = decode(bytes(redacted(Observation(1.0, status=Raw(raw)), KEY).status)).unwrap()
    return (
        names_of(status, other, KEY),
        [one.name for one in named(status)],
        [one.name for one in named(other)],
    )


@pytest.mark.parametrize(
    "text",
    re.findall(r"^[A-Z-]{4,20}: (?:rpi3|nas) .*$", PAGES["docs/policy.md"], re.MULTILINE),
)
def test_only_the_name_is_replaced_in_a_documented_line(text: str) -> None:
    peer_name = text.split()[1]
    assert line(text, NOBODY) == text.replace(peer_name, name(peer_name, NOBODY))


@pytest.mark.parametrize(
    "text",
    [
        "asking tailscaled for status over /run/tailscale/tailscaled.sock: Connection refused",
        "is tailscaled running? see `systemctl status tailscaled`",
        "another run holds the lock in /var/lib/tailscale-watchdog",
        "the run that restarted tailscaled ended before it knew the outcome: counted as done",
        "tailscaled is Stopped, not Running: restarting nothing",
        "reading tailscaled's status, 4711 bytes: JSON is malformed: invalid input (byte 812)",
        "3 of 5 peers could not be pinged",
    ],
)
def test_a_line_without_names_is_kept(text: str) -> None:
    assert line(text, NOBODY) == text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("--exclude-peer relay: no peer has that name", "relay:"),
        ("WAITING: relay on relay for 5s (threshold: 600s)", ": relay on"),
        ("writing /home/alice/x.prom: Permission denied", "alice"),
        ("dial tcp 192.0.2.7:41641: refused", "192.0.2.7"),
        ("dial [2001:db8::1]:41641", "2001:db8"),
        ("fd7a:115c:a1e0::5: gone", "a1e0::5"),
        ("\N{UNICORN FACE} joined", "\N{UNICORN FACE}"),
        ("bob@example.com", "example"),
        ("tailscale-watchdog-work.service failed", "work"),
        ("tailscale-watchdog-notify-work.socket failed", "work"),
        ("10.0.0.1", "10.0.0.1"),
        ("PIN 12345", "12345"),
    ],
)
def test_what_may_be_a_name_is_replaced(text: str, secret: str) -> None:
    assert secret not in line(text, NOBODY)


def test_a_peer_has_the_name_of_the_redacted_status_everywhere() -> None:
    """Also if its name needed a suffix, has spaces, or is unknown to the status."""
    names, before, after = names_in(
        peer("nas"), peer("twin", ID="n1CNTRL"), peer("twin", ID="n2CNTRL"),
        peer("x", HostName="Bob's Mac mini", DNSName="", ID="n3CNTRL"),
        peer("relay", ID="n4CNTRL"),
    )  # fmt: skip
    assert sorted(before) == ["Bob's Mac mini", "nas", "relay", "twin#n1CNTRL", "twin#n2CNTRL"]
    for one in before:
        written = line(f"WAITING: {one} on relay for 5s (threshold: 600s)", names)
        pseudonym = re.fullmatch(r"WAITING: (.*) on relay for 5s \(threshold: 600s\)", written)
        assert pseudonym
        assert pseudonym[1] in after
        assert metric(f'tailscale_peer_online{{peer="{one}"}} 1.0', names) == (
            f'tailscale_peer_online{{peer="{pseudonym[1]}"}} 1.0'
        )
        if one != "relay":
            assert f"pinging {pseudonym[1]}: " in line(f"pinging {one}: error", names)
    assert name("nas", names) == NAS


def test_a_line_can_repeat_a_name_of_two_words() -> None:
    names, _, (renamed,) = names_in(peer("x", HostName="q z", DNSName="", ID="n3CNTRL"))
    assert line("q z" * 600, names) == renamed * 600


def test_only_values_of_closed_sets_stay_in_a_metric() -> None:
    info = (
        'tailscale_peer_info{dns_name="nas.corp.example",hostname="nas",id="n1CNTRL",'
        'ip="100.64.0.9",os="linux",peer="nas",relay="fra",tags="tag:a,tag:b",user="al@b.c"} 1.0'
    )
    out = metric(info, NOBODY)
    assert out
    assert f'os="linux",peer="{NAS}",relay="fra"' in out
    assert not re.search(r"corp|example|n1CNTRL|64\.0\.9|tag:[ab]|al@", out)
    assert metric('tailscale_up{tailnet="acme"} 1', NOBODY) == (
        f'tailscale_up{{{name("tailnet", NOBODY)}="{name("acme", NOBODY)}"}} 1'
    )
    assert metric('tailscale_peer_path{path="acme"} 1', NOBODY) == (
        f'tailscale_peer_path{{path="{name("acme", NOBODY)}"}} 1'
    )
    assert metric('tailscale_version_info{version="1.102.3-t53a0d659a"} 1.0', NOBODY)
    assert metric("# HELP tailscale_up nas", NOBODY) is None
    assert metric("nas_up 1", NOBODY) is None


def test_a_unit_keeps_options_and_loses_values() -> None:
    command = '"/opt/tsfc/bin/tsfc" "watchdog" "--exclude-peer" "nas" "--max-relay-seconds" "600"'
    assert unit(f"ExecStart={command}", NOBODY) == f"ExecStart={command.replace('nas', NAS)}"
    options = '# Options: {"arguments":["--watchdog-exclude-peers=nas"],"version":1}'
    assert unit(options, NOBODY) == options.replace("nas", NAS)
    assert unit("[Service]", NOBODY) == "[Service]"
    assert unit("# alice wrote this", NOBODY) is None
    assert unit("Description=alice", NOBODY) is None
    assert "alice" not in str(unit("Environment=TOKEN=alice", NOBODY))


def test_a_snapshot_has_no_name_of_a_peer() -> None:
    """In attempts, in the memory, and among the excluded peers, in any of its forms."""
    names, _, (renamed,) = names_in(peer("nas", ID="n1CNTRL"))
    status = decode(encoded(peer("nas", ID="n1CNTRL"))).unwrap()
    attempt = Attempt(
        Remedy.RESTART, "nas", 1, 2, peer_id="n1CNTRL", subjects=("n1CNTRL", "headless", "n9CNTRL")
    )
    boot = Boot("11111111-2222-3333-4444-555555555555", 5)
    seen = PeerMemory(direct_at=3600)
    before = Snapshot(
        Instant(5, boot),
        GuardedPolicy(excluded=frozenset({"NAS", "n1CNTRL", "gone"}), pause_file="/run/bob/pause"),
        State(
            relays={"nas": Relay(1, "n1CNTRL")},
            last_success=Instant(4, boot),
            last_run=Instant(5, boot),
            attempts=(attempt,),
            memory=Memory({"n1CNTRL": seen, "headless": seen}, traffic={"n1CNTRL": Traffic(1, 2)}),
        ),
    )
    after = snapshot(before, status, names)
    assert not re.search(r"nas|NAS|n1CNTRL|n9CNTRL|headless|gone|bob|1{8}", encode(after))
    assert after.policy.excluded == {renamed, name("gone", names)}
    assert list(after.state.relays) == [renamed] == [after.state.attempts[0].peer]
    stable_id = after.state.attempts[0].peer_id
    assert after.state.attempts[0].subjects[0] == stable_id == next(iter(after.state.memory.peers))
    documented = replace(before, policy=ThresholdPolicy(excluded=frozenset({"gone"})))
    assert snapshot(documented, None, names).policy.excluded == {name("gone", names)}


def test_a_release_keeps_its_number() -> None:
    assert release("6.1.0-18-amd64", NOBODY) == "6.1.0-18-amd64"
    assert release("debian 12", NOBODY) == "debian 12"
    assert "bob" not in release("6.1.0-bob", NOBODY)


def test_the_units_of_the_watchdog_keep_their_names() -> None:
    for unit_name in ("restart.socket", "restart@.service", "notify.socket", "notify@.service"):
        text = f"tailscale-watchdog-{unit_name}: failed"
        assert line(text, NOBODY) == text
