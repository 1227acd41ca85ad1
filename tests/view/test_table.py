"""The table of `tsfc peers`, on terminals and elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.processes import run
from support.statuses import encoded, peer

from .node import ESCAPE_SEQUENCE, HIDDEN_PEERS, NOW, POLICY, Node, rows, run_on_terminal

TITLES = ["peer", "path", "since", "handshake", "received", "sent", "watchdog"]


def test_the_table_lists_all_peers_worst_first(node: Node) -> None:
    policy = (*POLICY, "--exclude-peer", "excluded")
    on_relay = [peer(name, "derp") for name in ("stuck", "waiting", "excluded", "cured")]
    stuck, _, excluded, cured = on_relay
    node.run_watchdog(NOW - 700, stuck, excluded, cured, peer("nas"), policy=policy)
    node.run_watchdog(NOW - 60, *on_relay, peer("nas"), policy=policy)
    ran = node.run(
        ("peers",),
        *on_relay[:3],
        peer("cured"),
        peer("nas", LastHandshake="2027-01-15T07:59:18Z", RxBytes=1536, TxBytes=5),
        peer("new", "peer_relay"),
        peer("asleep", "idle"),
        peer("phone", "offline", LastSeen="2027-01-12T08:00:00Z"),
        Version="1.102.3-t53a0d659a",
        Health=["Tailscale could not connect to any relay server.", "a\nb"],
    )
    assert (ran.status, ran.stderr) == (0, "")
    first, *header, titles = ran.stdout.splitlines()[:6]
    assert first == (
        "self is Running, tailscaled 1.102.3: "
        "8 peers (2 direct, 1 peer-relay, 3 derp, 1 idle, 1 offline)"
    )
    assert header == [
        "health: Tailscale could not connect to any relay server.",
        "health: a b",
        "watchdog: last run 1m ago; last restart 1m ago, 0 in total",
        "watchdog: next restart in 9m, because of stuck",
    ]
    assert re.split(r" {2,}", titles) == TITLES
    cells = rows(ran.stdout)
    assert list(cells) == ["stuck", "waiting", "asleep", "new", "excluded", "cured", "nas", "phone"]
    assert cells["stuck"] == ["relay fra", "11m 40s", "-", "0 B", "0 B", "cooling down, 9m left"]
    assert cells["waiting"][1:2] + cells["waiting"][-1:] == ["1m", "waiting, 1m of 10m"]
    assert cells["asleep"][0] == "idle"
    assert cells["asleep"][-1] == "just detected"
    assert cells["new"][0] == "peer-relay 192.0.2.9:7777:vni:1"
    assert cells["excluded"][-1] == "excluded"
    assert cells["nas"] == ["direct 192.0.2.7:41641", "-", "42s", "1.5 KiB", "5 B", "direct"]
    assert cells["phone"][:1] + cells["phone"][-1:] == ["offline 3d", "not watched"]


def test_a_node_without_a_name_or_a_version_has_neither_in_the_first_line(box: Path) -> None:
    status = box / "status.json"
    status.write_text('{"BackendState": "Stopped", "Self": null}')
    ran = run("peers", "--status-file", str(status))
    assert ran.stdout.splitlines()[0] == "this node is Stopped"


def test_the_next_restart_is_predicted(node: Node) -> None:
    node.run_watchdog(NOW - 350, peer("nas", "derp"))
    ran = node.run(("peers",), peer("nas", "derp"))
    assert "watchdog: next restart in 4m 11s, because of nas\n" in ran.stdout
    assert rows(ran.stdout)["nas"][-1] == "restart in 4m 11s"
    ran = node.run(("peers",), peer("nas", "derp"), now=NOW + 300)
    assert "watchdog: next restart in the next run, because of nas\n" in ran.stdout
    assert rows(ran.stdout)["nas"][-1] == "restart in the next run"


def test_a_watchdog_that_has_not_run_lately_is_overdue(node: Node) -> None:
    node.run_watchdog(NOW - 7200, peer("nas"))
    ran = node.run(("peers",), peer("nas"))
    assert (
        "watchdog: last run 2h ago (overdue; is its timer active?); no restart yet\n" in ran.stdout
    )


def test_a_watchdog_that_could_not_observe_the_peers_has_a_note(node: Node) -> None:
    run(
        *("watchdog", "--now", str(NOW - 60)),
        *("--status-file", f"{node.directory}/none"),
        *("--state-dir", f"{node.directory}/state"),
        *("--metrics-path", str(node.metrics)),
    )
    assert "(it could not observe the peers)" in node.run(("peers",), peer("nas")).stdout


def test_hidden_peers_are_counted_or_with_all_listed(node: Node) -> None:
    peers = (peer("nas"), *HIDDEN_PEERS)
    first, hidden, *_ = node.run(("peers",), *peers).stdout.splitlines()
    assert first.endswith(": 1 peer (1 direct)")
    assert hidden == (
        "hidden: 1 Mullvad exit node, 2 Funnel ingress nodes, 1 sharee; --all shows them"
    )
    text = node.run(("peers", "--all"), *peers).stdout
    assert len(rows(text)) == 5
    assert "hidden:" not in text


def test_a_peer_without_a_path_comes_first_and_says_so(node: Node) -> None:
    """Packets are sent to it, so it is not idle."""
    ran = node.run(("peers",), peer("a", "derp"), peer("b", "derp", Relay="", TxBytes=2000))
    assert ran.stdout.startswith("self is Running, tailscaled 1.102.3: 2 peers (1 derp, 1 no path)")
    assert {name: cells[0] for name, cells in rows(ran.stdout).items()} == {
        "b": "no path",
        "a": "relay fra",
    }
    assert list(rows(ran.stdout)) == ["b", "a"]


@pytest.mark.parametrize(
    ("path", "fields", "cell"),
    [
        ("offline", {"LastSeen": "2027-01-12T08:00:00Z"}, "offline 3d"),
        (
            "direct",
            {"LastSeen": "2027-01-12T08:00:00Z"},
            "offline 3d, active: direct 192.0.2.7:41641",
        ),
        ("peer_relay", {}, "offline, active: peer-relay 192.0.2.9:7777:vni:1"),
        ("derp", {}, "offline, active: relay fra"),
        ("derp", {"Relay": ""}, "offline, active: no path"),
    ],
)
def test_an_offline_peer_shows_the_path_of_its_packets(
    node: Node, path: str, fields: dict[str, str], cell: str
) -> None:
    ran = node.run(("peers",), peer("nas", path, **{"Online": False, **fields}))
    assert rows(ran.stdout)["nas"][0] == cell


# Terminals


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 120, 200])
def test_each_line_fits_the_terminal_and_each_peer_has_one_line(node: Node, columns: int) -> None:
    """With 300 peers, and with odd names."""
    arguments = node.with_many_peers(300)
    text = ESCAPE_SEQUENCE.sub("", run_on_terminal(*arguments, columns=columns)).rstrip("\n")
    lines = text.split("\n")
    assert max(map(len, lines)) <= columns
    numbers = [
        len(output.split("peer  ")[1].split("\n"))
        for output in (text, run(*arguments).stdout.rstrip("\n"))
    ]
    assert numbers[0] == numbers[1] > 300
    assert all(line.isprintable() for line in lines)
    titles = next(line for line in lines if line.startswith("peer ")).split()
    assert titles[-1] == "watchdog"
    assert "since" in titles or columns < 80


def test_only_a_terminal_without_no_color_gets_colors(node: Node) -> None:
    arguments = node.with_many_peers(3)
    assert "\x1b[31m" in run_on_terminal(*arguments, columns=120)
    assert not re.search(
        r"\x1b\[[0-9;]*3[0-9]m", run_on_terminal(*arguments, columns=120, env={"NO_COLOR": "1"})
    )
    assert not ESCAPE_SEQUENCE.search(run(*arguments).stdout)


def test_a_name_is_truncated_only_on_a_terminal(node: Node) -> None:
    name = "n" * 60
    node.status.write_bytes(encoded(peer(name)))
    arguments = ("peers", *node.options())
    assert f"\n{name}  " in run(*arguments).stdout
    for columns, start in ((120, "n" * 60 + "  "), (80, "n" * 48 + "…  "), (40, "n" * 19 + "…  ")):
        text = ESCAPE_SEQUENCE.sub("", run_on_terminal(*arguments, columns=columns))
        assert f"\n{start}" in text
