"""Untrusted input: hostile names and invalid documents, fixed and generated."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from support.statuses import PATHS, SUFFIX, encoded, peer, status

FIXTURES = Path(__file__).parent.parent / "fixtures"
"Captured and made-up input, with the expected output."

NAMES_FROM_HELL: dict[str, str] = {
    "empty": "",
    "climbs": "../../etc/passwd",
    "absolute": "/etc/passwd",
    "dot": ".",
    "dots": "..",
    "hidden": ".last_restart",
    "newline": "line one\nline two",
    "carriage-return": "carriage\rreturn",
    "quote": 'quo"te',
    "backslash": "back\\slash",
    "escaped-newline": "back\\nslash",
    "nul": "nul\0byte",
    "escape-sequence": "\x1b[31mred\x1b[0m",
    "c1-control": "\x9b31mred",
    "right-to-left": "\u202egnp.exe",
    "zero-width": "rpi\u200b3",
    "line-separator": "line\u2028separator",
    "byte-order-mark": "\ufeffrpi3",
    "private-use": "\ue000",
    "unassigned": "\U000e0fff",
    "emoji": "\U0001f369\U0001f469\u200d\U0001f680",
    "combining": "e\u0301" * 80,
    "wide": "\U0001d555" * 200,
    "separator": "rpi3#nABC",
    "percent": "%2e%2e%2f",
    "option": "-c",
    "spaces": "  my phone  ",
    "sample": 'x"} 1\ntailscale_up 0\n# TYPE tailscale_up counter\n',
    "log-line": "rpi3 back to direct\nRESTART: rpi4",
    "long": "n" * 10_240,
    "long-and-hostile": "\n/\u202e" * 3_400,
}
"Hostile names of machines, by what is wrong with them."

_GOOD = encoded(peer("rpi3"), peer("rpi4", "derp"))

BAD_STATUSES: dict[str, bytes] = {
    "empty": b"",
    "white-space": b" \n",
    "not-json": b"failed to connect to local tailscaled; it doesn't appear to be running\n",
    "html": b"<html><body>502 Bad Gateway</body></html>",
    "null": b"null",
    "true": b"true",
    "number": b"1",
    "string": b'"Running"',
    "array": b"[]",
    "array-of-one": b"[" + _GOOD + b"]",
    "no-fields": b"{}",
    "another-document": b'{"IP": "100.64.0.2", "Err": "no matching peer"}',
    "no-state": encoded(BackendState=""),
    "cut": _GOOD[: len(_GOOD) // 2],
    "cut-by-one": _GOOD[:-1],
    "twice": _GOOD + _GOOD,
    "trailing-line": _GOOD + b"\nWarning: client version differs\n",
    "leading-line": b"Warning: client version differs\n" + _GOOD,
    "byte-order-mark": b"\xef\xbb\xbf" + _GOOD,
    "utf-16": _GOOD.decode().encode("utf-16"),
    "not-utf-8": _GOOD.replace(b'"rpi3"', b'"rpi\xff"'),
    "not-utf-8-key": b'{"BackendState": "Running", "User": {"\xff": {}}}',
    "lone-surrogate": b'{"BackendState": "Running", "Version": "\\ud800"}',
    "raw-newline": b'{"BackendState": "Run\nning"}',
    "state-number": encoded(BackendState=1),
    "state-null": encoded(BackendState=None),
    "peer-array": encoded(Peer=[]),
    "health-text": encoded(Health="all is well"),
    "health-numbers": encoded(Health=[1]),
    "count-of-5000-digits": encoded(peer("rpi3")).replace(
        b'"RxBytes": 0', b'"RxBytes": ' + b"1" * 5_000
    ),
    "nested": b'{"BackendState": "Running", "Health": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested-in-the-unknown": b'{"BackendState": "Running", "Novelty": '
    + b"[" * 100_000
    + b"]" * 100_000
    + b"}",
    "nested-objects": b'{"a": ' * 100_000 + b"1" + b"}" * 100_000,
    "nested-and-cut": b"[" * 1_000_000,
}
"Documents that are not a status, by what is wrong with them."

DAMAGED_STATUSES: dict[str, bytes] = {
    "peer-null": encoded(Peer={"nodekey:1": None}),
    "self-null": encoded(Self=None),
    "online-text": encoded(peer("rpi4"), peer("rpi3", Online="true")),
    "addresses-object": encoded(peer("rpi4"), peer("rpi3", TailscaleIPs={})),
    "count-negative": encoded(peer("rpi4"), peer("rpi3", RxBytes=-1)),
    "count-fraction": encoded(peer("rpi4"), peer("rpi3", RxBytes=0.5)),
    "count-too-large": encoded(peer("rpi4"), peer("rpi3", TxBytes=2**63)),
    "time-number": encoded(peer("rpi4"), peer("rpi3", LastHandshake=0)),
    "time-text": encoded(peer("rpi4"), peer("rpi3", LastHandshake="yesterday\n")),
    "time-without-zone": encoded(peer("rpi4"), peer("rpi3", LastHandshake="2026-11-23T12:00:00")),
    "user-null": encoded(peer("rpi3"), User={"1": None}),
    "health-null": encoded(peer("rpi3"), Health=[None]),
    "time-in-year-0": encoded(peer("rpi3", LastHandshake="0000-00-00T00:00:00Z")),
    "time-leap-second": encoded(peer("rpi4"), peer("rpi3", LastSeen="2016-12-31T23:59:60Z")),
    "text-null": encoded(peer("rpi3", CurAddr=None)),
}
"Statuses with one part that cannot be read, or that is null, by what is wrong with it."


def names() -> SearchStrategy[str]:
    """Return a strategy for names of machines: harmless, hostile and similar ones."""
    similar = st.sampled_from(
        ["rpi3", "rpi3.", "rpi3#", "rpi3#nABC", "rpi3#1", "rpi3.tail2.ts.net"]
    )
    return (
        similar
        | st.sampled_from(list(NAMES_FROM_HELL.values()))
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    )


def hostile_peers() -> SearchStrategy[dict[str, Any]]:
    """Return a strategy for peers with arbitrary values of the right types."""
    return st.builds(
        peer,
        st.just("rpi3"),
        st.sampled_from(list(PATHS)),
        ID=st.sampled_from(["", "nABC", "nABC", "#"]) | names(),
        HostName=names(),
        DNSName=st.just("")
        | names()
        | names().map(lambda name: f"{name}.{SUFFIX}.")
        | names().map(lambda name: f"{name}.tail2.ts.net."),
        OS=names(),
        Relay=names(),
        UserID=st.sampled_from([0, 1, -1, 2**63]),
        TailscaleIPs=st.none()
        | st.lists(
            st.sampled_from(["100.64.0.2", "fd7a::2", "100.64.0.1", ""]) | names(), max_size=2
        ),
        Tags=st.none() | st.lists(names(), max_size=2),
        RxBytes=st.integers(0, 2**63 - 1),
        LastHandshake=handshakes(),
        Expired=st.booleans(),
        ShareeNode=st.booleans(),
    )


def handshakes() -> SearchStrategy[str]:
    """Return a strategy for times as Go encodes them, with zero and extreme ones."""
    return st.sampled_from(
        [
            "0001-01-01T00:00:00Z",
            "0001-01-01T00:00:00+14:00",
            "1969-12-31T23:59:59.999999999Z",
            "1970-01-01T00:00:00Z",
            "2026-11-23T12:53:51.522548716Z",
            "2026-11-23T05:53:51.5-07:00",
            "2106-02-07T06:28:16Z",
            "9999-12-31T23:59:59-12:00",
        ]
    )


def hostile_statuses() -> SearchStrategy[dict[str, Any]]:
    """Return a strategy for statuses with arbitrary values of the right types."""
    return st.builds(
        _status_of,
        st.lists(hostile_peers(), max_size=6),
        st.fixed_dictionaries(
            {},
            optional={
                "Version": names(),
                "BackendState": st.just("Running") | names().filter(bool),
                "Health": st.none() | st.lists(names(), max_size=2),
                "MagicDNSSuffix": st.sampled_from(["", SUFFIX, ".", "tail2.ts.net"]) | names(),
                "User": st.none()
                | st.dictionaries(
                    st.sampled_from(["0", "1"]) | names(),
                    st.fixed_dictionaries({"LoginName": names()}),
                    max_size=2,
                ),
            },
        ),
    )


def _status_of(peers: list[dict[str, Any]], fields: dict[str, Any]) -> dict[str, Any]:
    return status(*peers, **fields)


def json_values() -> SearchStrategy[Any]:
    """Return a strategy for any JSON value."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | names()
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names(), inner, max_size=3),
        max_leaves=6,
    )


