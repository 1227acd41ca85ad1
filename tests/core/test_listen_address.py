from __future__ import annotations

from ipaddress import ip_address

import pytest

from tsfc.core.listen_address import far_problem, is_near, parsed


@pytest.mark.parametrize(
    ("address", "ip", "port"),
    [
        ("127.0.0.1:9199", "127.0.0.1", 9199),
        ("0.0.0.0:1", "0.0.0.0", 1),  # noqa: S104 - parsed, not used
        ("[::1]:65535", "::1", 65535),
    ],
)
def test_an_address_has_an_ip_and_a_port(address: str, ip: str, port: int) -> None:
    assert parsed(address) == (ip_address(ip), port)


@pytest.mark.parametrize(
    "address",
    [
        *("", "9199", "127.0.0.1", "localhost:9199", ":9199", "/run/tsfc/agent.sock"),
        *("127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:a"),
        *("127.0.0.1:\N{ARABIC-INDIC DIGIT ONE}", f"127.0.0.1:{'9' * 10_000}"),
    ],
)
def test_anything_else_is_no_address(address: str) -> None:
    assert parsed(address) is None


@pytest.mark.parametrize(
    ("ip", "near"),
    [
        *(("127.255.0.1", True), ("::1", True), ("100.64.0.0", True), ("100.127.255.255", True)),
        *(("fd7a:115c:a1e0:ffff::1", True), ("fd7a:115c:a1e1::", False), ("::", False)),
        *(("100.63.255.255", False), ("100.128.0.0", False), ("192.168.0.1", False)),
        ("0.0.0.0", False),  # noqa: S104 - compared, not used
    ],
)
def test_loopback_and_the_addresses_of_tailscale_are_near(ip: str, *, near: bool) -> None:
    assert is_near(ip_address(ip)) is near


def test_the_problem_names_the_option_that_allows_the_address() -> None:
    assert far_problem("--listen-anywhere").endswith("or add --listen-anywhere")
