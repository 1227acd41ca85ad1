"""Which peers are shown, and in which order."""

from __future__ import annotations

import json

import pytest

from support.processes import error_lines
from support.statuses import decoded, peer
from tsfc.cli import values
from tsfc.core.clock import Instant
from tsfc.core.tailscale.paths import Path
from tsfc.core.tailscale.ping import PingOutcome, PingResult
from tsfc.core.watchdog.events import Observed
from tsfc.view.cells import COLUMNS
from tsfc.view.model import make_view
from tsfc.view.selection import EVERYTHING, KEYS, PATHS, Selection, select, selection_lines

from .node import NOW, Node, rows

VIEW = make_view(
    Observed(
        decoded(
            peer("host10", "derp", RxBytes=5, LastHandshake="2027-01-15T07:59:00Z"),
            peer("host2", "direct", TxBytes=2000, LastHandshake="2027-01-15T07:00:00Z"),
            peer("Host3", "peer_relay", RxBytes=9),
            peer("x", "idle"),
            peer("nas", "derp", Relay=""),
            peer("tv", "offline"),
        )
    ),
    None,
    now=Instant(NOW),
    pings={
        "host2": PingResult(PingOutcome.DIRECT, 0.01),
        "x": PingResult(PingOutcome.NO_REPLY),
        "tv": PingResult(PingOutcome.DERP, 0.2),
    },
)


def _names(selection: Selection) -> str:
    return " ".join(row.peer for row in select(VIEW, selection))


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("watchdog", "nas host10 host3 host2 x tv"),
        ("peer", "host2 host3 host10 nas tv x"),
        ("path", "nas host10 host3 host2 x tv"),
        ("since", "host2 host3 host10 nas tv x"),
        ("handshake", "host2 host10 host3 nas tv x"),
        ("received", "host3 host10 host2 nas tv x"),
        ("sent", "host2 host3 host10 nas tv x"),
        ("ping", "tv host2 host3 host10 nas x"),
    ],
)
def test_peers_are_sorted_by_a_column_and_then_by_name(key: str, names: str) -> None:
    assert _names(Selection(key)).casefold() == names


def test_each_column_and_each_path_can_be_selected() -> None:
    assert tuple(KEYS) == values.COLUMNS == tuple(column.title for column in COLUMNS)
    assert set(PATHS.values()) == set(Path)
    assert values.paths(",".join(PATHS)) == tuple(PATHS)


@pytest.mark.parametrize(
    ("selection", "names", "line"),
    [
        (EVERYTHING, "nas host10 host3 host2 x tv", []),
        (Selection(only=("relay",)), "host10", ["shown: 1 of 6 peers; --only relay"]),
        (
            Selection(only=("idle", "no-path")),
            "nas x",
            ["shown: 2 of 6 peers; --only idle,no-path"],
        ),
        (
            Selection(text="HOST"),
            "host10 host3 host2",
            ["shown: 3 of 6 peers; --filter HOST"],
        ),
        (Selection(text="fra"), "host10", ["shown: 1 of 6 peers; --filter fra"]),
        (Selection(text="not watched"), "tv", ["shown: 1 of 6 peers; --filter not watched"]),
        (
            Selection(only=("relay",), text="x\n"),
            "",
            ["shown: 0 of 6 peers; --only relay --filter x"],
        ),
    ],
)
def test_peers_are_selected_by_path_and_text(
    selection: Selection, names: str, line: list[str]
) -> None:
    assert _names(selection).casefold() == names
    assert selection_lines(VIEW, select(VIEW, selection), selection) == line


def test_the_options_select_in_text_and_in_json(node: Node) -> None:
    peers = (peer("web10", "derp"), peer("web9", "derp"), peer("b", "derp"), peer("web1"))
    options = ("--only", "relay", "--filter", "WEB", "--sort", "peer")
    text = node.run(("peers", *options), *peers).stdout
    assert list(rows(text)) == ["web9", "web10"]
    assert "\nshown: 2 of 4 peers; --only relay --filter WEB\n" in text
    document = json.loads(node.run(("peers", "--format", "json", *options), *peers).stdout)
    assert [row["peer"] for row in document["peers"]] == ["web9", "web10"]


@pytest.mark.parametrize("options", [("--only", "tcp"), ("--only", ""), ("--sort", "name")])
def test_an_unknown_path_or_column_is_a_usage_error(node: Node, options: tuple[str, str]) -> None:
    ran = node.run(("peers", *options), peer("nas"))
    assert (ran.status, ran.stdout) == (2, "")
    assert len(error_lines("peers", ran) or ran.stderr.splitlines()) == 1
