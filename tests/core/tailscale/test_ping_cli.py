from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.corpus import FIXTURES, NAMES_FROM_HELL, names
from tsfc.core.tailscale.ping import ERROR, NO_REPLY, PingOutcome, PingResult
from tsfc.core.tailscale.ping_cli import parse_output


@pytest.mark.parametrize(
    ("line", "result"),
    [
        (
            "pong from host (100.64.0.2) via 192.0.2.7:41641 in 12ms",
            PingResult(PingOutcome.DIRECT, 0.012),
        ),
        (
            "pong from host (fd7a:115c:a1e0::2) via [2001:db8::7]:41641 in 12ms",
            PingResult(PingOutcome.DIRECT, 0.012),
        ),
        (
            "pong from host (100.64.0.2) via DERP(fra) in 1.007s",
            PingResult(PingOutcome.DERP, 1.007),
        ),
        (
            "pong from host (100.64.0.2) via peer-relay(1.2.3.4:5678:vni:7) in 0s",
            PingResult(PingOutcome.PEER_RELAY, 0.0),
        ),
        (
            "pong from my phone (100.64.0.2) via DERP(fra) in 12ms",
            PingResult(PingOutcome.DERP, 0.012),
        ),
        (
            "pong from a (b) via c in 1s (100.64.0.2) via DERP(fra) in 12ms",
            PingResult(PingOutcome.DERP, 0.012),
        ),
        (
            "pong from host (100.64.0.2) via DERP(my region) in 12ms",
            PingResult(PingOutcome.DERP, 0.012),
        ),
        (
            "pong from host (100.64.0.2) via DERP(a:b) in 12ms",
            PingResult(PingOutcome.DERP, 0.012),
        ),
        (
            "pong from host (100.64.0.2) via disco in 12ms",
            PingResult(PingOutcome.DERP, 0.012),
        ),
        (
            "pong from host (100.64.0.2, 51234) via 192.0.2.7:41641 in 12ms",
            PingResult(PingOutcome.DIRECT, 0.012),
        ),
        ('ping "100.64.0.2" timed out', NO_REPLY),
        ("2026/09/18 23:48:45 no reply", NO_REPLY),
        ("2026/09/18 23:48:45 unknown peer", ERROR),
        ("no reply", NO_REPLY),
        ("100.64.0.1 is local Tailscale IP", ERROR),
        ("no matching peer", ERROR),
        ("unknown peer", ERROR),
        ("peer's node key has expired", ERROR),
        ("local tailscaled stopped", ERROR),
        ("ping size too big", ERROR),
        ('error looking up IP of "x": no such host', ERROR),
        ("usage: tailscale ping <hostname-or-IP>", ERROR),
        (
            (
                "failed to connect to local tailscaled; it doesn't appear to be running"
                " (sudo systemctl start tailscaled ?)"
            ),
            ERROR,
        ),
        ("Tailscale is stopped.", ERROR),
        ("", ERROR),
        ("pong from host (100.64.0.2) via DERP(fra) in ", ERROR),
        ("pong from host (100.64.0.2) via", ERROR),
        (" pong from host (100.64.0.2) via DERP(fra) in 12ms", ERROR),
    ],
)
def test_a_line_is_a_pong_or_a_timeout_or_an_error(line: str, result: PingResult) -> None:
    """A pong carries its path and its latency."""
    assert parse_output(line) == (result,)
    assert parse_output(line + "\n") == (result,)
    assert parse_output(line + "\r\n") == (result,)


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("0s", 0.0),
        ("1ms", 0.001),
        ("12ms", 0.012),
        ("1.007s", 1.007),
        ("1m0.5s", 60.5),
        ("1h2m3s", 3723.0),
        ("850µs", 0.00085),
        ("850us", 0.00085),
        ("7ns", 7e-9),
    ],
)
def test_latencies_are_read_in_all_units_of_go(duration: str, seconds: float) -> None:
    """`tailscale ping` rounds to milliseconds today."""
    [result] = parse_output(f"pong from host (100.64.0.2) via DERP(fra) in {duration}\n")
    assert result.latency_seconds == pytest.approx(seconds)


RELAYED = "pong from host (100.64.0.2) via DERP(fra) in 48ms\n"


@pytest.mark.parametrize(
    ("output", "results"),
    [
        pytest.param(
            RELAYED * 3 + "direct connection not established\n",
            (PingResult(PingOutcome.DERP, 0.048),) * 3,
            id="relayed",
        ),
        pytest.param(
            RELAYED + "pong from host (100.64.0.2) via 192.0.2.7:41641 in 12ms\n",
            (PingResult(PingOutcome.DERP, 0.048), PingResult(PingOutcome.DIRECT, 0.012)),
            id="found-a-way",
        ),
        pytest.param('ping "100.64.0.2" timed out\n' * 3 + "no reply\n", (NO_REPLY,), id="silent"),
        pytest.param(
            RELAYED + 'ping "100.64.0.2" timed out\n' * 2,
            (NO_REPLY, PingResult(PingOutcome.DERP, 0.048)),
            id="fell-silent",
        ),
        pytest.param(
            'Warning: client version "1" != tailscaled server version "2"\n' + RELAYED,
            (PingResult(PingOutcome.DERP, 0.048),),
            id="warned",
        ),
        pytest.param("direct connection not established\n", (ERROR,), id="cut"),
    ],
)
def test_pongs_follow_one_result_for_all_timeouts(
    output: str, results: tuple[PingResult, ...]
) -> None:
    """So a pong decides the overall result."""
    assert parse_output(output) == results


DIRECT, PEER_RELAY, DERP = PingOutcome.DIRECT, PingOutcome.PEER_RELAY, PingOutcome.DERP


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("crlf", (PingResult(DERP, 0.065), PingResult(DIRECT, 0.008))),
        ("dated-derp", (PingResult(DERP, 0.065),)),
        ("dated-no-reply", (NO_REPLY,)),
        ("flaky", (NO_REPLY, PingResult(DERP, 0.065))),
        ("name-space", (PingResult(DERP, 0.065),)),
        ("relay", (PingResult(PEER_RELAY, 0.012),)),
        ("v6", (PingResult(DERP, 1.007), PingResult(DIRECT, 4.5 * 1e-3))),
        ("local", (ERROR,)),
        ("nomatch", (ERROR,)),
        ("stopped", (ERROR,)),
        ("unknown", (ERROR,)),
    ],
)
def test_outputs_of_each_release_and_system_are_read(
    name: str, results: tuple[PingResult, ...]
) -> None:
    assert parse_output((FIXTURES / f"field/ping-{name}.txt").read_bytes().decode()) == results


@pytest.mark.parametrize("name", NAMES_FROM_HELL)
def test_hostile_names_hide_no_pong_unless_they_break_the_line(name: str) -> None:
    """`tailscale ping` prints the peer's name unescaped."""
    evil = NAMES_FROM_HELL[name]
    expected = (ERROR,) if not evil or "\n" in evil else (PingResult(PingOutcome.DERP, 0.012),)
    assert parse_output(f"pong from {evil} (100.64.0.2) via DERP(fra) in 12ms\n") == expected


@given(
    st.lists(
        names()
        | st.sampled_from(
            [
                "pong from ",
                " (100.64.0.2)",
                " via DERP(fra)",
                " in 1.",
                "2ms",
                "\n",
                "no reply",
                'ping "',
                '" timed out',
            ]
        )
    ).map("".join)
)
def test_any_output_has_a_result_and_no_negative_latency(output: str) -> None:
    results = parse_output(output)
    assert results
    assert all((result.latency_seconds or 0) >= 0 for result in results)
