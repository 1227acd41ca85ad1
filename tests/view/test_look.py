"""What the commands ask of the node, as values."""

from __future__ import annotations

from returns.result import Failure, Success

from support.statuses import encoded, peer
from tsfc.core.watchdog.policy import ThresholdPolicy
from tsfc.shell import waiting
from tsfc.shell.tailscaled.observe import RunOptions
from tsfc.view.look import Pinging, look

from .node import NOW, Node


def _common(node: Node) -> RunOptions:
    return RunOptions(status_file=str(node.status), now=NOW, source="localapi", socket="/none")


def test_a_node_with_its_watchdog_has_no_warnings(node: Node) -> None:
    node.run_watchdog(NOW - 60, peer("nas", "derp"))
    made = waiting.run(look("peers", _common(node), str(node.metrics)))
    assert isinstance(made, Success)
    view = made.unwrap()
    assert view.snapshot is not None
    assert isinstance(view.snapshot.policy, ThresholdPolicy)
    assert ([row.peer for row in view.rows], view.warnings) == (["nas"], ())


def test_what_cannot_be_read_or_pinged_is_a_warning(node: Node) -> None:
    node.status.write_bytes(encoded(peer("nas")))
    made = waiting.run(look("peers", _common(node), str(node.metrics), Pinging(1.0)))
    snapshot, pings = made.unwrap().warnings
    assert snapshot.startswith(f"reading {node.snapshot}: No such file or directory")
    assert pings.startswith("1 of 1 peers could not be pinged, the first because: ")


def test_a_status_that_cannot_be_read_is_a_failure(node: Node) -> None:
    made = waiting.run(look("peers", _common(node), str(node.metrics)))
    assert isinstance(made, Failure)
    assert made.failure().startswith(f"reading {node.status}: ")
