"""The exporter compared with `tailscale status`, `tailscale ping` and the server."""

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
from support.processes import error_lines
from support.tailnets import Row, exported, rows, tsfc

T = TypeVar("T")

NODES = {
    "alpha": NAT.EASY,
    "direct": NAT.EASY,
    "exit": NAT.PUBLIC,
    "relayed": NAT.NO_UDP,
    "idle": NAT.EASY,
    "stopped": NAT.EASY,
    "unrecords": NAT.EASY,
    "expired": NAT.EASY,
    "hard": NAT.HARD,
    "sharee": NAT.EASY,
}
"Named by their state as alpha sees it. The exit node is also a peer relay server."
PINGED = ("direct", "exit", "relayed", "unrecords", "hard")
PONG = re.compile(r"^pong from \S+ \([\d.]+\) via (?P<via>\S+?)(?:\(.*\))? in ", re.MULTILINE)
VIA = {"DERP": "derp", "peer-relay": "peer_relay"}
PATHS = ("direct", "peer_relay", "derp", "idle", "offline")


@dataclass(frozen=True)
class Tailnet:
    """A lab whose nodes are in the states that their names say."""

    lab: Lab
    alpha: Node
    path_to_hard: str
    "`peer_relay`, or `derp` before v1.86, the first release with peer relays."
    start: float
    "Unix time before the first packet."


@pytest.fixture(scope="module")
def tailnet(release: str) -> Iterator[Tailnet]:
    path_to_hard = "derp" if release == OLDEST else "peer_relay"
    with Lab(NODES, version=release) as lab:
        # Put the nodes into their states.
        alpha = lab.node("alpha")
        lab.node("exit").tailscale("set", "--advertise-exit-node")
        lab.route("exit", ["0.0.0.0/0", "::/0"])
        lab.tag("exit", ["tag:server", "tag:exit"])
        if path_to_hard == "peer_relay":
            lab.node("exit").tailscale("set", "--relay-server-port=40000")
        lab.share_to("sharee")
        lab.node("stopped").stop()
        lab.set_online("unrecords", online=False)
        lab.expire("expired")
        # Wait until alpha sees the states.
        lab.wait_until(
            lambda: (
                alpha.peer("exit").get("ExitNodeOption") and alpha.peer("expired").get("Expired")
            ),
            30,
        )
        lab.wait_until(
            lambda: not alpha.peer("stopped")["Online"] and not alpha.peer("unrecords")["Online"],
            30,
        )
        # Ping until the paths are as expected.
        alpha.tailscale("set", "--exit-node=exit")
        start = time.time()

        def is_ready() -> bool:
            for name in PINGED:
                alpha.ping(name)
            paths = {
                "direct": "direct",
                "exit": "direct",
                "unrecords": "offline",
                "relayed": "derp",
                "hard": path_to_hard,
            }
            peers = status_rows(alpha)
            return all(
                peers[name].path == path for name, path in paths.items()
            ) and alpha.is_direct("unrecords")

        lab.wait_until(is_ready, 60)
        for name in ("direct", "exit", "relayed", "hard"):
            lab.wait_until(lambda: alpha.ping(name, "TSMP").get("Err") == "", 30)  # noqa: B023
        yield Tailnet(lab, alpha, path_to_hard, start)


def status_rows(node: Node) -> dict[str, Row]:
    return rows(node.tailscale("status"), node.status()["TailscaleIPs"][0])


def export(tailnet: Tailnet, path: Path) -> tuple[dict[str, float], dict[str, Row]]:
    """Return the series of an exporter run, and the peers of `tailscale status`."""
    return with_status(tailnet, lambda: exported(tailnet.alpha, path))


def with_status(tailnet: Tailnet, run: Callable[[], T]) -> tuple[T, dict[str, Row]]:
    """Call `run` until `tailscale status` is the same before and after it.

    Return its value and the peers of that status.
    """
    attempts: list[tuple[T, dict[str, Row]]] = []

    def is_unchanged() -> bool:
        for name in PINGED:
            tailnet.alpha.ping(name)
        before = status_rows(tailnet.alpha)
        attempts.append((run(), before))
        return status_rows(tailnet.alpha) == before

    tailnet.lab.wait_until(is_unchanged, 60)
    return attempts[-1]


