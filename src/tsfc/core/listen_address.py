"""The IP addresses and ports on which the agent answers HTTP requests."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

IP = IPv4Address | IPv6Address
_NEAR = tuple(
    ip_network(network)
    for network in ("127.0.0.0/8", "::1/128", "100.64.0.0/10", "fd7a:115c:a1e0::/48")
)
"Loopback, and the addresses of Tailscale (https://tailscale.com/kb/1015)."


def parsed(address: str) -> tuple[IP, int] | None:
    """Return the IP address and the port of `IP:PORT`; None if it is something else."""
    host, _, port = address.rpartition(":")
    try:
        ip = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    is_port = port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 2**16
    return (ip, int(port)) if is_port else None


def is_near(ip: IP) -> bool:
    """Whether only this host and its tailnet can reach the address."""
    return any(ip in network for network in _NEAR)


def far_problem(option: str) -> str:
    """Return why an address that is not near is refused; `option` allows it."""
    return (
        f"everybody in that network could read it; use 127.0.0.1 or a Tailscale IP, or add {option}"
    )
