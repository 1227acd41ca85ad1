from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import FIXTURES, NAMES_FROM_HELL, handshakes, hostile_statuses
from support.statuses import PATHS, decoded, peer
from tsfc.core.exporter import LABEL_LIMIT, LAST_SUCCESS, metrics, parse_last_success
from tsfc.core.metrics.exposition import render
from tsfc.core.metrics.families import Family, Kind, Sample
from tsfc.core.tailscale.status import BACKEND_STATES, Status, decode

NOW = 1_795_438_440.0

PER_PEER = {
    "tailscale_peer_online": Kind.GAUGE,
    "tailscale_peer_direct": Kind.GAUGE,
    "tailscale_peer_active": Kind.GAUGE,
    "tailscale_peer_path": Kind.GAUGE,
    "tailscale_peer_exit_node": Kind.GAUGE,
    "tailscale_peer_rx_bytes_total": Kind.COUNTER,
    "tailscale_peer_tx_bytes_total": Kind.COUNTER,
    "tailscale_peer_last_handshake_seconds_ago": Kind.GAUGE,
    "tailscale_peer_info": Kind.GAUGE,
}
NODE = {
    "tailscale_up": Kind.GAUGE,
    LAST_SUCCESS: Kind.GAUGE,
    "tailscale_backend_state": Kind.GAUGE,
    "tailscale_health_issues": Kind.GAUGE,
    "tailscale_version_info": Kind.GAUGE,
}

HIDDEN_PEERS = "tailscale_hidden_peers"


def export(
    status: Status | None, *, now: float = NOW, last_success: float | None = None
) -> dict[str, Family]:
    return {family.name: family for family in metrics(status, now=now, last_success=last_success)}


def samples(
    name: str, *peers: dict[str, Any], now: float = NOW, **fields: Any
) -> list[tuple[dict[str, str], float]]:
    return [
        (dict(sample.labels), sample.value)
        for sample in export(decoded(*peers, **fields), now=now)[name].samples
    ]


def value(name: str, node: dict[str, Any]) -> float:
    [(_, only)] = samples(name, node)
    return only


def test_a_running_node_has_the_documented_metrics() -> None:
    """Names and types, each once."""
    families = metrics(decoded(peer("rpi3")), now=NOW, last_success=None)
    documented = {**NODE, HIDDEN_PEERS: Kind.GAUGE, **PER_PEER}
    assert [(family.name, family.kind) for family in families] == list(documented.items())


def test_without_a_status_up_is_0_and_the_last_success_is_kept() -> None:
    """There are no other metrics."""
    assert metrics(None, now=NOW, last_success=None) == (
        Family(
            "tailscale_up",
            Kind.GAUGE,
            "Whether tailscaled answers and its backend state is Running (1) or not (0).",
            (Sample({}, 0),),
        ),
    )
    exported = export(None, last_success=NOW - 30)
    assert {name: family.samples for name, family in exported.items()} == {
        "tailscale_up": (Sample({}, 0),),
        LAST_SUCCESS: (Sample({}, NOW - 30),),
    }


@pytest.mark.parametrize(
    "state",
    [
        "NoState",
        "InUseOtherUser",
        "NeedsLogin",
        "NeedsMachineAuth",
        "Stopped",
        "Starting",
        "Novel\n",
    ],
)
def test_no_peer_is_exported_while_the_backend_is_not_running(state: str) -> None:
    """Their flags are stale. The run is a success: tailscaled responded."""
    exported = export(decoded(peer("rpi3"), BackendState=state), last_success=1.0)
    assert list(exported) == list(NODE)
    assert exported["tailscale_up"].samples == (Sample({}, 0),)
    assert exported[LAST_SUCCESS].samples == (Sample({}, NOW),)


@pytest.mark.parametrize("peers", [pytest.param(None, id="null"), pytest.param({}, id="empty")])
def test_a_node_without_peers_has_no_series_per_peer(peers: dict[str, Any] | None) -> None:
    """Before the first netmap, Peer is null; HELP and TYPE are written anyway."""
    exported = export(decoded(Peer=peers, User=None))
    assert [exported[name].samples for name in PER_PEER] == [()] * len(PER_PEER)


