"""Redaction: replace the names in an observation by pseudonyms.

One table lists the fields of a status to copy, each with its redaction. All other
fields are dropped, because a new release of Tailscale may add some.

Names: the pseudonym is HMAC-SHA-256 (RFC 2104) of the kind and the name, truncated to
48 to 256 bits. The same key gives the same pseudonym, in other captures too.

Addresses: the pseudonym is an address of the same range, and no two addresses become
the same. A balanced Feistel network permutes the bits (Luby and Rackoff, "How to
Construct Pseudorandom Permutations from Pseudorandom Functions", 1988); its round
function is HMAC-SHA-256. It has ten rounds, as FF1 has (NIST SP 800-38G), because the
four of Luby and Rackoff are too few for a range as small as 16 bits. FF1 itself needs
AES, which neither Python's standard library nor a dependency of tsfc has. A public
address stays outside of the private ranges by cycle walking (Black and Rogaway,
"Ciphers with Arbitrary Finite Domains", 2002). Common prefixes are not preserved:
Crypto-PAn would preserve them, and so show the subnets.

Values of a closed set are kept: versions, operating systems, states and region codes
that are Tailscale's own. Anything else in those fields gets a pseudonym.

Redaction hides names. It is not cryptographic anonymization: times, ports, traffic and
the shape of the tailnet remain, and whoever has the key can test guesses.
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

from tsfc.core.clock import Boot
from tsfc.core.evaluation.observation import Observation
from tsfc.core.tailscale.peers import HELLO, SEPARATOR, SERVICE_PREFIX

KNOWN_SUFFIXES = (".mullvad.ts.net", ".ts.net", ".beta.tailscale.net")
"Suffixes of DNS names that belong to Tailscale; they stay as they are."

BACKEND_STATES = frozenset(
    """
    NoState InUseOtherUser NeedsLogin NeedsMachineAuth Stopped Starting Running
    """.split()  # noqa: SIM905 - more readable than a list of strings
)
"Names of `ipn.State` (`ipn/backend.go` of Tailscale v1.102.3)."

OPERATING_SYSTEMS = frozenset(
    """
    linux windows macOS iOS tvOS android js
    aix dragonfly freebsd illumos netbsd openbsd plan9 solaris wasip1
    """.split()  # noqa: SIM905 - more readable than a list of strings
)
"""Values of `version.OS` (`version/prop.go` of Tailscale v1.102.3).

They are Go's GOOS, except that Apple's systems have names of their own. A NAS reports
the system below its own, which is linux or freebsd.
"""

DERP_REGIONS = frozenset(
    """
    nyc sfo sin fra syd blr tok lhr dfw sea sao ord den ams
    jnb mia lax par mad hkg tor waw dbi hnl nai nue iad hel
    """.split()  # noqa: SIM905 - more readable than a list of strings
)
"""Codes of Tailscale's public DERP regions, as `tailscale netcheck` prints them.

The current list is https://controlplane.tailscale.com/derpmap/default. A code that is
missing here gets a pseudonym.
"""

_VERSION = re.compile(
    r"""
    ([01]\.[0-9]{1,3}\.[0-9]{1,7})        # the release
    (?:
        (?:-[0-9]{1,6} | -dev[0-9]{8})?   # number of changes, or date of the commit
        (?:-t[0-9a-f]{9})?                # commit of Tailscale
        (?:-g[0-9a-f]{9})?                # commit of the repository around it
        (?:-dirty)?
        | -ERR-BuildInfo                  # built without information on the commit
        | ([ -].*)                        # anything else
    )
    """,
    re.VERBOSE | re.DOTALL,
)
"Forms of `version.Long` (`version/version.go` of Tailscale v1.102.3)."

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})"
)
"RFC 3339, as Go encodes a time."

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
_ROUNDS = 10

_ENDPOINT = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([0-9.]+)):([0-9]{1,5})(:vni:[0-9]{1,10})?")
"`ip:port`, `[v6]:port` or `ip:port:vni:N`."
_STABLE_ID = re.compile(r"n\w+CNTRL")
"StableNodeID of Tailscale's control server; those of others are any text."

Redact = Callable[[Any, bytes], Any]
"Redacts a value with a key."


def redacted(observation: Observation, key: bytes) -> Observation:
    """Return the observation with pseudonyms.

    Names, keys, addresses, users, tags and domains are replaced. Never raises: a status
    that cannot be decoded becomes a fault.
    """
    boot = redacted_boot(observation.boot, key)
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


def redacted_boot(boot: Boot | None, key: bytes) -> Boot | None:
    """Return the boot clock with a pseudonym of the boot's ID."""
    return None if boot is None else replace(boot, id=_uuid(key, boot.id))