@st.composite
def retyped(draw: st.DrawFn, document: Any) -> Any:
    """Return `document` with one of its values, anywhere in it, replaced."""
    path = draw(st.sampled_from(list(_paths(document))))
    if not path:
        return draw(json_values())
    changed = copy.deepcopy(document)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = draw(json_values())
    return changed


@st.composite
def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """Return `raw` truncated, or with a few bytes changed, dropped or inserted."""
    if draw(st.booleans()):
        return raw[: draw(st.integers(0, len(raw) - 1))]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw) - 1))
        new = draw(
            st.binary(max_size=2)
            | st.sampled_from(
                [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\0", b"\n", b"\xff", b"-", b"e"]
            )
        )
        raw = raw[:at] + new + raw[at + draw(st.integers(0, 1)) :]
    return raw or b"\0"


def documents() -> SearchStrategy[bytes]:
    """Return a strategy for statuses: valid, mistyped, damaged or something else."""
    valid = status(
        peer("rpi3", Tags=["tag:a"]),
        peer("rpi4", "derp"),
        CurrentTailnet={"MagicDNSSuffix": SUFFIX},
    )
    return (
        hostile_statuses().map(_encode)
        | retyped(valid).map(_encode)
        | hostile_statuses().map(_encode).flatmap(damaged)
        | json_values().map(_encode)
        | st.binary(max_size=40)
        | st.sampled_from(list(BAD_STATUSES.values()))
    )


def _encode(document: Any) -> bytes:
    return json.dumps(document).encode()


def _paths(document: Any) -> Iterator[tuple[Any, ...]]:
    yield ()
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(document, dict):
        parts = cast("dict[str, Any]", document).items()
    elif isinstance(document, list):
        parts = enumerate(cast("list[object]", document))
    for key, value in parts:
        yield from ((key, *path) for path in _paths(value))