def exported_peers(status: Status) -> tuple[set[str], dict[str, float]]:
    """Return the peers that have series, and the numbers of hidden peers by kind."""
    exported = export(status)
    return (
        {sample.labels["peer"] for name in PER_PEER for sample in exported[name].samples},
        {sample.labels["kind"]: sample.value for sample in exported[HIDDEN_PEERS].samples},
    )


@pytest.mark.parametrize(
    ("name", "peers", "counts"),
    [
        ("funnel", {"bravo"}, {"mullvad": 0, "funnel": 24, "sharee": 0}),
        (
            "mullvad-in-use",
            {"bravo", "se-sto-wg-000.mullvad.ts.net"},
            {"mullvad": 1, "funnel": 0, "sharee": 0},
        ),
    ],
)
def test_peers_that_tailscale_status_hides_are_only_counted(
    name: str, peers: set[str], counts: dict[str, float]
) -> None:
    """A Mullvad exit node in use is not hidden."""
    status = decode((FIXTURES / f"field/{name}.json").read_bytes()).unwrap()
    assert exported_peers(status) == (peers, counts)


def test_hundreds_of_mullvad_exit_nodes_add_three_series() -> None:
    mullvad = [
        peer("x", DNSName=f"se-sto-wg-{n}.mullvad.ts.net.", ExitNodeOption=True) for n in range(400)
    ]
    alone, among_them = (
        render(metrics(decoded(*peers), now=NOW, last_success=None)).splitlines()
        for peers in ([peer("rpi3")], [peer("rpi3"), *mullvad])
    )
    assert [line for line in among_them if line not in alone] == [
        f'{HIDDEN_PEERS}{{kind="mullvad"}} 400.0'
    ]
    assert len(among_them) == len(alone)


def test_a_hidden_peer_does_not_change_the_name_of_another() -> None:
    """Both are called the same, so both have their IDs in their names."""
    sharee = peer("nas", ID="nB", ShareeNode=True)
    assert exported_peers(decoded(peer("nas", ID="nA"), sharee))[0] == {"nas#nA"}


def test_the_backend_state_is_one_hot_and_may_be_new() -> None:
    """An unknown state gets its own series."""
    known = {
        labels["state"]: value
        for labels, value in samples("tailscale_backend_state", BackendState="NeedsLogin")
    }
    assert known == {state: int(state == "NeedsLogin") for state in BACKEND_STATES}
    novel = {
        labels["state"]: value
        for labels, value in samples("tailscale_backend_state", BackendState="Novel\n")
    }
    assert novel == dict.fromkeys(BACKEND_STATES, 0) | {"Novel\N{REPLACEMENT CHARACTER}": 1}


@pytest.mark.parametrize("never", [{}, {"KeyExpiry": None}, {"KeyExpiry": "0001-01-01T00:00:00Z"}])
def test_a_key_that_never_expires_has_no_series(
    never: dict[str, Any],
) -> None:
    """Only the key of the node is exported, not those of peers."""
    name = "tailscale_key_expiry_timestamp_seconds"
    assert samples(name, peer("rpi3"), Self={"KeyExpiry": "2026-11-23T12:53:53.5Z"}) == [
        ({}, 1795438433.5)
    ]
    assert name not in export(decoded(peer("rpi3", KeyExpiry="2026-11-23T12:53:53Z"), Self=never))


@pytest.mark.parametrize(
    ("health", "issues"), [(None, 0), ([], 0), (["one"], 1), (["one", "two\n"], 2)]
)
def test_health_issues_are_counted(health: list[str] | None, issues: int) -> None:
    """Their texts are not exported."""
    assert samples("tailscale_health_issues", Health=health) == [({}, issues)]


ROUTES = "Some peers are advertising routes but --accept-routes is false"
DNS = "Tailscale can't reach the configured DNS servers [unexpected?]"


