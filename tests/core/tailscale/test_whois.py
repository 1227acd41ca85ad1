"""The network report of `whois` is used if it is there."""

from __future__ import annotations

import json

import pytest
from returns.result import Failure, Success

from tsfc.core.tailscale.whois import NO_NET_INFO, NetInfo, decode


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        pytest.param(
            {"Node": {"Hostinfo": {"NetInfo": {"WorkingUDP": False, "PreferredDERP": 3}}}},
            NetInfo(working_udp=False),
            id="udp",
        ),
        pytest.param(
            {"Node": {"Hostinfo": {"NetInfo": {"MappingVariesByDestIP": True}}}},
            NetInfo(mapping_varies_by_dest_ip=True),
            id="nat",
        ),
        pytest.param({"Node": {"Hostinfo": {"NetInfo": None}}}, NO_NET_INFO, id="no-report"),
        pytest.param({"Node": {"Hostinfo": None}}, NO_NET_INFO, id="no-hostinfo"),
        pytest.param({"Node": None}, NO_NET_INFO, id="no-node"),
        pytest.param({}, NO_NET_INFO, id="empty"),
    ],
)
def test_what_the_server_does_not_say_is_unknown(response: object, expected: NetInfo) -> None:
    assert decode(json.dumps(response).encode()) == Success(expected)


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"Node":3}', b"\xff", b"no match for IP:port\n"])
def test_anything_else_is_one_line(raw: bytes) -> None:
    failed = decode(raw)
    assert isinstance(failed, Failure)
    assert failed.failure().startswith("reading the response of whois: ")
    assert failed.failure().isprintable()