def fault(text: str, key: bytes) -> str:
    """Return the text of a fault with all words replaced that may be a name.

    These stay: the words in `ORDINARY` and `_PUBLIC`; and a number with its unit in
    `_MEASURE`. Any other number is replaced: it may be a port or a PIN.
    """
    return _PIECE.sub(lambda piece: _word(piece, key), text)


def by_form(text: str, key: bytes) -> str:
    """Return the pseudonym of a text that is outside of a status.

    Its form tells what it is: an address, a key, an ID, a tag, a login, or a name. The
    pseudonym is the one that `redacted` gives to the same text in a status.
    """
    base, is_qualified, stable_id = text.partition(SEPARATOR)
    if is_qualified and base:
        return f"{by_form(base, key)}{SEPARATOR}{_stable_id(stable_id, key)}"
    address = _ip(text, key)
    if address is not None:
        return address
    for form, pseudonym in _FORMS:
        if form.match(text):
            return pseudonym(text, key)
    return _name(text, key)


def _word(piece: re.Match[str], key: bytes) -> str:
    word = piece[0]
    bare = word.strip("`'\"();:,.?!").lower()
    is_harmless = piece["measure"] or bare in ORDINARY or bare in _PUBLIC
    return word if is_harmless else f"[{_hash(key, 'word', word)[:12]}]"


ORDINARY = frozenset(
    """
    a after and answer array asking be but by bytes can cannot check cli closed complete
    connection could daemon denied directory disk does done empty ended exit expected failed
    file for from get give got hang help http in input install installed int invalid is
    it its journalctl json large larger listens localapi malformed mib no nobody not null
    object of on opening or out output over permission program raise reading refused
    reports reset response restarting right run running s see set should socket space
    start started status str such systemctl tailscale tailscaled tailscaled's than that
    the there timed to too tried truncated unexpectedly usable user valid version was
    what whole with within without you
    --json --socket --source --tailscale --timeout -u
    sigabrt sigbus sigill sigint sigkill sigpipe sigsegv sigterm
    """.split()  # noqa: SIM905 - more readable than a list of strings
)
_PUBLIC = frozenset(
    {"/var/run/tailscale/tailscaled.sock", "/run/tailscale/tailscaled.sock", "tailscaled.service"}
)
_MEASURE = r"""
    exit[ ]status[ ][0-9]{1,3}
    | [0-9]{1,9}(?:\.[0-9]{1,6})?[ ](?:s|bytes|MiB)
    | [(]byte[ ][0-9]{1,9}
    | 400[ ]Bad[ ]Request | 403[ ]Forbidden | 404[ ]Not[ ]Found
    | 405[ ]Method[ ]Not[ ]Allowed | 500[ ]Internal[ ]Server[ ]Error
    | 503[ ]Service[ ]Unavailable
"""
"An exit status, seconds, sizes and positions in JSON; the HTTP statuses of tailscaled."
_PIECE = re.compile(rf"(?P<measure>(?:{_MEASURE})[;:,.?)]*(?!\S)) | \S+", re.VERBOSE)


# Texts


@lru_cache(maxsize=2**16)
def _hash(key: bytes, kind: str, text: str) -> str:
    return hmac.digest(key, f"{kind}\0{text}".encode(errors="surrogatepass"), hashlib.sha256).hex()


def _name(text: str, key: bytes) -> str:
    """A pseudonym; the prefix of a Tailscale Service stays."""
    if text.startswith(SERVICE_PREFIX):
        return SERVICE_PREFIX + _name(text.removeprefix(SERVICE_PREFIX), key)
    return f"n{_hash(key, 'name', text)[:16]}" if text else ""


def _dns_name(text: str, key: bytes) -> str:
    dot = "." if text.endswith(".") else ""
    bare = text.removesuffix(".")
    if bare == HELLO:
        return text
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


def _one_of(known: frozenset[str]) -> Callable[[str, bytes], str]:
    """Return a redaction that keeps the known values and replaces all others."""
    return lambda text, key: text if text in known else _name(text, key)