def per_peer(series: dict[str, float], metric: str) -> dict[str, float]:
    """Return the values of a metric by peer; `peer` is its only label."""
    return {
        match[1]: value
        for name, value in series.items()
        if (match := re.fullmatch(rf'{metric}\{{peer="([^"]*)"\}}', name))
    }


def test_each_peer_is_exported_as_tailscale_status_shows_it(tailnet: Tailnet, box: Path) -> None:
    series, status = export(tailnet, box / "peers.prom")
    assert series['tailscale_hidden_peers{kind="sharee"}'] == 1
    assert set(status) == set(NODES) - {"alpha", "sharee"}
    assert per_peer(series, "tailscale_peer_online") == {
        name: row.is_online for name, row in status.items()
    }
    assert per_peer(series, "tailscale_peer_active") == {
        name: row.is_active for name, row in status.items()
    }
    assert per_peer(series, "tailscale_peer_exit_node") == {
        name: row.is_exit_node for name, row in status.items()
    }
    assert per_peer(series, "tailscale_peer_tx_bytes_total") == {
        name: row.tx for name, row in status.items()
    }
    assert per_peer(series, "tailscale_peer_rx_bytes_total") == {
        name: row.rx for name, row in status.items()
    }
    paths = {
        name: {
            path: series[f'tailscale_peer_path{{path="{path}",peer="{name}"}}'] for path in PATHS
        }
        for name in status
    }
    assert paths == {
        name: {path: path == row.path for path in PATHS} for name, row in status.items()
    }
    direct = {name for name, value in per_peer(series, "tailscale_peer_direct").items() if value}
    assert direct == {name for name, row in status.items() if row.path == "direct"} | {"unrecords"}
    assert sum(row.tx > 0 and row.rx > 0 for row in status.values()) >= 4


def test_tsfc_peers_shows_each_peer_as_tailscale_status_does(tailnet: Tailnet, box: Path) -> None:
    def run_peers() -> list[dict[str, Any]]:
        ran = tsfc(
            tailnet.alpha, "peers", "--format", "json", "--watchdog-metrics", str(box / "none.prom")
        )
        assert ran.status == 0, ran
        peers: list[dict[str, Any]] = json.loads(ran.stdout)["peers"]
        return peers

    peers, status = with_status(tailnet, run_peers)
    assert {peer["peer"]: (peer["path"], peer["rx_bytes"], peer["tx_bytes"]) for peer in peers} == {
        name: (row.path, row.rx, row.tx) for name, row in status.items()
    }
    assert {peer["via"] for peer in peers if peer["path"] == "derp"} == {"fra"}
    assert all(
        re.fullmatch(r"[\d.]+:\d+", peer["via"]) for peer in peers if peer["path"] == "direct"
    )


def test_the_tailnet_has_a_peer_on_every_path(tailnet: Tailnet, box: Path) -> None:
    """The other tests would pass on an empty tailnet as well."""
    _, status = export(tailnet, box / "peers.prom")
    assert {name: row.path for name, row in status.items()} == {
        "direct": "direct",
        "exit": "direct",
        "relayed": "derp",
        "idle": "idle",
        "stopped": "offline",
        "unrecords": "offline",
        "expired": "idle",
        "hard": tailnet.path_to_hard,
    }


def test_each_reachable_peer_is_exported_with_the_path_of_tailscale_ping(
    tailnet: Tailnet, box: Path
) -> None:
    """The fastest pong, which `tailscale ping` prints, need not be on the path in use.

    So the test pings each peer until it is.
    """
    series, _ = export(tailnet, box / "peers.prom")
    for name in ("direct", "exit", "relayed", "hard"):

        def is_same_path(name: str = name) -> bool:
            pong = PONG.search(
                tailnet.alpha.tailscale(
                    "ping", "-c", "1", "--until-direct=false", name, check=False
                )
            )
            return (
                pong is not None
                and series[
                    f'tailscale_peer_path{{path="{VIA.get(pong["via"], "direct")}",peer="{name}"}}'
                ]
                == 1
            )

        tailnet.lab.wait_until(is_same_path, 20)


