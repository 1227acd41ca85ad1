"""Every metric of every peer, against what `tailscale status`, `tailscale ping` and the coordination server say of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from lab import NAT, OLDEST, Lab, Node
from support.processes import complaints
from support.tailnets import Row, exported, rows, tsfc

T = TypeVar("T")

NODES = {
    "alpha": NAT.EASY,
    "direct": NAT.EASY,
    "exit": NAT.PUBLIC,
    "relayed": NAT.NO_UDP,
    "idle": NAT.EASY,
    "stopped": NAT.EASY,
    "unknown": NAT.EASY,
    "expired": NAT.EASY,
    "hard": NAT.HARD,
    "sharee": NAT.EASY,
}
"By what becomes of them, as alpha sees it; the exit node is a peer relay, too, for whom it can serve."
PINGED = ("direct", "exit", "relayed", "unknown", "hard")
ANSWER = re.compile(r"^pong from \S+ \([\d.]+\) via (?P<via>\S+?)(?:\(.*\))? in ", re.MULTILINE)
VIA = {"DERP": "derp", "peer-relay": "peer_relay"}
PATHS = ("direct", "peer_relay", "derp", "idle", "offline")


@dataclass(frozen=True)
class Tailnet:
    """A lab whose nodes have become what they are called."""

    lab: Lab
    alpha: Node
    path_to_hard: str
    "Peer relays came with v1.86."
    began: float
    "When the first packet was sent, in Unix time."


@pytest.fixture(scope="module")
def tailnet(release: str) -> Iterator[Tailnet]:
    path_to_hard = "derp" if release == OLDEST else "peer_relay"
    with Lab(NODES, version=release) as lab:
        alpha = lab.node("alpha")
        lab.node("exit").tailscale("set", "--advertise-exit-node")
        lab.route("exit", ["0.0.0.0/0", "::/0"])
        lab.tag("exit", ["tag:server", "tag:exit"])
        if path_to_hard == "peer_relay":
            lab.node("exit").tailscale("set", "--relay-server-port=40000")
        lab.share_to("sharee")
        lab.node("stopped").stop()
        lab.set_online("unknown", online=False)
        lab.expire("expired")
        lab.wait_until(
            lambda: (
                alpha.peer("exit").get("ExitNodeOption") and alpha.peer("expired").get("Expired")
            ),
            30,
        )
        lab.wait_until(
            lambda: not alpha.peer("stopped")["Online"] and not alpha.peer("unknown")["Online"], 30
        )
        alpha.tailscale("set", "--exit-node=exit")
        began = time.time()

        def have_become() -> bool:
            for name in PINGED:
                alpha.ping(name)
            wanted = {
                "direct": "direct",
                "exit": "direct",
                "unknown": "offline",
                "relayed": "derp",
                "hard": path_to_hard,
            }
            seen = shown(alpha)
            return all(
                seen[name].path == path for name, path in wanted.items()
            ) and alpha.is_direct("unknown")

        lab.wait_until(have_become, 60)
        for name in ("direct", "exit", "relayed", "hard"):
            lab.wait_until(lambda: alpha.ping(name, "TSMP").get("Err") == "", 30)  # noqa: B023
        yield Tailnet(lab, alpha, path_to_hard, began)


def shown(node: Node) -> dict[str, Row]:
    return rows(node.tailscale("status"), node.status()["TailscaleIPs"][0])


def in_one_instant(tailnet: Tailnet, path: Path) -> tuple[dict[str, float], dict[str, Row]]:
    """Runs the exporter between two looks at `tailscale status` that say the same."""
    return between_two_looks(tailnet, lambda: exported(tailnet.alpha, path))


def between_two_looks(tailnet: Tailnet, run: Callable[[], T]) -> tuple[T, dict[str, Row]]:
    """Runs something between two looks at `tailscale status` that say the same; returns what it did, and what they say."""
    found: list[tuple[T, dict[str, Row]]] = []

    def is_still() -> bool:
        for name in PINGED:
            tailnet.alpha.ping(name)
        before = shown(tailnet.alpha)
        found.append((run(), before))
        return shown(tailnet.alpha) == before

    tailnet.lab.wait_until(is_still, 60)
    return found[-1]


def per_peer(series: dict[str, float], metric: str) -> dict[str, float]:
    """Returns the values of a metric that has no label but `peer`."""
    return {
        match[1]: value
        for name, value in series.items()
        if (match := re.fullmatch(rf'{metric}\{{peer="([^"]*)"\}}', name))
    }


def test_what_tailscale_status_says_of_each_peer(tailnet: Tailnet, box: Path) -> None:
    series, seen = in_one_instant(tailnet, box / "peers.prom")
    series = {
        name: value for name, value in series.items() if 'peer="sharee"' not in name
    }  # `tailscale status` shows none
    assert set(seen) == set(NODES) - {"alpha", "sharee"}
    assert per_peer(series, "tailscale_peer_online") == {
        name: row.is_online for name, row in seen.items()
    }
    assert per_peer(series, "tailscale_peer_active") == {
        name: row.is_active for name, row in seen.items()
    }
    assert per_peer(series, "tailscale_peer_exit_node") == {
        name: row.is_exit_node for name, row in seen.items()
    }
    assert per_peer(series, "tailscale_peer_tx_bytes_total") == {
        name: row.tx for name, row in seen.items()
    }
    assert per_peer(series, "tailscale_peer_rx_bytes_total") == {
        name: row.rx for name, row in seen.items()
    }
    paths = {
        name: {
            path: series[f'tailscale_peer_path{{path="{path}",peer="{name}"}}'] for path in PATHS
        }
        for name in seen
    }
    assert paths == {name: {path: path == row.path for path in PATHS} for name, row in seen.items()}
    direct = {name for name, value in per_peer(series, "tailscale_peer_direct").items() if value}
    assert direct == {name for name, row in seen.items() if row.path == "direct"} | {"unknown"}
    assert sum(row.tx > 0 and row.rx > 0 for row in seen.values()) >= 4


def test_what_tsfc_peers_shows_of_each_peer(tailnet: Tailnet, box: Path) -> None:
    def look() -> list[dict[str, Any]]:
        ran = tsfc(
            tailnet.alpha, "peers", "--format", "json", "--watchdog-metrics", str(box / "none.prom")
        )
        assert ran.status == 0, ran
        peers: list[dict[str, Any]] = json.loads(ran.stdout)["peers"]
        return peers

    peers, seen = between_two_looks(tailnet, look)
    assert {
        peer["peer"]: (peer["path"], peer["rx_bytes"], peer["tx_bytes"])
        for peer in peers
        if peer["peer"] != "sharee"
    } == {name: (row.path, row.rx, row.tx) for name, row in seen.items()}
    assert {peer["via"] for peer in peers if peer["path"] == "derp"} == {"fra"}
    assert all(
        re.fullmatch(r"[\d.]+:\d+", peer["via"]) for peer in peers if peer["path"] == "direct"
    )


def test_all_that_a_peer_can_be_is_there(tailnet: Tailnet, box: Path) -> None:
    """Else the other tests would hold for a tailnet where nothing is the case."""
    _, seen = in_one_instant(tailnet, box / "peers.prom")
    assert {name: row.path for name, row in seen.items()} == {
        "direct": "direct",
        "exit": "direct",
        "relayed": "derp",
        "idle": "idle",
        "stopped": "offline",
        "unknown": "offline",
        "expired": "idle",
        "hard": tailnet.path_to_hard,
    }


def test_what_tailscale_ping_says_of_each_peer_that_it_reaches(tailnet: Tailnet, box: Path) -> None:
    """It pings a relayed peer on every path that there is, and says which was the fastest: sooner or later the one in use."""
    series, _ = in_one_instant(tailnet, box / "peers.prom")
    for name in ("direct", "exit", "relayed", "hard"):

        def says_so(name: str = name) -> bool:
            said = ANSWER.search(
                tailnet.alpha.tailscale(
                    "ping", "-c", "1", "--until-direct=false", name, check=False
                )
            )
            return (
                said is not None
                and series[
                    f'tailscale_peer_path{{path="{VIA.get(said["via"], "direct")}",peer="{name}"}}'
                ]
                == 1
            )

        tailnet.lab.wait_until(says_so, 20)


def test_what_the_coordination_server_says_of_each_peer(tailnet: Tailnet, box: Path) -> None:
    series, seen = in_one_instant(tailnet, box / "peers.prom")
    known = {name: node for name, node in tailnet.lab.control_nodes().items() if name != "alpha"}
    assert set(known) == set(NODES) - {"alpha"}
    assert per_peer(series, "tailscale_peer_online") == {
        name: node["online"] for name, node in known.items()
    }
    infos = {name for name in series if name.startswith("tailscale_peer_info{")}
    assert infos == {info(name, node) for name, node in known.items()}
    assert {row.os for row in seen.values()} == {"linux"}


def info(name: str, node: dict[str, Any]) -> str:
    """Returns the series that a peer's metadata are, from what the coordination server knows; a relay is never that of an expired peer."""
    labels = {
        "dns_name": node["dns_name"].removesuffix("."),
        "hostname": name,
        "id": node["id"],
        "ip": node["addresses"][0].removesuffix("/32"),
        "os": node["os"],
        "peer": name,
        "relay": "" if name == "expired" else node["derp"],
        "tags": ",".join(node["tags"] or ()),
        "user": node["user"],
    }
    pairs = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return f"tailscale_peer_info{{{pairs}}}"