def version(text: str, key: bytes) -> str:
    """Keep a version of Tailscale; in that of a fork, keep only the release."""
    found = _VERSION.fullmatch(text)
    if found is None:
        return _name(text, key)
    return f"{found[1]}-{_name(found[2], key)}" if found[2] else text


def _time(text: str, _key: bytes) -> str | None:
    return text if _TIME.fullmatch(text) else None


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
    # Cycle walking: permute again until the result is outside of the ranges above.
    bits = address.max_prefixlen - 4
    while True:
        number = number >> bits << bits | _feistel(
            number & ((1 << bits) - 1), bits, key, f"v{address.version}"
        )
        other = type(address)(number)
        if not any(other in network for network in kinds):
            return str(other)


def _feistel(number: int, bits: int, key: bytes, kind: str) -> int:
    """Permute the numbers of `bits` bits, which must be even; `kind` is the tweak."""
    half = bits // 2
    mask = (1 << half) - 1
    left, right = number >> half, number & mask
    for turn in range(_ROUNDS):
        left, right = right, left ^ _round(right, turn, key, kind) & mask
    return left << half | right


def _round(half: int, turn: int, key: bytes, kind: str) -> int:
    """Return 256 pseudorandom bits: HMAC-SHA-256 of tweak, round and half."""
    return int.from_bytes(hmac.digest(key, f"{kind}/{turn}\0{half}".encode(), hashlib.sha256))


def _endpoint(text: str, key: bytes) -> str:
    """Redact `ip:port`, `[v6]:port` or `ip:port:vni:N`.

    Only an empty text becomes empty: an empty `CurAddr` means that no path is direct.
    """
    found = _ENDPOINT.fullmatch(text)
    address = _ip(found[1] or found[2], key) if found else None
    if found is None or address is None:
        return _name(text, key)
    return f"{f'[{address}]' if found[1] else address}:{found[3]}{found[4] or ''}"


def _prefix(text: str, key: bytes) -> str | None:
    """Redact `ip/bits` to a network of the same size, or None if it is invalid.

    The bits after the prefix are cut off, so two networks may become the same.
    """
    address, _, bits = text.partition("/")
    other = _ip(address, key)
    if other is None or not bits.isdigit() or int(bits) > ipaddress.ip_address(other).max_prefixlen:
        return None
    return text if int(bits) == 0 else str(ipaddress.ip_network(f"{other}/{bits}", strict=False))


_FORMS: tuple[tuple[re.Pattern[str], Callable[[str, bytes], str]], ...] = (
    (_ENDPOINT, _endpoint),
    (re.compile("nodekey:"), _node_key),
    (re.compile("tag:"), _tag),
    (re.compile(f"{_STABLE_ID.pattern}$"), _stable_id),
    (re.compile(".*@"), _login),
    (re.compile(rf"(?!{SERVICE_PREFIX}).*\."), _dns_name),
)
"What the beginning of a text outside of a status tells about it; the first that fits."


# Shapes


def _of(kind: type, redact: Redact) -> Redact:
    """Return a redaction for values of one type; other values become None."""
    return lambda value, key: redact(value, key) if type(value) is kind else None


def _unchanged(*kinds: type) -> Redact:
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


_FLAG, _NUMBER = _unchanged(bool), _unchanged(int)

_PEER: Mapping[str, Redact] = {
    "ID": _text(_stable_id),
    "PublicKey": _text(_node_key),
    "HostName": _text(_name),
    "DNSName": _text(_dns_name),
    "OS": _text(_one_of(OPERATING_SYSTEMS)),
    "UserID": _of(int, _user_id),
    "AltSharerUserID": _of(int, _user_id),
    "TailscaleIPs": _list(_text(_ip)),
    "AllowedIPs": _list(_text(_prefix)),
    "PrimaryRoutes": _list(_text(_prefix)),
    "Tags": _list(_text(_tag)),
    "Addrs": _list(_text(_endpoint)),
    "CurAddr": _text(_endpoint),
    "PeerRelay": _text(_endpoint),
    "Relay": _text(_one_of(DERP_REGIONS)),
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
    "Version": _text(version),
    "TUN": _FLAG,
    "BackendState": _text(_one_of(BACKEND_STATES)),
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