@pytest.mark.parametrize(
    ("patterns", "issues", "accepted"),
    [
        pytest.param([ROUTES], 1, 1, id="whole message"),
        pytest.param(["*accept-routes*"], 1, 1, id="part"),
        pytest.param(["*ACCEPT-routes*"], 1, 1, id="case"),
        pytest.param(["accept-routes"], 2, 0, id="part without stars"),
        pytest.param(["Some peers"], 2, 0, id="beginning"),
        pytest.param(["*is false"], 1, 1, id="end"),
        pytest.param(["*can?t reach*"], 1, 1, id="one character"),
        pytest.param(["*[[]unexpected?]"], 1, 1, id="bracket"),
        pytest.param(["*--accept-routes*", "*dns*"], 0, 2, id="two patterns"),
        pytest.param(["*routes*", "*peers*"], 1, 1, id="one message, two patterns"),
        pytest.param(["*"], 0, 2, id="all"),
        pytest.param([""], 2, 0, id="empty"),
        pytest.param([r"[z-a]", "[", "(", "\\", "\udcff"], 2, 0, id="odd patterns"),
    ],
)
def test_accepted_health_messages_are_counted_apart(
    patterns: list[str], issues: int, accepted: int
) -> None:
    """A pattern is one of the shell, for a whole message, in any case."""
    families = metrics(
        decoded(Health=[ROUTES, DNS]), now=NOW, last_success=None, accept_health=patterns
    )
    counted = {family.name: family.samples for family in families if "_health_" in family.name}
    assert counted == {
        "tailscale_health_issues": (Sample({}, issues),),
        "tailscale_health_issues_accepted": (Sample({}, accepted),),
    }


def test_a_pattern_matches_a_message_of_several_lines() -> None:
    families = metrics(
        decoded(Health=["one\ntwo\n"]), now=NOW, last_success=None, accept_health=["one*"]
    )
    assert [family.samples for family in families if family.name == "tailscale_health_issues"] == [
        (Sample({}, 0),)
    ]


@given(st.lists(st.text() | st.text("[]!*?-az\\")))
def test_every_text_is_a_pattern(patterns: list[str]) -> None:
    assert metrics(decoded(Health=[ROUTES]), now=NOW, last_success=None, accept_health=patterns)


@pytest.mark.parametrize(
    ("version", "short"),
    [
        pytest.param("1.102.3-t53a0d659a-g5e1bd4a22", "1.102.3", id="release"),
        pytest.param("1.60.0", "1.60.0", id="short"),
        pytest.param("", "", id="empty"),
        pytest.param("-dev", "", id="only-suffix"),
        pytest.param("v\n" * 1000, "v\N{REPLACEMENT CHARACTER}" * 500, id="hostile"),
    ],
)
def test_the_short_version_ends_before_the_first_dash(version: str, short: str) -> None:
    """Both versions are printable and cut."""
    [(labels, one)] = samples("tailscale_version_info", Version=version)
    assert (labels["short_version"], one, labels["version"].isprintable()) == (short, 1, True)


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("tailscale_peer_online", {"Online": True}, 1),
        ("tailscale_peer_online", {"Online": False}, 0),
        ("tailscale_peer_active", {"Active": True}, 1),
        ("tailscale_peer_active", {"Active": False}, 0),
        ("tailscale_peer_direct", {"CurAddr": "192.0.2.7:41641"}, 1),
        ("tailscale_peer_direct", {"CurAddr": ""}, 0),
        (
            "tailscale_peer_direct",
            {"CurAddr": "192.0.2.7:41641", "Active": False, "Online": False},
            1,
        ),
        ("tailscale_peer_direct", {"CurAddr": "", "PeerRelay": "192.0.2.9:7777:vni:1"}, 0),
        ("tailscale_peer_exit_node", {"ExitNode": True}, 1),
        ("tailscale_peer_exit_node", {"ExitNode": False, "ExitNodeOption": True}, 0),
        ("tailscale_peer_rx_bytes_total", {"RxBytes": 156}, 156),
        ("tailscale_peer_rx_bytes_total", {"RxBytes": 2**63 - 1}, 2**63 - 1),
        ("tailscale_peer_tx_bytes_total", {"TxBytes": 436, "RxBytes": 1}, 436),
        ("tailscale_peer_info", {}, 1),
    ],
)
def test_each_metric_of_a_peer_comes_from_its_own_field(
    name: str, fields: dict[str, Any], expected: float
) -> None:
    assert value(name, peer("rpi3", **fields)) == expected


@pytest.mark.parametrize("path", PATHS)
def test_the_path_is_one_hot(path: str) -> None:
    """Every path has a series, so graphs have no gaps; the current path is 1."""
    assert samples("tailscale_peer_path", peer("rpi3", path)) == [
        ({"peer": "rpi3", "path": each}, float(each == path))
        for each in ("direct", "peer_relay", "derp", "idle", "offline")
    ]