def test_each_peer_is_exported_with_the_metadata_of_the_coordination_server(
    tailnet: Tailnet, box: Path
) -> None:
    series, status = export(tailnet, box / "peers.prom")
    records = tailnet.lab.control_nodes()
    assert set(records) == set(NODES)
    del records["alpha"], records["sharee"]
    assert per_peer(series, "tailscale_peer_online") == {
        name: node["online"] for name, node in records.items()
    }
    infos = {name for name in series if name.startswith("tailscale_peer_info{")}
    assert infos == {info(name, node) for name, node in records.items()}
    assert {row.os for row in status.values()} == {"linux"}


def info(name: str, node: dict[str, Any]) -> str:
    """Return the info series of a peer from the server's record of it.

    tailscaled reports no home region for an expired peer.
    """
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


def test_no_handshake_is_older_than_the_first_packet(tailnet: Tailnet, box: Path) -> None:
    series, status = export(tailnet, box / "peers.prom")
    ages = per_peer(series, "tailscale_peer_last_handshake_seconds_ago")
    assert set(ages) == {name for name, row in status.items() if row.rx}
    assert all(0 <= age <= time.time() - tailnet.start for age in ages.values()), ages


def test_the_node_is_exported_with_its_version_and_health(
    tailnet: Tailnet, box: Path, release: str
) -> None:
    series, _ = export(tailnet, box / "peers.prom")
    assert series["tailscale_up"] == 1
    assert abs(series["tailscale_exporter_last_success_timestamp_seconds"] - time.time()) < 60
    output = tailnet.alpha.tailscale("status")
    assert series["tailscale_health_issues"] == sum(
        line.startswith("#     - ") for line in output.splitlines()
    )
    short, *_ = tailnet.alpha.tailscale("version").splitlines()
    assert f"v{short.partition('-')[0]}" == release
    (version,) = [name for name in series if name.startswith("tailscale_version_info")]
    assert f'short_version="{short.partition("-")[0]}"' in version
    assert series["tailscale_exporter_duration_seconds"] < 5


def test_native_metrics_equal_tailscale_metrics_print_byte_for_byte(
    tailnet: Tailnet, box: Path
) -> None:
    file = box / "native.prom"
    attempts: list[tuple[str, str]] = []

    def is_unchanged() -> bool:
        before = tailnet.alpha.tailscale("metrics", "print")
        ran = tsfc(tailnet.alpha, "native-metrics", "--metrics-path", str(file))
        assert error_lines("native-metrics", ran) == []
        attempts.append((before, file.read_text()))
        return tailnet.alpha.tailscale("metrics", "print") == before

    tailnet.lab.wait_until(is_unchanged, 60)
    output, text = attempts[-1]
    assert 'tailscaled_outbound_bytes_total{path="direct_ipv4"}' in output
    assert text.startswith(output)
    own = [
        line.rpartition(" ")[0]
        for line in text.removeprefix(output).splitlines()
        if not line.startswith("#")
    ]
    assert own == ["tailscale_native_metrics_up", "tailscale_native_metrics_duration_seconds"]


@pytest.mark.parametrize("job", ["exporter", "native-metrics"])
def test_both_sources_export_the_same_metrics(tailnet: Tailnet, box: Path, job: str) -> None:
    sources = {
        "localapi": (),
        "cli": ("--source", "cli", "--tailscale", str(tailnet.lab.programs / "tailscale")),
    }

    def is_same() -> bool:
        texts: list[list[str]] = []
        for source, flags in sources.items():
            path = box / f"{source}.prom"
            assert (
                error_lines(job, tsfc(tailnet.alpha, job, "--metrics-path", str(path), *flags))
                == []
            )
            texts.append(
                [
                    line
                    for line in path.read_text().splitlines()
                    if not re.search(r"(_ago|_seconds)(\{.*)? [0-9.e+-]+$", line)
                ]
            )
        return texts[0] == texts[1]

    tailnet.lab.wait_until(is_same, 60)
