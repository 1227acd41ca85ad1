"""The JSON of `tsfc peers`."""

from __future__ import annotations

import json

from support.statuses import peer

from .node import HIDDEN_PEERS, NOW, Node


def test_the_json_has_its_documented_keys(node: Node) -> None:
    node.run_watchdog(NOW - 350, peer("nas", "derp"))
    ran = node.run(
        ("peers", "--format", "json"),
        peer("nas", "derp", LastHandshake="2027-01-15T07:59:18Z"),
        Version="1.102.3-t53a0d659a",
        Health=["Tailscale could not connect to any relay server.", "a\nb"],
    )
    assert (ran.status, ran.stderr, ran.stdout.count("\n")) == (0, "", 1)
    assert json.loads(ran.stdout) == {
        "at": NOW,
        "node": {
            "name": "self",
            "state": "Running",
            "version": "1.102.3-t53a0d659a",
            "health": ["Tailscale could not connect to any relay server.", "a b"],
            "key_expiry": None,
        },
        "watchdog": {
            "last_run": NOW - 350,
            "last_success": NOW - 350,
            "last_restart": None,
            "restarts": 0,
            "max_relay_seconds": 600,
            "cooldown_seconds": 600,
            "cooldown_remaining_seconds": 0,
            "held": None,
            "next_restart": {"in_seconds": 251, "peer": "nas", "remedy": "restart"},
        },
        "peers": [
            {
                "peer": "nas",
                "path": "derp",
                "active_path": "derp",
                "via": "fra",
                "relay_since": NOW - 350,
                "relay_seconds": 350,
                "handshake_seconds_ago": 42,
                "rx_bytes": 0,
                "tx_bytes": 0,
                "last_seen": None,
                "verdict": "waiting",
                "next": "restart in 4m 11s",
                "hidden": None,
                "ping": None,
            }
        ],
        "hidden": {"mullvad": 0, "funnel": 0, "sharee": 0},
        "unread": [],
    }


def test_the_json_shows_no_unprintable_character(node: Node) -> None:
    """A reader of the JSON gets the value as it is."""
    state, version = "a\u202eb", "1.102.3\u202e\x9b"
    arguments = ("peers", "--format", "json")
    completed = node.run(arguments, peer("nas"), BackendState=state, Version=version)
    assert completed.stdout.removesuffix("\n").isprintable()
    document = json.loads(completed.stdout)["node"]
    assert (document["state"], document["version"]) == (state, version)


def test_hidden_peers_are_counted_or_with_all_listed(node: Node) -> None:
    peers = (peer("nas"), *HIDDEN_PEERS)
    without, with_all = (
        json.loads(node.run(("peers", "--format", "json", *options), *peers).stdout)
        for options in ((), ("--all",))
    )
    assert [row["peer"] for row in without["peers"]] == ["nas"]
    assert without["hidden"] == {"mullvad": 1, "funnel": 2, "sharee": 1}
    assert {row["peer"]: row["hidden"] for row in with_all["peers"]} == {
        "nas": None,
        "us-nyc-wg-301.mullvad.ts.net": "mullvad",
        "funnel-ingress-node#nF1": "funnel",
        "funnel-ingress-node#nF2": "funnel",
        "guest": "sharee",
    }
    assert with_all["hidden"] == {"mullvad": 0, "funnel": 0, "sharee": 0}


def test_an_offline_peer_has_the_path_of_its_packets(node: Node) -> None:
    ran = node.run(
        ("peers", "--format", "json"), peer("nas", "direct", Online=False), peer("tv", "offline")
    )
    assert {
        row["peer"]: (row["path"], row["active_path"], row["via"])
        for row in json.loads(ran.stdout)["peers"]
    } == {"nas": ("offline", "direct", "192.0.2.7:41641"), "tv": ("offline", None, "")}


def test_the_json_of_an_explained_peer_has_its_documented_keys(node: Node) -> None:
    node.run_watchdog(NOW - 350, peer("nas", "derp"))
    ran = node.run(("explain", "nas", "--format", "json"), peer("nas", "derp"))
    peers = node.run(("peers", "--format", "json"), peer("nas", "derp"))
    lines = node.run(("explain", "nas"), peer("nas", "derp")).stdout.splitlines()
    assert (ran.status, ran.stderr, ran.stdout.count("\n")) == (0, "", 1)
    explained, listed = json.loads(ran.stdout), json.loads(peers.stdout)
    assert explained == {
        **{key: listed[key] for key in ("at", "node", "watchdog", "unread")},
        "peer": listed["peers"][0],
        "not_watched": None,
        "likely_cause": None,
        "alternatives": [
            {
                "option": "--max-relay-seconds 349",
                "verdict": "restart",
                "next_restart": {"in_seconds": 0, "peer": "nas", "remedy": "restart"},
            },
        ],
        "pings": [],
        "lines": lines,
    }


def test_the_json_of_other_nodes_has_nulls(node: Node) -> None:
    arguments = ("--format", "json")
    own = json.loads(node.run(("explain", "self", *arguments), peer("nas")).stdout)
    assert (own["peer"], own["not_watched"], own["alternatives"]) == (None, None, [])
    offline = node.run(("explain", "nas", *arguments), peer("nas", "offline")).stdout
    assert json.loads(offline)["not_watched"] == "offline"
