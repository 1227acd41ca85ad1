"""The sentences of `tsfc explain`."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec.structs import replace

from support.processes import error_lines
from support.statuses import peer
from tsfc.core.tailscale.ping import PingOutcome, PingResult
from tsfc.core.watchdog.cause import Cause
from tsfc.core.watchdog.memory import Memory
from tsfc.core.watchdog.remedy import Remedy
from tsfc.core.watchdog.track import ONLY_GUARDED, Reason
from tsfc.core.watchdog.watch import Hold
from tsfc.view.model import View
from tsfc.view.sentences import CAUSES, DEAD, TAILSCALED, VERDICTS, WHAT_IFS, explain, subject

from . import guarded
from .node import NOW, POLICY, Node

RESTART = "the watchdog would restart tailscaled because of this peer"
CASES: dict[Reason, tuple[list[tuple[int, str]], str, list[str]]] = {
    Reason.DIRECT: (
        [(60, "direct")],
        "direct",
        ["If it loses its direct address, the watchdog waits 10m before a restart."],
    ),
    Reason.DETECTED: (
        [(60, "direct")],
        "derp",
        ["If nothing changes, the watchdog restarts tailscaled in 10m 1s, because of this peer."],
    ),
    Reason.WAITING: (
        [(300, "derp")],
        "derp",
        [
            "If nothing changes, the watchdog restarts tailscaled in 5m 1s, because of this peer.",
            f"With --max-relay-seconds 299 {RESTART}.",
        ],
    ),
    Reason.RESTART: (
        [(700, "derp")],
        "derp",
        [
            "With --max-relay-seconds 700 the watchdog would keep waiting.",
            "With --exclude-peer nas this peer would never cause a restart.",
        ],
    ),
    Reason.COOLDOWN: (
        [(900, "derp"), (200, "derp")],
        "derp",
        [
            "If nothing changes, the watchdog restarts tailscaled in 6m 40s, because of this peer.",
            f"With --cooldown-seconds 200 {RESTART}.",
        ],
    ),
    Reason.RECOVERED: ([(300, "derp")], "direct", []),
    Reason.RESTORED: (
        [(900, "derp"), (200, "derp")],
        "direct",
        ["With --cooldown-seconds 200 the recovery would count as natural."],
    ),
}
"Earlier runs (seconds ago and path), the path now, and sentences after the verdict."


@pytest.mark.parametrize("reason", CASES)
def test_each_verdict_is_explained_with_what_would_change_it(node: Node, reason: Reason) -> None:
    runs, path, sentences = CASES[reason]
    for ago, path_then in runs:
        node.run_watchdog(NOW - ago, peer("nas", path_then))
    ran = node.run(("explain", "nas"), peer("nas", path))
    assert (ran.status, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    begin = re.split(r"\{", VERDICTS[reason])[0]
    assert lines[2].startswith(f"Watchdog: {begin}")
    assert [line for line in lines[3:] if line in sentences] == sentences
    assert "{" not in ran.stdout


def test_the_verdict_on_an_excluded_peer_is_explained(node: Node) -> None:
    policy = (*POLICY, "--exclude-peer", "nas")
    node.run_watchdog(NOW - 700, peer("nas", "derp"), policy=policy)
    lines = node.run(("explain", "nas"), peer("nas", "derp")).stdout.splitlines()
    assert lines[2] == (
        "Watchdog: no direct address for 11m 40s, longer than the limit, "
        "but the peer is excluded and never causes a restart."
    )
    assert f"Without --exclude-peer nas {RESTART}." in lines


def test_every_reason_has_its_words() -> None:
    assert set(VERDICTS) == set(WHAT_IFS) == set(Reason)
    assert set(CASES) | {Reason.EXCLUDED, Reason.HELD} == set(Reason) - ONLY_GUARDED


def test_a_restart_that_is_held_back_is_explained(node: Node) -> None:
    node.run_watchdog(NOW - 700, peer("nas", "derp"))
    cut_off = {"Online": False}
    lines = node.run(("explain", "nas"), peer("nas", "derp"), Self=cut_off).stdout.splitlines()
    assert lines[2] == (
        "Watchdog: no direct address for 11m 40s, longer than the limit of 10m "
        "(--max-relay-seconds), but the watchdog does not restart tailscaled: the control "
        "server cannot be reached."
    )


def test_under_the_guarded_policy_the_likely_cause_is_explained(node: Node) -> None:
    node.run_watchdog(NOW - 700, peer("rpi3"), peer("nas", "derp"), policy=("--policy", "guarded"))
    ran = node.run(("explain", "nas"), peer("rpi3"), peer("nas", "derp"))
    assert ran.stdout.splitlines()[3] == (
        "Likely cause: something at the peer or on the way to it; other peers are direct."
    )
    assert set(CAUSES) == set(Cause) - {Cause.UNKNOWN}


@pytest.mark.parametrize("hold", Hold)
def test_each_reason_to_hold_back_is_explained(hold: Hold) -> None:
    """Also while the peer is not on relay for long enough."""
    view = guarded.HELD[hold]
    why = "paused by /run/a/pause" if hold is Hold.PAUSED else hold.value
    assert _explained(view)[2].endswith(f"but the watchdog does not restart tailscaled: {why}.")
    assert view.snapshot is not None
    waiting = replace(view.snapshot.policy, max_relay_seconds=800)
    later = guarded.view(view.observed, policy=waiting)
    assert f"No restart now: {why}." in _explained(later)
    assert "the next run restarts" not in " ".join(_explained(later))


def test_the_remedy_is_named() -> None:
    port = replace(guarded.POLICY, remedies=(Remedy.OTHER_PORT,))
    assert _explained(guarded.view(policy=port))[2].endswith(
        "; the next run restarts tailscaled on another port."
    )
    waiting = _explained(guarded.view(policy=replace(port, max_relay_seconds=710)))
    assert waiting[3:5] == [
        (
            "If nothing changes, the watchdog restarts tailscaled on another port in 11s, because of "
            "this peer."
        ),
        (
            "With --max-relay-seconds 699 the watchdog would restart tailscaled on another port "
            "because of this peer."
        ),
    ]
    assert set(TAILSCALED) == set(Remedy)


def test_the_documented_policy_is_an_alternative_for_a_peer_that_was_never_direct() -> None:
    state = replace(guarded.STATE, memory=Memory())
    assert _explained(guarded.view(state=state))[2:] == [
        (
            "Watchdog: on relay for 11m 40s, and the watchdog has not seen it direct lately; nothing "
            "shows that a restart can help, so there is none."
        ),
        (
            "With --policy documented its time on relay would begin with the next run, and the "
            "watchdog would restart tailscaled in 10m 1s."
        ),
    ]


def test_a_direct_peer_with_a_dead_data_plane_is_explained() -> None:
    lines = _explained(guarded.DEAD)
    assert DEAD in lines
    assert not any("nothing to do" in line for line in lines)


def _explained(view: View) -> list[str]:
    lines = list(explain(view, subject(view, "nas").unwrap()))
    assert not any("{" in line or "None" in line for line in lines)
    return lines


@pytest.mark.parametrize(
    "name",
    [
        "NAS",
        "nas.tail1.ts.net",
        "nas.tail1.ts.net.",
        "100.64.0.9",
        "FD7A::9",
        "nN",
        f"nodekey:{0:064x}",
        "DiskStation",
    ],
    ids=str,
)
def test_a_peer_is_explained_by_any_of_its_names(node: Node, name: str) -> None:
    nas = peer("nas", ID="nN", HostName="DiskStation", TailscaleIPs=["100.64.0.9", "fd7a::9"])
    assert node.run(("explain", name), nas).stdout.startswith("nas: packets go directly to")


def test_a_name_of_several_peers_is_refused(node: Node) -> None:
    ran = node.run(("explain", "cam"), peer("cam", ID="nA"), peer("cam", ID="nB"))
    assert (ran.status, ran.stderr) == (
        1,
        "tsfc explain: explaining cam: several peers have that name: cam#nA, cam#nB\n",
    )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        pytest.param({"Expired": True}, "its key has expired", id="expired"),
        pytest.param(
            {"ShareeNode": True}, "it belongs to a user you share a node with", id="sharee"
        ),
        pytest.param(
            {"ShareeNode": True, "HostName": "funnel-ingress-node", "DNSName": ""},
            "it is a Funnel ingress node of Tailscale",
            id="funnel",
        ),
        pytest.param(
            {"DNSName": "nas.mullvad.ts.net."},
            "it is a Mullvad exit node, which sends no pongs",
            id="mullvad",
        ),
        pytest.param(
            {"Online": False, "LastSeen": "2027-01-15T07:00:00Z"}, "it is offline", id="offline"
        ),
    ],
)
def test_it_is_explained_why_a_peer_is_not_watched(
    node: Node, fields: dict[str, Any], why: str
) -> None:
    node.run_watchdog(NOW - 60, peer("nas"))
    name = fields.get("HostName", fields.get("DNSName", "nas").removesuffix("."))
    lines = node.run(("explain", name), peer("nas", **fields)).stdout.splitlines()
    assert lines[2:] == [f"The watchdog does not watch this peer: {why}."]
    assert ("last seen 1h ago" in lines[0]) == ("LastSeen" in fields)


def test_a_peer_without_a_path_is_a_fault(node: Node) -> None:
    ran = node.run(("explain", "nas"), peer("nas", "derp", Relay="", TxBytes=2000))
    assert ran.stdout.startswith(
        "nas: no path; it has no direct address, no peer relay and no home DERP region, so "
        "packets to it are lost.\n"
        "Run `tailscale netcheck` on the peer: it must reach a DERP server to have a region.\n"
        "No WireGuard handshake yet; received 0 bytes and sent 2000 bytes since tailscaled added "
        "the peer.\n"
    )
    assert "normal" not in ran.stdout


def test_an_offline_peer_that_packets_go_to_says_how(node: Node) -> None:
    fields = {"Online": False, "LastSeen": "2027-01-15T07:00:00Z"}
    lines = node.run(("explain", "nas"), peer("nas", "direct", **fields)).stdout.splitlines()
    assert lines[0] == (
        "nas: offline, according to the coordination server; last seen 1h ago. Something was sent "
        "to it in the last 45 seconds all the same: packets go directly to 192.0.2.7:41641."
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        pytest.param("nass", "did you mean nas?", id="similar"),
        pytest.param("\x1b[31m", "run `tsfc peers` for a list", id="control characters"),
        pytest.param("", "run `tsfc peers` for a list", id="empty"),
    ],
)
def test_an_unknown_peer_is_one_error_with_a_hint(node: Node, name: str, hint: str) -> None:
    ran = node.run(("explain", name), peer("nas"), peer("rpi3"))
    assert (ran.status, ran.stdout) == (1, "")
    (line,) = error_lines("explain", ran)
    assert line.endswith(f"there is no such peer; {hint}")


OWN = {
    "ID": "nselfCNTRL",
    "HostName": "box",
    "DNSName": "self.tail1.ts.net.",
    "TailscaleIPs": ["100.64.0.1", "fd7a::1"],
    "Relay": "fra",
    "Addrs": ["192.0.2.1:41641"],
    "Online": True,
}


@pytest.mark.parametrize("name", ["self", "self.tail1.ts.net.", "100.64.0.1", "fd7a::1", "box"])
def test_the_node_itself_is_explained(node: Node, name: str) -> None:
    node.run_watchdog(NOW - 300, peer("nas", "derp"))
    peers = (peer("nas", "derp"), peer("guest", "idle", ShareeNode=True))
    ran = node.run(("explain", name), *peers, Self=OWN, Health=["a\nb"])
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "self: this node. tailscaled 1.102.3 is Running.",
        (
            "Its addresses: FQDN self.tail1.ts.net; Tailscale IPs 100.64.0.1, fd7a::1; "
            "home DERP region fra; endpoints 192.0.2.1:41641."
        ),
        "It is connected to the coordination server.",
        "Its key does not expire.",
        "Health: a b",
        "It has 1 peer (1 derp).",
        "Watchdog: last run 5m ago (overdue; is its timer active?); no restart yet.",
        "Watchdog: next restart in 5m 1s, because of nas.",
        "Run `tsfc doctor` to find what is wrong, and `tsfc peers` for its peers.",
    ]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"Online": False}, "It has no connection to the coordination server, or none yet."),
        ({"KeyExpiry": "2027-01-18T09:00:00Z"}, "Its key expires in 3d 1h."),
        (
            {"KeyExpiry": "2027-01-15T08:00:00Z"},
            "Its key has expired, so no peer accepts its packets.",
        ),
        ({"Expired": True}, "Its key has expired, so no peer accepts its packets."),
    ],
)
def test_the_state_of_the_node_is_explained(node: Node, fields: dict[str, Any], line: str) -> None:
    assert line in node.run(("explain", "self"), Self=OWN | fields).stdout.splitlines()


def test_a_node_that_is_not_running_is_explained(node: Node) -> None:
    own = {"ID": "nS", "HostName": "box"}
    lines = node.run(("explain", "box"), BackendState="NeedsLogin", Self=own).stdout.splitlines()
    assert lines[:2] == [
        (
            "box: this node. tailscaled 1.102.3 is NeedsLogin; it has no peers until you run "
            "`tailscale up`."
        ),
        "Run `tsfc doctor` to find what is wrong, and `tsfc peers` for its peers.",
    ]


def test_what_came_of_pings_is_said_in_their_order() -> None:
    pings = (
        PingResult(PingOutcome.NO_REPLY),
        PingResult(PingOutcome.DERP, 0.048),
        PingResult(PingOutcome.PEER_RELAY, 0.02),
        PingResult(PingOutcome.DIRECT, 0.0123),
        PingResult(PingOutcome.ERROR),
    )
    view = guarded.view()
    lines = explain(view, subject(view, "nas").unwrap(), pings)
    assert [line for line in lines if line.startswith("Ping ")] == [
        "Ping 1: no reply.",
        "Ping 2: the reply came through a DERP server after 48.0 ms.",
        "Ping 3: the reply came through a peer relay after 20.0 ms.",
        "Ping 4: the reply came directly after 12.3 ms.",
        "Ping 5: it could not be sent.",
    ]
