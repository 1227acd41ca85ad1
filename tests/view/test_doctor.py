"""What `tsfc doctor` finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.processes import error_lines, run
from support.servers import http, serving
from support.statuses import decoded, encoded, peer
from tsfc.core.tailscale.whois import NO_NET_INFO
from tsfc.core.watchdog.cause import Cause
from tsfc.core.watchdog.events import Observed
from tsfc.core.watchdog.watch import Hold
from tsfc.view.doctor import (
    JUST_STARTED,
    NODE_FINDINGS,
    PEER_ADVICE,
    PEER_LIMIT,
    Side,
    findings,
    render,
)

from . import guarded
from .node import HIDDEN_PEERS, NOW, Node

NO_RELAY = "Tailscale could not connect to the 'Frankfurt' relay server."
WELL = "Nothing is wrong, as far as this node can see."


def test_a_node_that_is_well_has_no_findings(node: Node) -> None:
    node.run_watchdog(NOW - 60, peer("nas"))
    assert node.run(("doctor",), peer("nas"), peer("tv", "idle"), *HIDDEN_PEERS).stdout == (
        "self: Running, Tailscale 1.102.3\n"
        "peers: 1 direct, 1 idle\n"
        "watchdog: policy documented, 0 restarts\n"
        "\n"
        f"{WELL}\n"
    )


def test_an_unknown_version_is_left_out(node: Node) -> None:
    node.run_watchdog(NOW - 60, peer("nas"))
    ran = node.run(("doctor",), peer("nas"), Version="")
    assert ran.stdout.startswith("self: Running\n")


def test_a_finding_says_what_was_seen_where_it_is_and_what_to_do(node: Node) -> None:
    node.run_watchdog(NOW - 700, peer("rpi3"), peer("nas", "derp"))
    printed = node.run(("doctor",), peer("rpi3"), peer("nas", "derp")).stdout
    assert printed.partition("\n\n")[2] == (
        "1. nas has been on relay for 11m 40s (restart in the next run).\n"
        "   Likely side: the peer, or the way to it.\n"
        "   What to do: Other peers are direct. Run `tsfc doctor` on the peer, or "
        "`tailscale netcheck`.\n"
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(
            {"BackendState": "Stopped"}, "tailscaled is Stopped, not Running.", id="stopped"
        ),
        pytest.param({"Self": {"Expired": True}}, "This node's key has expired", id="expired"),
        pytest.param(
            {"Self": {"KeyExpiry": "2027-01-15T08:00:00Z"}},
            "This node's key has expired",
            id="expired-now",
        ),
        pytest.param(
            {"Self": {"KeyExpiry": "2027-01-16T09:00:00Z"}},
            "This node's key expires in 1d 1h.",
            id="expires-soon",
        ),
        pytest.param(
            {"Self": {"Online": False}}, NODE_FINDINGS[Cause.CONTROL_OUTAGE].what, id="control"
        ),
        pytest.param({"Health": [NO_RELAY]}, NODE_FINDINGS[Cause.RELAY_OUTAGE].what, id="relay"),
        pytest.param(
            {"Self": {"Addrs": ["192.0.2.1:1", "192.0.2.1:2"]}},
            NODE_FINDINGS[Cause.HARD_NAT].what,
            id="hard-nat",
        ),
        pytest.param(
            {"Health": ["DNS is broken\x1b[31m"]},
            "tailscaled says: DNS is broken",
            id="health",
        ),
    ],
)
def test_what_concerns_the_node_comes_first(
    node: Node, fields: dict[str, Any], expected: str
) -> None:
    printed = node.run(("doctor",), peer("nas"), **fields).stdout
    first = printed.partition("\n\n")[2].splitlines()[0]
    assert first.startswith(f"1. {expected}")
    assert first.isprintable()


def test_a_key_that_expires_later_is_no_finding(node: Node) -> None:
    later = {"KeyExpiry": "2027-01-22T08:00:01Z"}
    assert WELL in node.run(("doctor",), peer("nas"), Self=later).stdout


def test_a_fault_of_the_node_explains_its_relays(node: Node) -> None:
    blocked = {"Addrs": ["192.168.1.7:41641"]}
    printed = node.run(("doctor",), peer("nas", "derp"), Self=blocked).stdout
    assert f"1. {NODE_FINDINGS[Cause.UDP_BLOCKED].what} 1 peer is on relay.\n" in printed
    assert "nas is on relay" not in printed


def test_what_no_restart_can_fix_says_so(node: Node) -> None:
    """Another port can: the watchdog may change it."""
    never = "   No restart by the watchdog can fix this.\n"
    hard_nat = {"Addrs": ["192.0.2.1:1", "192.0.2.1:2"]}
    assert never in node.run(("doctor",), peer("nas", "derp"), Self=hard_nat).stdout
    blocked = {"Addrs": ["192.168.1.7:41641"]}
    assert never not in node.run(("doctor",), peer("nas", "derp"), Self=blocked).stdout


def test_all_peers_offline_is_a_finding(node: Node) -> None:
    printed = node.run(("doctor",), peer("nas", "offline"), peer("tv", "offline")).stdout
    assert "1. All 2 peers are offline.\n" in printed
    assert "run `systemctl restart tailscaled`" in printed


def test_nobody_is_told_to_restart_a_node_that_is_cut_off(node: Node) -> None:
    """All peers are offline to a node without the control server, too."""
    printed = node.run(("doctor",), peer("nas", "offline"), Self={"Online": False}).stdout
    assert "Do not restart tailscaled" in printed
    assert "systemctl restart tailscaled" not in printed


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("Stopped", "Run `tailscale up`."),
        ("NeedsLogin", "Run `tailscale up`."),
        ("NeedsMachineAuth", "Approve this node in the admin console."),
        ("NoState", "Wait a minute."),
        ("Starting", "Wait a minute."),
    ],
)
def test_the_advice_fits_the_state_of_tailscaled(node: Node, state: str, advice: str) -> None:
    printed = node.run(("doctor",), BackendState=state).stdout
    assert f"1. tailscaled is {state}, not Running.\n" in printed
    assert f"   What to do: {advice}" in printed


def test_a_peer_without_any_path_is_a_finding(node: Node) -> None:
    printed = node.run(("doctor",), peer("nas", "derp", Relay="")).stdout
    assert "1. nas has no path: no direct address, no peer relay, no home region.\n" in printed


def test_a_silent_watchdog_is_a_finding(node: Node) -> None:
    node.run_watchdog(NOW - 901, peer("nas"))
    assert "1. The watchdog last ran 15m 1s ago.\n" in node.run(("doctor",), peer("nas")).stdout
    node.run_watchdog(NOW - 900, peer("nas"))
    assert WELL in node.run(("doctor",), peer("nas")).stdout


def test_without_a_watchdog_the_reason_is_the_last_line(node: Node) -> None:
    printed = node.run(("doctor",), peer("nas")).stdout
    assert printed.splitlines()[-1].startswith(f"reading {node.snapshot}: No such file")


def test_a_peer_that_was_never_direct_is_left_alone(node: Node) -> None:
    """Whether a restart helps it is unknown, so nothing is said about that."""
    policy = ("--policy", "guarded")
    node.run_watchdog(NOW - 700, peer("rpi3"), peer("nas", "derp"), policy=policy)
    printed = node.run(("doctor",), peer("rpi3"), peer("nas", "derp")).stdout
    assert (
        "1. nas has been on relay for 11m 40s, and was not direct in the last 7 days, so the "
        "watchdog does not restart tailscaled for it.\n"
    ) in printed
    assert "No restart" not in printed
    assert "policy guarded" in printed


@pytest.mark.parametrize("hold", Hold)
def test_the_summary_says_why_nothing_is_restarted(hold: Hold) -> None:
    view = guarded.HELD[hold]
    why = "paused by /run/a/pause" if hold is Hold.PAUSED else hold.value
    assert f"\nwatchdog: no restart now: {why}\n" in render(view, ())


def test_what_an_operator_can_end_is_a_finding() -> None:
    """A cut-off node is a finding of its own, and the start of tailscaled ends by itself."""
    held = "The watchdog restarts nothing: "
    expected = {
        Hold.PAUSED: f"{held}it is paused by /run/a/pause.",
        Hold.NO_BUDGET: f"{held}the budget of 24 hours is used up (--budget 0).",
    }
    for hold in Hold:
        found = [finding.what for finding in findings(guarded.HELD[hold], NO_NET_INFO)]
        assert [what for what in found if what.startswith(held)] == [
            what for of, what in expected.items() if of is hold
        ]
        assert len(found) == len(set(found))


def test_the_advice_about_a_peer_fits_the_state_of_the_node() -> None:
    """An expired key explains the relay, and a tailscaled that just started needs time."""
    advice = {
        hold: [found.advice for found in findings(view, NO_NET_INFO) if "nas" in found.what]
        for hold, view in guarded.HELD.items()
    }
    looks_well = [PEER_ADVICE[Cause.UNKNOWN][1]]
    assert advice == {
        Hold.NO_CONTROL: [],
        Hold.EXPIRED_KEY: [],
        Hold.NO_RELAY: [],
        Hold.STARTING: [JUST_STARTED[1]],
        Hold.PAUSED: looks_well,
        Hold.NO_BUDGET: looks_well,
    }


def test_a_node_without_a_name_is_this_node() -> None:
    assert render(guarded.HELD[Hold.NO_CONTROL], ()).startswith("this node: Running, ")


@pytest.mark.parametrize(
    ("other", "side"),
    [
        pytest.param(peer("tv", "idle"), Side.UNKNOWN, id="no other peer is direct"),
        pytest.param(peer("tv"), Side.PEER, id="another one gets data"),
    ],
)
def test_a_dead_data_plane_of_one_peer_is_not_blamed_on_this_node(
    other: dict[str, Any], side: Side
) -> None:
    dead = guarded.DEAD
    assert dead.snapshot is not None
    observed = Observed(decoded(peer("nas", RxBytes=100, TxBytes=5000), other))
    view = guarded.view(observed, state=dead.snapshot.state)
    assert [finding.side for finding in findings(view, NO_NET_INFO)] == [side]


def test_a_phone_on_relay_is_ignored_by_the_watchdog() -> None:
    observed = Observed(decoded(peer("phone", "derp", OS="iOS"), peer("tv")))
    found = [finding.what for finding in findings(guarded.view(observed), NO_NET_INFO)]
    assert found == ["phone is on relay (ignored: phone)."]


def test_a_dead_data_plane_is_a_finding(node: Node) -> None:
    """The watchdog found it, and the counters still stand still."""
    nas = peer("nas", RxBytes=100, TxBytes=5000)
    node.run_watchdog(NOW - 60, nas, policy=("--policy", "guarded"))
    snapshot = json.loads(node.snapshot.read_text())
    snapshot["state"]["memory"]["traffic"]["nnasCNTRL"]["dead_since"] = NOW - 60
    node.snapshot.write_text(json.dumps(snapshot))
    found = (
        "1. nas is direct, but no data comes back: disco pings are answered, TSMP pings are lost."
    )
    assert found in node.run(("doctor",), nas).stdout
    alive = peer("nas", RxBytes=200, TxBytes=5000)
    assert WELL in node.run(("doctor",), alive).stdout


def test_of_many_peers_on_relay_some_are_named_and_the_others_counted(node: Node) -> None:
    peers = [peer(f"host{number}", "derp") for number in range(PEER_LIMIT + 5)]
    printed = node.run(("doctor",), *peers).stdout
    assert printed.count(" is on relay") == PEER_LIMIT
    assert f"{PEER_LIMIT + 1}. 5 more peers are on relay.\n" in printed
    assert PEER_ADVICE[Cause.UNKNOWN][1] in printed


def _with_net_info(box: Path, net_info: bytes | None) -> str:
    """What `doctor` prints if the server says this about the node's network."""
    status = encoded(peer("nas", "derp"), Self={"TailscaleIPs": ["100.64.0.1"], "Online": True})
    with serving(
        box / "sock",
        lambda request: (
            (http(b"", "404 Not Found") if net_info is None else http(net_info))
            if request.target == "/localapi/v0/whois?addr=100.64.0.1%3A1"
            else http(status)
        ),
    ):
        ran = run("doctor", "--socket", str(box / "sock"), "--watchdog-metrics", str(box / "none"))
    assert ran.status == 0
    return ran.stdout


def test_the_report_of_the_network_is_asked_for(box: Path) -> None:
    blocked = json.dumps({"Node": {"Hostinfo": {"NetInfo": {"WorkingUDP": False}}}}).encode()
    assert NODE_FINDINGS[Cause.UDP_BLOCKED].what in _with_net_info(box, blocked)


@pytest.mark.parametrize("net_info", [None, b"nonsense", b"{}"])
def test_without_a_report_the_rest_is_found(box: Path, net_info: bytes | None) -> None:
    assert "1. nas is on relay" in _with_net_info(box, net_info)


def test_a_tailscaled_that_is_down_is_one_line(box: Path) -> None:
    ran = run("doctor", "--socket", str(box / "sock"))
    assert (ran.status, ran.stdout) == (1, "")
    assert len(error_lines("doctor", ran)) == 1
