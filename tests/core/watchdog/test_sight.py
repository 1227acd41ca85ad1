"""What counts as evidence of a path, under each policy."""

from __future__ import annotations

from typing import Any

import pytest

from support.statuses import decoded, peer
from tsfc.core.tailscale.status import PeerStatus
from tsfc.core.watchdog.sight import Sight, by_address, by_evidence


def _status(path: str, **fields: Any) -> PeerStatus:
    (status,) = (decoded(peer("nas", path, **fields)).peer or {}).values()
    return status


@pytest.mark.parametrize(
    ("path", "fields", "address", "evidence"),
    [
        pytest.param("direct", {}, Sight.DIRECT, Sight.DIRECT, id="direct"),
        pytest.param("derp", {}, Sight.RELAY, Sight.RELAY, id="derp"),
        pytest.param("derp", {"Relay": ""}, Sight.RELAY, Sight.UNKNOWN, id="no-path"),
        pytest.param("peer_relay", {}, Sight.RELAY, Sight.UNKNOWN, id="peer-relay"),
        pytest.param("idle", {}, Sight.RELAY, Sight.UNKNOWN, id="idle"),
        pytest.param("direct", {"OS": "iOS"}, Sight.DIRECT, Sight.UNKNOWN, id="iOS"),
        pytest.param("derp", {"OS": "android"}, Sight.RELAY, Sight.UNKNOWN, id="android"),
    ],
)
def test_evidence_is_only_what_packets_do(
    path: str, fields: dict[str, Any], address: Sight, evidence: Sight
) -> None:
    status = _status(path, **fields)
    assert (by_address(status), by_evidence(status)) == (address, evidence)