def test_only_a_peer_without_a_path_has_the_series_none() -> None:
    """Packets are sent to it, but it has no address, no relay and no home region."""
    status = decode((FIXTURES / "field/no-derp.json").read_bytes()).unwrap()
    exported = export(status)["tailscale_peer_path"]
    assert {sample.labels["path"]: sample.value for sample in exported.samples} == {
        **dict.fromkeys(("direct", "peer_relay", "derp", "idle", "offline"), 0),
        "none": 1,
    }


@given(hostile_statuses())
def test_the_path_is_one_hot_for_every_peer(document: dict[str, Any]) -> None:
    """Each peer has five series or, without a path, six, and one of them is 1."""
    ones: dict[str, list[float]] = {}
    running: dict[str, Any] = document | {"BackendState": "Running"}
    exported = export(decoded(**running))
    for sample in exported["tailscale_peer_path"].samples:
        ones.setdefault(sample.labels["peer"], []).append(sample.value)
    hidden = sum(sample.value for sample in exported[HIDDEN_PEERS].samples)
    assert len(ones) + hidden == len(document["Peer"])
    assert all(sorted(values)[-5:] == [0, 0, 0, 0, 1] for values in ones.values())
    assert all(len(values) == (6 if values[5:] == [1] else 5) for values in ones.values())


@pytest.mark.parametrize(
    ("handshake", "ago"),
    [
        pytest.param("2026-11-23T12:54:00Z", 0.0, id="now"),
        pytest.param("2026-11-23T12:53:51.522548716Z", 8.477, id="nanoseconds"),
        pytest.param("2026-11-23T05:52:00.5-07:00", 119.5, id="offset"),
        pytest.param("2026-11-23T12:54:00.001Z", 0.0, id="a-millisecond-ahead"),
        pytest.param("2027-01-01T00:00:00Z", 0.0, id="next-year"),
        pytest.param("9999-12-31T23:59:59-12:00", 0.0, id="last-year-of-the-calendar"),
        pytest.param("1970-01-01T00:00:01Z", NOW - 1, id="first-second"),
    ],
)
def test_the_age_of_a_handshake_is_in_seconds(handshake: str, ago: float) -> None:
    """Rounded to milliseconds, and never negative."""
    assert (
        value("tailscale_peer_last_handshake_seconds_ago", peer("rpi3", LastHandshake=handshake))
        == ago
    )


@pytest.mark.parametrize(
    "handshake", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "1970-01-01T00:00:00Z"]
)
def test_a_peer_without_a_handshake_has_no_age(handshake: str) -> None:
    """Go's zero time is not an age of 2000 years; other peers keep their series."""
    peers = (
        peer("never", LastHandshake=handshake),
        peer("once", LastHandshake="2026-11-23T12:53:00Z"),
    )
    assert samples("tailscale_peer_last_handshake_seconds_ago", *peers) == [
        ({"peer": "once"}, 60.0)
    ]


@given(handshakes(), st.floats(0, 2e12))
def test_no_age_is_negative(handshake: str, now: float) -> None:
    assert all(
        ago >= 0
        for _, ago in samples(
            "tailscale_peer_last_handshake_seconds_ago",
            peer("rpi3", LastHandshake=handshake),
            now=now,
        )
    )


def test_the_info_metric_describes_a_peer_in_labels() -> None:
    """All labels are stable: endpoints, which change, are not among them."""
    described = peer(
        "rpi3",
        ID="nABC",
        HostName="Raspberry Pi 3",
        OS="linux",
        Relay="fra",
        Tags=["tag:a", "tag:b"],
        TailscaleIPs=["100.64.0.2", "fd7a::2"],
    )
    assert samples("tailscale_peer_info", described) == [
        (
            {
                "peer": "rpi3",
                "id": "nABC",
                "hostname": "Raspberry Pi 3",
                "dns_name": "rpi3.tail1.ts.net",
                "os": "linux",
                "relay": "fra",
                "user": "user@example.com",
                "tags": "tag:a,tag:b",
                "ip": "100.64.0.2",
            },
            1,
        )
    ]


