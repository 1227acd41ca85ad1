"""Redaction: replace the names in an observation by pseudonyms.

One table lists the fields of a status to copy, each with its redaction. All other
fields are dropped, because a new release of Tailscale may add some.

A pseudonym is an HMAC of the original: the same key gives the same pseudonym, in other
captures too. IP addresses go through a format-preserving encryption, a Feistel network
with cycle walking: the result is an address of the same range, and no two addresses
become the same.

Redaction hides names. It is not cryptographic anonymization: times, traffic and the
shape of the tailnet remain, and whoever has the key can test guesses.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from tsfc.core.evaluation.observation import Observation

KNOWN_SUFFIXES = (".mullvad.ts.net", ".ts.net", ".beta.tailscale.net")
"Suffixes of DNS names that belong to Tailscale; they stay as they are."
_PLAIN = re.compile(r"[A-Za-z0-9_.+-]{0,60}")
"Form of a version, an operating system, a state and the code of a DERP region."
_V4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "100.64.0.0/10",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "169.254.0.0/16",
            "127.0.0.0/8",
        ),
    )
)
_V6 = tuple(map(ipaddress.IPv6Network, ("fd7a:115c:a1e0::/48", "fe80::/10")))
_ROUNDS = 4

Redact = Callable[[Any, bytes], Any]
"Redacts a value with a key."


def redacted(observation: Observation, key: bytes) -> Observation:
    """Return the observation with pseudonyms.

    Names, keys, addresses, users, tags and domains are replaced. Never raises: a status
    that cannot be decoded becomes a fault.
    """
    boot = (
        None
        if observation.boot is None
        else replace(observation.boot, id=_uuid(key, observation.boot.id))
    )
    if observation.fault is not None:
        return replace(observation, boot=boot, fault=fault(observation.fault, key))
    try:
        document = msgspec.json.decode(observation.status)
        status = msgspec.json.encode(_object(_STATUS)(document, key))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document, status = None, b""
    if not isinstance(document, dict):
        return Observation(
            observation.captured_at,
            boot,
            fault=f"reading a status, {len(bytes(observation.status))} bytes: it is none",
        )
    return replace(observation, boot=boot, status=Raw(status))


def fault(text: str, key: bytes) -> str:
    """Return the text of a fault with all words replaced that may be a name.

    Only the words in `_ORDINARY` and `_KEPT`, and small numbers, stay.
    """
    words = re.split(r"(\s+)", text)
    return "".join(
        word if word.isspace() or _is_ordinary(word) else f"[{_hash(key, 'word', word)[:12]}]"
        for word in words
    )


_ORDINARY = frozenset(
    """
    a after and answer asking be by bytes can cannot check cli closed complete
    connection could daemon denied directory disk does done exit failed file for from
    get give got hang help http in installed is it its journalctl json large larger
    localapi mib no nobody not of on opening or out output over permission program raise
    reading refused reports reset response right run running s see set should socket
    space start started status such systemctl tailscale tailscaled than that the there
    timed to too tried usable user valid version was what whole with within without you
    --json --socket --source --tailscale --timeout
    """.split()  # noqa: SIM905 - more readable than a hundred strings
)
_KEPT = frozenset(
    {"/var/run/tailscale/tailscaled.sock", "/run/tailscale/tailscaled.sock", "tailscaled.service"}
)


def _is_ordinary(word: str) -> bool:
    bare = word.strip("`'\"();:,.?!").lower()
    # A small number is a count, an exit status, or an HTTP status.
    is_small = bare.isdigit() and len(bare) < 6  # noqa: PLR2004
    return bare in _ORDINARY or bare in _KEPT or is_small


# Texts


@lru_cache(maxsize=2**16)
def _hash(key: bytes, kind: str, text: str) -> str:
    return hmac.digest(key, f"{kind}\0{text}".encode(errors="surrogatepass"), hashlib.sha256).hex()


def _name(text: str, key: bytes) -> str:
    return f"n{_hash(key, 'name', text)[:16]}" if text else ""


def _dns_name(text: str, key: bytes) -> str:
    dot = "." if text.endswith(".") else ""
    bare = text.removesuffix(".")
    known = next((suffix for suffix in KNOWN_SUFFIXES if f".{bare}".endswith(suffix)), "")
    labels = f".{bare}".removesuffix(known).split(".")[1:]
    return (".".join(_name(label, key) for label in labels) + known).removeprefix(
        "." if not labels else ""
    ) + dot


def _login(text: str, key: bytes) -> str:
    user, at, domain = text.partition("@")
    return f"{_name(user, key)}@{_dns_name(domain, key)}" if at else _dns_name(text, key)


def _node_key(text: str, key: bytes) -> str:
    return f"nodekey:{_hash(key, 'nodekey', text)}" if text else ""


def _stable_id(text: str, key: bytes) -> str:
    return f"n{_hash(key, 'id', text)[:16]}CNTRL" if text else ""


def _tag(text: str, key: bytes) -> str:
    return f"tag:{_name(text.removeprefix('tag:'), key)}"


def _health(text: str, key: bytes) -> str:
    return f"health message {_hash(key, 'health', text)[:12]}"


def _plain(text: str, key: bytes) -> str:
    """Keep a version, a state or a code; replace anything else."""
    return text if _PLAIN.fullmatch(text) else _name(text, key)


def _time(text: str, _key: bytes) -> str | None:
    return text if re.fullmatch(r"[0-9T:.Z+-]{1,40}", text) else None


def _uuid(key: bytes, text: str) -> str:
    digits = _hash(key, "boot", text)
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"


def _user_id(value: int, key: bytes) -> int:
    return int(_hash(key, "user", str(value))[:13], 16)


def _user_key(text: str, key: bytes) -> str:
    return str(int(_hash(key, "user", text)[:13], 16))


# Addresses


def _ip(text: str, key: bytes) -> str | None:
    try:
        return _permuted(ipaddress.ip_address(text.partition("%")[0]), key)
    except ValueError:
        return None


@lru_cache(maxsize=2**16)
def _permuted(address: ipaddress.IPv4Address | ipaddress.IPv6Address, key: bytes) -> str:
    """Return a pseudonymous address of the same range; no two become the same."""
    kinds = _V4 if isinstance(address, ipaddress.IPv4Address) else _V6

    # A private or link-local range: permute the host part.
    number = int(address)
    kind = next(
        (network for network in kinds if network.version == address.version and address in network),
        None,
    )
    if kind is not None:
        bits = kind.max_prefixlen - kind.prefixlen
        host = number & ((1 << bits) - 1)
        return str(type(address)(int(kind.network_address) | _feistel(host, bits, key, str(kind))))

    # A public address: keep the first four bits, so that a routable one stays routable.
    # Cycle walking: repeat until the result is outside of the ranges above.
    bits = address.max_prefixlen - 4
    while True:
        number = number >> bits << bits | _feistel(
            number & ((1 << bits) - 1), bits, key, f"v{address.version}"
        )
        other = type(address)(number)
        if not any(other in network for network in kinds):
            return str(other)


def _feistel(number: int, bits: int, key: bytes, kind: str) -> int:
    """Permute the numbers of `bits` bits, which must be even.

    It is a Feistel network; its round function is HMAC-SHA-256.
    """
    half = bits // 2
    mask = (1 << half) - 1
    left, right = number >> half, number & mask
    for turn in range(_ROUNDS):
        left, right = right, left ^ int(_hash(key, f"{kind}/{turn}", str(right)), 16) & mask
    return left << half | right


def _endpoint(text: str, key: bytes) -> str:
    """Redact `ip:port`, `[v6]:port` or `ip:port:vni:N`.

    Only an empty text becomes empty: an empty `CurAddr` means that no path is direct.
    """
    found = re.fullmatch(
        r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([0-9.]+)):([0-9]{1,5})(:vni:[0-9]{1,10})?", text
    )
    address = _ip(found[1] or found[2], key) if found else None
    if found is None or address is None:
        return _name(text, key)
    return f"{f'[{address}]' if found[1] else address}:{found[3]}{found[4] or ''}"


def _prefix(text: str, key: bytes) -> str | None:
    """Redact `ip/bits` to a network of the same size, or None if it is invalid."""
    address, _, bits = text.partition("/")
    other = _ip(address, key)
    if other is None or not bits.isdigit() or int(bits) > ipaddress.ip_address(other).max_prefixlen:
        return None
    return text if int(bits) == 0 else str(ipaddress.ip_network(f"{other}/{bits}", strict=False))


# Shapes


def _of(kind: type, redact: Redact) -> Redact:
    """Return a redaction for values of one type; other values become None."""
    return lambda value, key: redact(value, key) if type(value) is kind else None


def _kept(*kinds: type) -> Redact:
    return lambda value, _key: value if type(value) in kinds else None


def _list(redact: Redact) -> Redact:
    return _of(
        list,
        lambda values, key: [
            one for one in (redact(value, key) for value in values) if one is not None
        ],
    )


def _map(name: Callable[[str, bytes], str], redact: Redact) -> Redact:
    return _of(
        dict,
        lambda values, key: {
            name(key_, key): redact(value, key)
            for key_, value in values.items()
            if isinstance(value, dict)
        },
    )


def _object(table: Mapping[str, Redact]) -> Redact:
    return _of(
        dict,
        lambda fields, key: {
            name: table[name](value, key) for name, value in fields.items() if name in table
        },
    )


def _text(redact: Callable[[str, bytes], str | None]) -> Redact:
    return _of(str, redact)


_FLAG, _NUMBER = _kept(bool), _kept(int)

_PEER: Mapping[str, Redact] = {
    "ID": _text(_stable_id),
    "PublicKey": _text(_node_key),
    "HostName": _text(_name),
    "DNSName": _text(_dns_name),
    "OS": _text(_plain),
    "UserID": _of(int, _user_id),
    "AltSharerUserID": _of(int, _user_id),
    "TailscaleIPs": _list(_text(_ip)),
    "AllowedIPs": _list(_text(_prefix)),
    "PrimaryRoutes": _list(_text(_prefix)),
    "Tags": _list(_text(_tag)),
    "Addrs": _list(_text(_endpoint)),
    "CurAddr": _text(_endpoint),
    "PeerRelay": _text(_endpoint),
    "Relay": _text(_plain),
    **dict.fromkeys(("RxBytes", "TxBytes", "TaildropTarget"), _NUMBER),
    **dict.fromkeys(("LastWrite", "LastSeen", "LastHandshake", "KeyExpiry"), _text(_time)),
    **dict.fromkeys(
        (
            "Online",
            "ExitNode",
            "ExitNodeOption",
            "Active",
            "ShareeNode",
            "InNetworkMap",
            "InMagicSock",
            "InEngine",
            "Expired",
        ),
        _FLAG,
    ),
}
_STATUS: Mapping[str, Redact] = {
    "Version": _text(_plain),
    "TUN": _FLAG,
    "BackendState": _text(_plain),
    "HaveNodeKey": _FLAG,
    "TailscaleIPs": _list(_text(_ip)),
    "Self": _object(_PEER),
    "ExitNodeStatus": _object(
        {"ID": _text(_stable_id), "Online": _FLAG, "TailscaleIPs": _list(_text(_prefix))}
    ),
    "Health": _list(_text(_health)),
    "MagicDNSSuffix": _text(_dns_name),
    "CurrentTailnet": _object(
        {"Name": _text(_login), "MagicDNSSuffix": _text(_dns_name), "MagicDNSEnabled": _FLAG}
    ),
    "CertDomains": _list(_text(_dns_name)),
    "Peer": _map(_node_key, _object(_PEER)),
    "User": _map(
        _user_key,
        _object(
            {"ID": _of(int, _user_id), "LoginName": _text(_login), "DisplayName": _text(_name)}
        ),
    ),
}
"Fields of a status to copy (`ipnstate.Status` of Tailscale v1.102.3), and how."