def test_a_handshake_is_as_old_as_the_first_packet_at_most(tailnet: Tailnet, box: Path) -> None:
    series, seen = in_one_instant(tailnet, box / "peers.prom")
    ages = per_peer(series, "tailscale_peer_last_handshake_seconds_ago")
    assert set(ages) == {name for name, row in seen.items() if row.rx}
    assert all(0 <= age <= time.time() - tailnet.began for age in ages.values()), ages


def test_the_node_itself(tailnet: Tailnet, box: Path, release: str) -> None:
    series, _ = in_one_instant(tailnet, box / "peers.prom")
    assert series["tailscale_up"] == 1
    assert abs(series["tailscale_exporter_last_success_timestamp_seconds"] - time.time()) < 60
    said = tailnet.alpha.tailscale("status")
    assert series["tailscale_health_issues"] == sum(
        line.startswith("#     - ") for line in said.splitlines()
    )
    short, *_ = tailnet.alpha.tailscale("version").splitlines()
    assert f"v{short.partition('-')[0]}" == release
    (version,) = [name for name in series if name.startswith("tailscale_version_info")]
    assert f'short_version="{short.partition("-")[0]}"' in version
    assert series["tailscale_exporter_duration_seconds"] < 5


def test_native_metrics_are_those_of_tailscale_metrics_print_to_the_byte(
    tailnet: Tailnet, box: Path
) -> None:
    file = box / "native.prom"
    found: list[tuple[str, str]] = []

    def is_still() -> bool:
        before = tailnet.alpha.tailscale("metrics", "print")
        ran = tsfc(tailnet.alpha, "native-metrics", "--metrics-path", str(file))
        assert complaints("native-metrics", ran) == []
        found.append((before, file.read_text()))
        return tailnet.alpha.tailscale("metrics", "print") == before

    tailnet.lab.wait_until(is_still, 60)
    said, text = found[-1]
    assert 'tailscaled_outbound_bytes_total{path="direct_ipv4"}' in said
    assert text.startswith(said)
    own = [
        line.rpartition(" ")[0]
        for line in text.removeprefix(said).splitlines()
        if not line.startswith("#")
    ]
    assert own == ["tailscale_native_metrics_up", "tailscale_native_metrics_duration_seconds"]


@pytest.mark.parametrize("job", ["exporter", "native-metrics"])
def test_the_program_and_the_socket_say_the_same(tailnet: Tailnet, box: Path, job: str) -> None:
    ways = {
        "localapi": (),
        "cli": ("--source", "cli", "--tailscale", str(tailnet.lab.programs / "tailscale")),
    }

    def same() -> bool:
        texts: list[list[str]] = []
        for way, flags in ways.items():
            path = box / f"{way}.prom"
            assert (
                complaints(job, tsfc(tailnet.alpha, job, "--metrics-path", str(path), *flags)) == []
            )
            texts.append(
                [
                    line
                    for line in path.read_text().splitlines()
                    if not re.search(r"(_ago|_seconds)(\{.*)? [0-9.e+-]+$", line)
                ]
            )
        return texts[0] == texts[1]

    tailnet.lab.wait_until(same, 60)