@pytest.mark.parametrize(
    ("fields", "label", "expected"),
    [
        ({"Tags": None}, "tags", ""),
        ({"Tags": []}, "tags", ""),
        ({"TailscaleIPs": None}, "ip", ""),
        ({"TailscaleIPs": ["rpi3\n"]}, "ip", ""),
        ({"TailscaleIPs": ["fd7a::2"]}, "ip", "fd7a::2"),
        ({"UserID": 7}, "user", ""),
        ({"DNSName": ""}, "dns_name", ""),
        ({"HostName": "a\nb"}, "hostname", "a\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_a_label_without_a_value_is_empty(
    fields: dict[str, Any], label: str, expected: str
) -> None:
    """Every series has every label."""
    [(labels, _)] = samples("tailscale_peer_info", peer("rpi3", **fields))
    assert labels[label] == expected
    assert len(labels) == 9


def test_the_user_is_empty_before_the_users_are_known() -> None:
    """User may be null."""
    [(labels, _)] = samples("tailscale_peer_info", peer("rpi3"), User=None)
    assert labels["user"] == ""


@pytest.mark.parametrize("name", NAMES_FROM_HELL)
def test_label_values_are_printable_and_cut(name: str) -> None:
    evil = NAMES_FROM_HELL[name]
    node = peer(
        "rpi3",
        HostName=evil,
        DNSName=f"{evil}.",
        OS=evil,
        ID=evil,
        Relay=evil,
        Tags=[evil, evil],
        UserID=9,
    )
    [(labels, _)] = samples("tailscale_peer_info", node, User={"9": {"LoginName": evil}})
    assert "".join(labels.values()).isprintable()
    assert max(len(value) for value in labels.values()) <= LABEL_LIMIT


@given(hostile_statuses())
def test_every_sample_of_a_family_has_the_same_labels(document: dict[str, Any]) -> None:
    """Else the metric could not be aggregated. No two series are the same."""
    for family in metrics(decoded(**document), now=NOW, last_success=None):
        assert len({tuple(sample.labels) for sample in family.samples}) <= 1
        assert len({tuple(sample.labels.values()) for sample in family.samples}) == len(
            family.samples
        )


@given(st.integers(0, 2**40) | st.floats(0, 1e12))
def test_the_last_success_is_read_from_the_previous_file(at: float) -> None:
    """With tailscaled up, then down, then still down."""
    first = render(metrics(decoded(peer("rpi3")), now=at, last_success=None))
    assert parse_last_success(first) == at
    second = render(metrics(None, now=at + 30, last_success=parse_last_success(first)))
    assert parse_last_success(second) == at


@pytest.mark.parametrize(
    ("exposition", "at"),
    [
        pytest.param("", None, id="empty"),
        pytest.param("tailscale_up 1.0\n", None, id="absent"),
        pytest.param(f"{LAST_SUCCESS} 1.5e+09\n", 1.5e9, id="float"),
        pytest.param(f"tailscale_up 0.0\n{LAST_SUCCESS} 7\n", 7.0, id="int"),
        pytest.param(f'{LAST_SUCCESS}{{tailscaled="at work"}} 7\n', 7.0, id="label"),
        pytest.param(f'{LAST_SUCCESS}{{tailscaled="a }} 8"}} 7\n', 7.0, id="brace-in-a-label"),
        pytest.param(
            f"# HELP {LAST_SUCCESS} 7\n# TYPE {LAST_SUCCESS} gauge\n", None, id="described"
        ),
        pytest.param(f"{LAST_SUCCESS}\n", None, id="no-value"),
        pytest.param(f"{LAST_SUCCESS} \n", None, id="empty-value"),
        pytest.param(f"{LAST_SUCCESS} yesterday\n", None, id="text"),
        pytest.param(f"{LAST_SUCCESS} NaN\n", None, id="nan"),
        pytest.param(f"{LAST_SUCCESS} +Inf\n", None, id="inf"),
        pytest.param(f"{LAST_SUCCESS} 1e999\n", None, id="too-large"),
        pytest.param(f"{LAST_SUCCESS}_of_another 7\n", None, id="other-name"),
        pytest.param(
            f'tailscale_peer_info{{hostname="{LAST_SUCCESS} 7"}} 1\n', None, id="in-a-label"
        ),
        pytest.param(f"{LAST_SUCCESS} 1.5e+0", 1.5, id="cut"),
        pytest.param("\0\x1b\ufffd" * 100, None, id="garbage"),
    ],
)
def test_only_a_valid_number_is_a_last_success(exposition: str, at: float | None) -> None:
    """Another program may have written the file, or it may be truncated."""
    assert parse_last_success(exposition) == at
